"""AgentSession: one person's or agent's isolated kernel.

It names a SessionClass and one of its images and asks for resources within the class's bounds. It is no pod template:
whoever may create sessions must not thereby be able to run any pod. Credentials have no place in it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field

from carrel_api.common import (
    ENOUGH_MEMORY,
    SET,
    Bytes,
    Condition,
    Cpu,
    Egress,
    Metadata,
    Model,
    Name,
    Seconds,
    immutable,
    keyed_by,
    rule,
    rules,
)
from carrel_api.environment import refused_name_cel
from carrel_api.names import API_VERSION, SESSION_KIND

WorkspaceType: TypeAlias = Literal["Ephemeral", "Persistent"]
OperatingMode: TypeAlias = Literal["Running", "Suspended"]
ShutdownPolicy: TypeAlias = Literal["Delete", "Retain"]

MAX_ENVIRONMENT_BYTES = 32768


class SessionResources(Model):
    """What the kernel pod gets; the class's default where a field is left out, and never more than its maximum."""

    model_config = ConfigDict(json_schema_extra=rules(ENOUGH_MEMORY))

    cpu: Cpu | None = None
    """CPU request and limit."""
    memory: Bytes | None = None
    """Memory request and limit, which are always the same."""
    ephemeral_storage: Bytes | None = None
    """Limit of what the pod writes to the node, workspace included when it is ephemeral."""
    gpu: Annotated[int, Field(ge=0, le=64)] | None = None
    """Whole GPUs."""


class EnvironmentVariable(Model):
    """A literal; secrets are delivered when the kernel is bound, never here."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"!({refused_name_cel('self.name')})",
                "name must be none that the loader, the interpreter, thread counts or Carrel itself use",
                fieldPath=".name",
            )
        )
    )

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: Annotated[str, Field(max_length=8192)] = ""


class Workspace(Model):
    """The folder that the kernel works in."""

    type: WorkspaceType = "Ephemeral"
    """`Persistent` survives the pod (a PersistentVolumeClaim); `Ephemeral` goes with it."""
    size: Bytes | None = None
    """The class's default where it is left out."""


class SessionNetwork(Model):
    """What the kernel may reach; nothing, unless it is named here and allowed by the class."""

    egress: list[Egress] = Field(default=[], max_length=16)


class SavedState(Model):
    """Where a gateway keeps the state of a pod that is to end, or has ended."""

    pod_uid: Annotated[str, Field(min_length=1, max_length=63)] = Field(alias="podUID")
    """The pod whose state it is; another pod's end does not rest on it."""
    ref: Annotated[str, Field(max_length=253)] = ""
    """Id of the snapshot in the gateway; empty where nothing had run and there was nothing to keep."""
    digest: Annotated[str, Field(max_length=128)] = ""
    """Of its manifest."""


