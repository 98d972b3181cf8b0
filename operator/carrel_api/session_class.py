"""SessionClass: what the administrator allows sessions to be.

Everything that would let a session reach beyond its pod is decided here and nowhere else: image references, the
runtime class, nodes, network ranges, volumes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field

from carrel_api.common import (
    ENOUGH_MEMORY,
    SET,
    Bytes,
    Cpu,
    Egress,
    Metadata,
    Model,
    Name,
    ObjectName,
    Seconds,
    keyed_by,
    rule,
    rules,
)
from carrel_api.names import API_VERSION, CLASS_KIND, DEFAULT_CLASS_ANNOTATION

UserNamespace: TypeAlias = Literal["Required", "Off"]
Isolation: TypeAlias = Literal["Required", "Preferred"]
LabelText: TypeAlias = Annotated[str, Field(max_length=317)]
"""Key of a label or taint: prefix of 253, slash, name of 63."""
ModuleName: TypeAlias = Annotated[
    str, Field(max_length=100, pattern=r"^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*$")
]
"""Of a Python module, as in `import`."""
ProxyAddress: TypeAlias = Annotated[
    str, Field(min_length=8, max_length=253, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?$")
]
"""Without a user and a password: everybody who can read a pod would read them."""


def _within(path: str, first: str, second: str, convert: str) -> dict[str, str]:
    low, high = f"self.{first}.{path}", f"self.{second}.{path}"
    expression = convert.format(low=low, high=high)
    return rule(
        f"!has(self.{first}) || !has({low}) || !has(self.{second}) || !has({high}) || {expression}",
        f"{first}.{path} must be at most {second}.{path}",
        fieldPath=f".{first}",
    )


_QUANTITY = "quantity(string({low})).compareTo(quantity(string({high}))) <= 0"
_INTEGER = "{low} <= {high}"


class ClassImage(Model):
    """An image that sessions may name."""

    name: Name
    reference: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$")]
    """Where it is pulled from, pinned by digest unless the class allows tags."""


class DefaultResources(Model):
    """What a session gets that does not ask."""

    model_config = ConfigDict(json_schema_extra=rules(ENOUGH_MEMORY))

    cpu: Cpu = "1"
    memory: Bytes = "2Gi"
    ephemeral_storage: Bytes = "4Gi"
    gpu: Annotated[int, Field(ge=0, le=64)] = 0


class MaximumResources(Model):
    """The most that a session may ask for."""

    model_config = ConfigDict(json_schema_extra=rules(ENOUGH_MEMORY))

    cpu: Cpu = "2"
    memory: Bytes = "4Gi"
    ephemeral_storage: Bytes = "8Gi"
    gpu: Annotated[int, Field(ge=0, le=64)] = 0


class Toleration(Model):
    """As in a pod's spec."""

    key: LabelText = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: Annotated[str, Field(max_length=63)] = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None


class Dataset(Model):
    """A volume with data that sessions may name, mounted read-only."""

    name: Name
    claim_name: ObjectName
    """PersistentVolumeClaim in the session's own namespace."""


class WorkspaceLimits(Model):
    """Sizes and kind of workspaces."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.defaultSize) || !has(self.maximumSize) || "  # the server tries rules on `{}` before defaults
                "quantity(string(self.defaultSize)).compareTo(quantity(string(self.maximumSize))) <= 0",
                "defaultSize must be at most maximumSize",
            )
        )
    )

    default_size: Bytes = "2Gi"
    maximum_size: Bytes = "10Gi"
    allow_persistent: bool = True
    storage_class_name: Annotated[str, Field(max_length=253)] | None = None
    """Of persistent workspaces; the cluster's default where it is left out."""


class LifeLimits(Model):
    """Bounds of a session's life; where the session sets the same, the lower one holds."""

    idle_timeout_seconds: Seconds | None = None
    max_lifetime_seconds: Seconds | None = None


class Kernels(Model):
    """What is ready before anybody asks: kernels are forked from a process that has imported the modules."""

    preload: list[ModuleName] = Field(
        default=["numpy", "pandas", "matplotlib.pyplot", "sklearn"], max_length=32, json_schema_extra=SET
    )
    """Modules that kernels have imported when they start. One that starts threads is left out, and named in the log."""
    spare: Annotated[int, Field(ge=0, le=8)] = 1
    """Kernels that a pod keeps ready, besides those in use; some 30 MiB each."""
    allowed_imports: list[ModuleName] = Field(default=[], max_length=64, json_schema_extra=SET)
    """Modules that cells may import; `standard`: those of data analysis; none: any. A lint; the pod is the boundary."""


