"""Events of what belongs to sessions: pods and network policies. The key is that of the owner, or of the namespace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kopf

from carrel_api import names
from carrel_operator.context import Key
from carrel_operator.queue import WorkQueue


def register(registry: kopf.OperatorRegistry, queue: WorkQueue[Key]) -> None:
    """Listen to kernel pods and to the operator's own network policies."""

    @kopf.on.event("", "v1", "pods", labels={names.COMPONENT_LABEL: names.KERNEL_COMPONENT}, registry=registry)
    async def pod(meta: Mapping[str, Any], namespace: str | None, **_: Any) -> None:  # pyright: ignore[reportUnusedFunction] (registered)
        key = owner_key(meta, namespace or "")
        if key is not None:
            queue.add(key)

    @kopf.on.event(
        "networking.k8s.io", "v1", "networkpolicies",
        labels={names.MANAGED_BY_LABEL: names.MANAGER}, registry=registry,
    )  # fmt: skip
    async def policy(type: str | None, meta: Mapping[str, Any], namespace: str | None, **_: Any) -> None:  # noqa: A002 (kopf's name)  # pyright: ignore[reportUnusedFunction] (registered)
        owner = owner_key(meta, namespace or "")
        if owner is not None:
            queue.add(owner)
        elif type in {"MODIFIED", "DELETED"}:
            queue.add(Key("namespace", namespace or ""))


def owner_key(meta: Mapping[str, Any], namespace: str) -> Key | None:
    """Return the key of the AgentSession that controls the object."""
    for owner in meta.get("ownerReferences", []):
        if owner.get("controller") and owner.get("kind") == names.SESSION_KIND:
            return Key("session", namespace, owner["name"])
    return None