class AgentSessionSpec(Model):
    """What is asked for."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(immutable(field) for field in ("className", "image", "workspace", "owner", "tenant")),
            rule(
                "!has(self.env) || self.env.map(e, size(bytes(e.name)) + (has(e.value) ? size(bytes(e.value)) : 0))"
                f".sum() <= {MAX_ENVIRONMENT_BYTES}",
                f"env must be at most {MAX_ENVIRONMENT_BYTES} bytes, all names and values together",
                fieldPath=".env",
            ),
        )
    )

    class_name: Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")] = ""
    """SessionClass; the cluster's default one when empty, resolved once and kept in status."""
    image: Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")] = ""
    """Name of one of the class's images; its first one when empty."""
    resources: SessionResources = Field(default=SessionResources(), json_schema_extra={"default": {}})
    """A change holds from the next pod on."""
    env: list[EnvironmentVariable] = Field(default=[], max_length=64, json_schema_extra=keyed_by("name"))
    """Environment of the kernel, not of the pod; a change holds from the next pod on."""
    datasets: list[Name] = Field(default=[], max_length=32, json_schema_extra=SET)
    """Names of the class's data sets, mounted read-only under /datasets; a change holds from the next pod on."""
    workspace: Workspace = Field(default=Workspace(), json_schema_extra={"default": {}})
    network: SessionNetwork = Field(default=SessionNetwork(), json_schema_extra={"default": {}})
    operating_mode: OperatingMode = "Running"
    """`Suspended` ends the pod once its state is saved and keeps the object, and with it a persistent workspace."""
    snapshot: SavedState | None = None
    """Written by a gateway when it has saved the state of a pod that is to end."""
    idle_timeout_seconds: Seconds | None = None
    """Suspends the session when nothing ran and nobody was connected for so long; the class may set a lower one."""
    max_lifetime_seconds: Seconds | None = None
    """Ends the session so long after its creation; the class may set a lower one."""
    shutdown_time: datetime | None = None
    """Ends the session at this time."""
    shutdown_policy: ShutdownPolicy = "Retain"
    """What becomes of the object when the session ends: deleted, or kept without a pod."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Deletes a retained object so long after its session ended; never when left out."""
    owner: Annotated[str, Field(max_length=253)] = ""
    """Whose it is, as the gateway says; a label of the pod carries a hash of it."""
    tenant: Annotated[str, Field(max_length=253)] = ""
    """Whose owner belongs to it, as the gateway says; a label of the pod carries a hash of it."""


class LastTermination(Model):
    """How the kernel host, or its whole pod, last ended against the session's will."""

    reason: Annotated[str, Field(max_length=63)]
    """`OOMKilled`, `Crashed`, `Evicted`, `PodDeleted`, `NodeLost`, or why the kubelet refused the pod."""
    exit_code: int | None = None
    memory_limit: Annotated[str, Field(max_length=32)] | None = None
    """Limit of the container that ended."""
    time: datetime


class AgentSessionStatus(Model):
    """What was observed; it can be rebuilt from the cluster."""

    conditions: list[Condition] = Field(default=[], max_length=16, json_schema_extra=keyed_by("type"))
    class_name: Annotated[str, Field(max_length=63)] | None = None
    """The class that was resolved."""
    pod_name: Annotated[str, Field(max_length=253)] | None = None
    pod_uid: Annotated[str, Field(max_length=63)] | None = Field(default=None, alias="podUID")
    endpoint: Annotated[str, Field(max_length=63)] | None = None
    """`host:port` of the kernel host, once it is bound to this session; whoever calls it checks the pod's UID."""
    node_name: Annotated[str, Field(max_length=253)] | None = None
    start_time: datetime | None = None
    """When the present pod became ready."""
    restarts: Annotated[int, Field(ge=0)] = 0
    """How often the variables were lost to the end of a kernel host or pod."""
    last_termination: LastTermination | None = None
    pool: Annotated[str, Field(max_length=63)] | None = None
    """The SessionPool that the present pod came from; none where it was started cold."""
    cold_start_reason: Annotated[str, Field(max_length=253)] | None = None
    """Why the present pod was not taken from a pool, where there is one of its class."""

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of this type, if there is one."""
        return next((condition for condition in self.conditions if condition.type == kind), None)

    def is_true(self, kind: str) -> bool:
        """Return whether the condition of this type is there and True."""
        found = self.condition(kind)
        return found is not None and found.status == "True"


class AgentSession(Model):
    """An isolated kernel of one person or agent."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("size(self.metadata.name) <= 63", "metadata.name must be at most 63 characters"),
            rule("!self.metadata.name.contains('.')", "metadata.name must be without dots"),
        )
    )

    api_version: Literal["carrel.dev/v1alpha1"] = API_VERSION
    kind: Literal["AgentSession"] = SESSION_KIND
    metadata: Metadata
    spec: AgentSessionSpec = Field(default=AgentSessionSpec(), json_schema_extra={"default": {}})
    status: AgentSessionStatus = AgentSessionStatus()

    @classmethod
    def parse(cls, document: Any) -> AgentSession:
        """Return the session of a JSON document.

        Raises
        ------
        pydantic.ValidationError
            It is none that this version of the schema accepts.
        """
        return cls.model_validate(document)