class Proxy(Model):
    """What programs in a pod are told of a proxy; what they may reach is decided by `egress` alone."""

    http: ProxyAddress | None = None
    """Sets `HTTP_PROXY` and `http_proxy`."""
    https: ProxyAddress | None = None
    """Sets `HTTPS_PROXY` and `https_proxy`."""
    no_proxy: Annotated[str, Field(max_length=1024)] = ""
    """Hosts and ranges that are reached directly, separated by commas: `NO_PROXY` and `no_proxy`."""


class SessionClassSpec(Model):
    """What is allowed."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.allowTags || self.images.all(i, i.reference.matches('@sha256:[0-9a-f]{64}$'))",
                "images must be pinned by digest (name@sha256:…), or allowTags must be true",
                fieldPath=".images",
            ),
            _within("cpu", "defaultResources", "maximumResources", _QUANTITY),
            _within("memory", "defaultResources", "maximumResources", _QUANTITY),
            _within("ephemeralStorage", "defaultResources", "maximumResources", _QUANTITY),
            _within("gpu", "defaultResources", "maximumResources", _INTEGER),
        )
    )

    images: list[ClassImage] = Field(min_length=1, max_length=32, json_schema_extra=keyed_by("name"))
    """The first one is for sessions that name none."""
    allow_tags: bool = False
    """Accept references without a digest: what runs may then change under the same name."""
    pull_secrets: list[ObjectName] = Field(default=[], max_length=8, json_schema_extra=SET)
    """Names of image pull secrets in the session's namespace."""
    default_resources: DefaultResources = Field(default=DefaultResources(), json_schema_extra={"default": {}})
    maximum_resources: MaximumResources = Field(default=MaximumResources(), json_schema_extra={"default": {}})
    gpu_resource_name: Annotated[str, Field(min_length=3, max_length=253)] = "nvidia.com/gpu"
    """The extended resource that a GPU is."""
    runtime_class_name: Annotated[str, Field(max_length=253)] | None = None
    """Such as gVisor's or Kata's."""
    user_namespace: UserNamespace = "Off"
    """`Required` maps the pod's users to others on the node (`hostUsers: false`)."""
    run_as_user: Annotated[int, Field(ge=1, le=4_294_967_294)] | None = None
    """User and group of the pod; left out where the platform assigns them, as OpenShift does."""
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default={}, json_schema_extra={"maxProperties": 16}
    )
    tolerations: list[Toleration] = Field(default=[], max_length=16)
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    isolation: Isolation = "Preferred"
    """`Required`: a session is Ready only once enforcement of its network policies has been seen."""
    egress: list[Egress] = Field(default=[], max_length=16)
    """The most that a session may reach; it gets none of it that it does not name."""
    proxy: Proxy | None = None
    ca_bundle: ObjectName | None = None
    """ConfigMap in the session's namespace whose `ca.crt` programs in the pod trust beside their own authorities."""
    datasets: list[Dataset] = Field(default=[], max_length=32, json_schema_extra=keyed_by("name"))
    workspace: WorkspaceLimits = Field(default=WorkspaceLimits(), json_schema_extra={"default": {}})
    kernels: Kernels = Field(default=Kernels(), json_schema_extra={"default": {}})
    life: LifeLimits = Field(default=LifeLimits(), json_schema_extra={"default": {}})


class SessionClass(Model):
    """What the administrator allows sessions to be."""

    model_config = ConfigDict(
        json_schema_extra=rules(rule("size(self.metadata.name) <= 63", "metadata.name must be at most 63 characters"))
    )

    api_version: Literal["carrel.dev/v1alpha1"] = API_VERSION
    kind: Literal["SessionClass"] = CLASS_KIND
    metadata: Metadata
    spec: SessionClassSpec

    @property
    def is_default(self) -> bool:
        """Whether sessions without a class name get this one."""
        return self.metadata.annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"

    @classmethod
    def parse(cls, document: Any) -> SessionClass:
        """Return the class of a JSON document.

        Raises
        ------
        pydantic.ValidationError
            It is none that this version of the schema accepts.
        """
        return cls.model_validate(document)
