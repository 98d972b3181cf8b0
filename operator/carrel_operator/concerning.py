"""What is to be looked at when an object has changed, or is gone."""

from __future__ import annotations

from typing import Any, Final

from carrel_api import names
from carrel_operator.context import Key, ProcessContext
from carrel_operator.isolation import is_foreign
from carrel_operator.observed import Document, PodView, controller

REFILL_AFTER: Final = 0.2
"""Seconds after a claim until its pool is looked at: sessions that come at once have the processor first."""


def have_looked_at(context: ProcessContext, kind: str, name: tuple[str, str], value: Any) -> None:
    """Put into the queue what the object concerns.

    Parameters
    ----------
    context
        Of the process.
    kind, name
        What changed.
    value
        What is kept of it, or was kept last.
    """
    match kind:
        case names.SESSION_KIND:
            context.queue.add(Key("session", *name))
        case names.POOL_KIND:
            context.queue.add(Key("pool", *name))
        case names.CLASS_KIND:
            context.queue.add(Key("class", name=name[1]))
        case "Pod":
            _pod(context, value, name[0])
        case _:
            _policy(context, value, name[0])


def claimed(context: ProcessContext, pod: PodView) -> None:
    """Have the pool that a session's pod came from looked at, a little later."""
    pool = context.store.pool_of(pod)
    if pool is not None:
        context.queue.add_after(Key("pool", *pool), REFILL_AFTER)


def _pod(context: ProcessContext, pod: PodView, namespace: str) -> None:
    kind, _, name = pod.owner.partition("/")
    if kind == names.SESSION_KIND:
        context.queue.add(Key("session", namespace, name))
        claimed(context, pod)
    elif kind == names.POOL_KIND:
        context.queue.add(Key("pool", namespace, name))


def _policy(context: ProcessContext, policy: Document, namespace: str) -> None:
    """Look at the session whose egress policy it is, and at all of the namespace for a foreign one: they are few."""
    owner = controller(policy["metadata"])
    if is_foreign(policy):
        for name in context.store.names(names.SESSION_KIND):
            if name[0] == namespace:
                context.queue.add(Key("session", *name))
    elif owner.get("kind") == names.SESSION_KIND:
        context.queue.add(Key("session", namespace, owner["name"]))
