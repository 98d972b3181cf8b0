"""Events of AgentSessions and SessionClasses: each becomes a key."""

from __future__ import annotations

from typing import Any

import kopf

from carrel_api import names
from carrel_operator.context import Key
from carrel_operator.queue import WorkQueue


def register(registry: kopf.OperatorRegistry, queue: WorkQueue[Key]) -> None:
    """Listen to sessions and classes."""

    @kopf.on.event(names.GROUP, names.VERSION, names.SESSION_PLURAL, registry=registry)
    async def session(name: str, namespace: str | None, **_: Any) -> None:  # pyright: ignore[reportUnusedFunction] (registered)
        queue.add(Key("session", namespace or "", name))

    @kopf.on.event(names.GROUP, names.VERSION, names.CLASS_PLURAL, registry=registry)
    async def session_class(name: str, **_: Any) -> None:  # pyright: ignore[reportUnusedFunction] (registered)
        queue.add(Key("class", name=name))
