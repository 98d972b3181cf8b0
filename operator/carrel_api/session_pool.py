"""SessionPool: kernel pods that are started, idle and bound to no one, so that a session finds its pod ready.

It names a SessionClass as a session does. A session of the same namespace claims one of its pods when that pod is
exactly what the session would get; everything personal is brought to it by the claim and by bind.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from carrel_api.common import Condition, Metadata, Model, keyed_by, rule, rules
from carrel_api.names import API_VERSION, POOL_KIND
from carrel_api.session import SessionResources


class SessionPoolSpec(Model):
    """What is kept ready."""

    class_name: Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")] = ""
    """SessionClass; the cluster's default one when empty."""
    image: Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")] = ""
    """Name of one of the class's images; its first one when empty."""
    resources: SessionResources = Field(default=SessionResources(), json_schema_extra={"default": {}})
    """Only sessions that get the same resources find a pod here."""
    replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Pods that nobody has claimed."""
    max_surge: Annotated[int, Field(ge=1, le=1000)] = 1
    """Pods beyond `replicas` while old ones are replaced, and the most that are replaced at the same time."""


class SessionPoolStatus(Model):
    """What was observed; it can be rebuilt from the cluster."""

    conditions: list[Condition] = Field(default=[], max_length=16, json_schema_extra=keyed_by("type"))
    observed_generation: Annotated[int, Field(ge=0)] = 0
    replicas: Annotated[int, Field(ge=0)] = 0
    """Unclaimed pods, ready or not."""
    ready: Annotated[int, Field(ge=0)] = 0
    """Those that may be claimed."""
    starting: Annotated[int, Field(ge=0)] = 0
    """Those on their way."""
    claimed: Annotated[int, Field(ge=0)] = 0
    """Pods that sessions have and that came from here."""
    selector: Annotated[str, Field(max_length=317)] = ""
    """Label selector of the unclaimed pods, for autoscalers."""

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of this type, if there is one."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


class SessionPool(Model):
    """Kernel pods that are kept ready."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("size(self.metadata.name) <= 52", "metadata.name must be at most 52 characters"),
            rule("!self.metadata.name.contains('.')", "metadata.name must be without dots"),
        )
    )

    api_version: Literal["carrel.dev/v1alpha1"] = API_VERSION
    kind: Literal["SessionPool"] = POOL_KIND
    metadata: Metadata
    spec: SessionPoolSpec = Field(default=SessionPoolSpec(), json_schema_extra={"default": {}})
    status: SessionPoolStatus = SessionPoolStatus()

    @classmethod
    def parse(cls, document: Any) -> SessionPool:
        """Return the pool of a JSON document.

        Raises
        ------
        pydantic.ValidationError
            It is none that this version of the schema accepts.
        """
        return cls.model_validate(document)
