"""What both resources are made of: the base model, quantities, rules, object metadata and conditions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from carrel_api.quantities import BYTES_PATTERN, CPU_PATTERN, MAX_LENGTH

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
"""A DNS label (RFC 1123), as Kubernetes names them."""


class Model(BaseModel):
    """Base of every part of a resource: camelCase outside, immutable inside, unknown fields left alone."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",  # an older operator reads what a newer schema stored
        use_attribute_docstrings=True,
    )

    def dump(self) -> dict[str, Any]:
        """Return the JSON document: camelCase, without what is not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rule(expression: str, message: str, **more: str) -> dict[str, str]:
    """Return one entry of `x-kubernetes-validations`."""
    return {"rule": expression, "message": message, **more}


def rules(*entries: dict[str, str]) -> JsonDict:
    """Return the schema extension that holds the rules."""
    return {"x-kubernetes-validations": [dict(entry) for entry in entries]}


SET: JsonDict = {"x-kubernetes-list-type": "set"}
"""Schema extension: no element twice."""


def keyed_by(field: str) -> JsonDict:
    """Return the schema extension of a list whose elements are told apart by `field`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [field]}


def immutable(field: str) -> dict[str, str]:
    """Return a rule for the parent of `field`: neither its value nor its presence may change."""
    return rule(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"{field} must be the same for the life of the object; delete it and make another one",
        reason="FieldValueInvalid",
        fieldPath=f".{field}",
    )


def _text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _quantity(pattern: str, description: str) -> Any:
    return WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 1,
            "maximum": 10**15,
            "maxLength": MAX_LENGTH,
            "pattern": pattern,
            "description": description,
        }
    )


Cpu: TypeAlias = Annotated[
    str,
    BeforeValidator(_text),
    Field(pattern=CPU_PATTERN, max_length=MAX_LENGTH),
    _quantity(CPU_PATTERN, "CPUs, such as 2, 0.5 or 500m."),
]
Bytes: TypeAlias = Annotated[
    str,
    BeforeValidator(_text),
    Field(pattern=BYTES_PATTERN, max_length=MAX_LENGTH),
    _quantity(BYTES_PATTERN, "Bytes, such as 512Mi or 2Gi."),
]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=63, pattern=NAME_PATTERN)]
ObjectName: TypeAlias = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""A DNS subdomain, as Kubernetes names most objects."""
Port: TypeAlias = Annotated[int, Field(ge=1, le=65535)]
Seconds: TypeAlias = Annotated[int, Field(ge=1, le=31_536_000)]
"""At most a year."""

MINIMUM_MEMORY = "128Mi"
"""Below it the kernel host itself would not run."""

ENOUGH_MEMORY = rule(
    f"!has(self.memory) || quantity(string(self.memory)).compareTo(quantity('{MINIMUM_MEMORY}')) >= 0",
    f"memory must be at least {MINIMUM_MEMORY}",
    fieldPath=".memory",
)


class Egress(Model):
    """Addresses outside the cluster that a kernel may reach, over TCP only."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("isCIDR(self.cidr)", "cidr must be an address range such as 203.0.113.0/24", fieldPath=".cidr")
        )
    )

    cidr: Annotated[str, Field(min_length=3, max_length=43)]
    """Address range; cloud metadata addresses inside it stay closed."""
    ports: Annotated[list[Port], Field(min_length=1, max_length=16)]
    """TCP ports."""


class Metadata(Model):
    """The part of an object's metadata that Carrel reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Condition(Model):
    """One statement about the object, as in every Kubernetes API (meta/v1 Condition)."""

    type: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Z][A-Za-z]*$")]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """One word for programs."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """What happened and what to do, for people."""
    last_transition_time: datetime
    """When `status` last changed."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """Generation of the spec that this was said about."""
