"""From a pydantic model to a structural schema, the subset of OpenAPI that CustomResourceDefinitions accept.

References are put in place, `null` is left out (a field is there or it is not), and titles are dropped. Rules of the
target: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from pydantic import BaseModel

Schema: TypeAlias = dict[str, Any]

_DROPPED: Final = frozenset({"title", "$defs", "additionalProperties"})


def structural_schema(model: type[BaseModel]) -> Schema:
    """Return the structural schema of the model, defaults included."""
    document = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(document, document.get("$defs", {}))


def _convert(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    schema = _resolve(schema, definitions)
    if schema.get("x-kubernetes-int-or-string"):
        return {key: value for key, value in schema.items() if key not in _DROPPED}
    schema = _without_null(schema, definitions)
    converted: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            converted[key] = {name: _convert(child, definitions) for name, child in value.items()}
        elif key == "items" or (key == "additionalProperties" and value not in (True, False)):
            converted[key] = _convert(value, definitions)
        elif key == "const":
            converted["enum"] = [value]
        elif key == "default" and value is None:
            continue  # absent, not null
        elif key not in _DROPPED:
            converted[key] = value
    if converted.get("type") == "integer":
        converted.setdefault("format", "int64")
    return converted


def _resolve(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Put a reference's target in place; what stands beside the reference wins."""
    while "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _without_null(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return the one alternative that is not `null`."""
    if "anyOf" not in schema:
        return schema
    others = [option for option in schema["anyOf"] if option.get("type") != "null"]
    if len(others) != 1:
        message = f"a structural schema must have one alternative, not {len(others)}"
        raise ValueError(message)
    beside = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**_resolve(others[0], definitions), **beside}
