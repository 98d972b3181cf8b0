"""What a changed CustomResourceDefinition would do to objects that are stored already, as a list of faults. Pure.

A change is additive where every object that the old schema let in is let in by the new one, reads the same, and can be
written again. Renamed and moved things are removed ones here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

Schema: TypeAlias = dict[str, Any]

_UPPER: Final = ("maxLength", "maxItems", "maxProperties", "maximum")
_LOWER: Final = ("minLength", "minItems", "minProperties", "minimum")
_SAME: Final = (
    *("type", "format", "pattern", "nullable", "anyOf", "x-kubernetes-int-or-string", "x-kubernetes-list-type"),
    *("x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-preserve-unknown-fields"),
)


def faults(old: Schema, new: Schema) -> list[str]:
    """Return what is not additive in a new CustomResourceDefinition, each as `path: what`."""
    found = [f"{field}: changed" for field in ("group", "scope", "names") if new["spec"][field] != old["spec"][field]]
    versions = {version["name"]: version for version in new["spec"]["versions"]}
    for version in old["spec"]["versions"]:
        name, now = version["name"], versions.get(version["name"])
        if now is None or (version["served"] and not now["served"]):
            found.append(f"{name}: no longer served")
            continue
        if now["storage"] != version["storage"]:
            found.append(f"{name}: storage version changed")
        lost = sorted(set(version.get("subresources", {})) - set(now.get("subresources", {})))
        found += [f"{name}: subresource {subresource} removed" for subresource in lost]
        found += _parts(version["schema"]["openAPIV3Schema"], now["schema"]["openAPIV3Schema"], "")
    return found


def _parts(old: Schema, new: Schema, path: str) -> Iterator[str]:
    yield from (f"{path}: {said}" for said in _part(old, new))
    properties = new.get("properties", {})
    for name, child in old.get("properties", {}).items():
        if name in properties:
            yield from _parts(child, properties[name], f"{path}.{name}")
        else:
            yield f"{path}.{name}: removed"
    for name in ("items", "additionalProperties"):
        if isinstance(old.get(name), dict) and isinstance(new.get(name), dict):
            yield from _parts(old[name], new[name], f"{path}[]")
        elif (name in old) != (name in new):
            yield f"{path}: {name} changed"


def _part(old: Schema, new: Schema) -> Iterator[str]:
    yield from (f"{field} changed" for field in _SAME if old.get(field) != new.get(field))
    for field in _UPPER:
        if field in new and (field not in old or new[field] < old[field]):
            yield f"{field} tightened"
    for field in _LOWER:
        if field in new and (field not in old or new[field] > old[field]):
            yield f"{field} tightened"
    if "enum" in new and not set(old.get("enum", ["anything"])) <= set(new["enum"]):
        yield "enum narrowed"
    if old.get("default") != new.get("default"):
        yield "default changed"
    for field in sorted(set(new.get("required", [])) - set(old.get("required", []))):
        yield f"{field} required"
    known = {entry["rule"] for entry in old.get("x-kubernetes-validations", [])}
    for entry in new.get("x-kubernetes-validations", []):
        if entry["rule"] not in known:
            yield f"rule added: {entry['message']}"
