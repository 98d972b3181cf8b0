"""What the watches say: kept in the store, and what it concerns is put into the queue. Nothing else."""

from __future__ import annotations

from typing import Any, Final

import kopf

from carrel_api import names
from carrel_operator.builders.network_policy import DENY_POLICY, INGRESS_POLICY
from carrel_operator.concerning import have_looked_at
from carrel_operator.context import Key, ProcessContext

WATCHED: Final[tuple[tuple[str, str, str, str], ...]] = (
    (names.CLASS_KIND, names.GROUP, names.VERSION, names.CLASS_PLURAL),
    (names.POOL_KIND, names.GROUP, names.VERSION, names.POOL_PLURAL),
    (names.SESSION_KIND, names.GROUP, names.VERSION, names.SESSION_PLURAL),
    ("Pod", "", "v1", "pods"),
    ("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies"),
)
"""Kind, group, version and plural."""


def register(registry: kopf.OperatorRegistry, context: ProcessContext) -> None:
    """Listen to everything that is watched."""
    for kind, group, version, plural in WATCHED:
        kopf.on.event(group, version, plural, registry=registry, id=f"watch-{plural}", param=kind)(_listener(context))


def _listener(context: ProcessContext) -> Any:
    async def heard(event: kopf.RawEvent, param: str, **_: Any) -> None:
        take(context, param, event)

    return heard


def take(context: ProcessContext, kind: str, event: kopf.RawEvent) -> None:
    """Keep what one event says, and have what it concerns looked at."""
    document: Any = event["object"]
    name = (document["metadata"].get("namespace", ""), document["metadata"]["name"])
    gone = event["type"] == "DELETED"
    before = context.store.find(kind, *name)
    context.store.heard(kind, document, deleted=gone)
    value = before if gone else context.store.find(kind, *name)
    if value is not None:
        have_looked_at(context, kind, name, value)
    if (
        kind == "NetworkPolicy"
        and event["type"] in {"MODIFIED", "DELETED"}
        and name[1] in {DENY_POLICY, INGRESS_POLICY}
    ):
        context.queue.add(Key("namespace", name[0]))
