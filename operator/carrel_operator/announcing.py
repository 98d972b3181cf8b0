"""Tells people what befell a session, as Kubernetes Events on it. They are words for `kubectl describe`, no state.

Only what a person would ask about: an end against the session's will, a suspension, state that cannot be saved, an end
by its own terms. Starting is not told: a claim costs no further write.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import structlog

from carrel_api import names
from carrel_api.session import AgentSession, AgentSessionStatus
from carrel_operator import metrics
from carrel_operator.cluster import Cluster, Document
from carrel_operator.errors import ApiError
from carrel_operator.settings import Settings
from carrel_operator.status import FINISHED, READY, SNAPSHOT_REQUESTED, SUSPENDED

logger = structlog.get_logger(__name__)

MOST_AT_ONCE: Final = 100
"""Events on their way; what comes beyond is counted and left out."""
_MAX_NOTE: Final = 1024
TROUBLES: Final = frozenset(
    {
        "ClassNotFound",
        "DatasetNotFound",
        "ImagePullFailed",
        "LimitRangeExceeded",
        "NotIsolated",
        "PodNotPrepared",
        "PodRefused",
        "PriorityClassNotFound",
        "QuotaExceeded",
        "RuntimeClassNotFound",
        "Unschedulable",
        "UserNotAssigned",
    }
)
"""Reasons of `Ready=False` that somebody must do something about."""


class Announcer:
    """Writes Events in the background; one that cannot be written is only counted."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._instance = settings.pod_name
        self._tasks: set[asyncio.Task[None]] = set()

    def announce(self, session: AgentSession, before: AgentSessionStatus) -> None:
        """Tell what the status says that it did not say before."""
        for kind, reason, note in changes(before, session.status):
            if reason in TROUBLES:
                metrics.TROUBLES.labels(reason=reason).inc()
            if len(self._tasks) >= MOST_AT_ONCE:
                metrics.EVENTS.labels(outcome="left_out").inc()
                continue
            task = asyncio.create_task(self._write(self._event(session, kind, reason, note)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _write(self, event: Document) -> None:
        try:
            await self._cluster.create(event)
        except ApiError as error:
            metrics.EVENTS.labels(outcome="failed").inc()
            logger.warning("an event could not be written", error=str(error))
        else:
            metrics.EVENTS.labels(outcome="written").inc()

    def _event(self, session: AgentSession, kind: str, reason: str, note: str) -> Document:
        metadata = session.metadata
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata.name}.{secrets.token_hex(8)}", "namespace": metadata.namespace},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": names.SESSION_KIND,
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid,
            },
            "type": kind,
            "reason": reason,
            "message": note[:_MAX_NOTE],
            "source": {"component": names.MANAGER},
            "reportingComponent": f"{names.GROUP}/operator",
            "reportingInstance": self._instance[:128],
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }


def changes(before: AgentSessionStatus, after: AgentSessionStatus) -> Iterator[tuple[str, str, str]]:
    """Yield type, reason and note of what is to be told; pure."""
    ready, was_ready = after.condition(READY), before.condition(READY)
    if after.restarts > before.restarts and after.last_termination is not None:
        yield "Warning", after.last_termination.reason, ready.message if ready is not None else ""
    elif ready is not None and ready.reason in TROUBLES and (was_ready is None or was_ready.reason != ready.reason):
        yield "Warning", ready.reason, ready.message
    for kind, level in ((SUSPENDED, "Normal"), (FINISHED, "Normal"), (SNAPSHOT_REQUESTED, "Normal")):
        now, then = after.condition(kind), before.condition(kind)
        if now is not None and now.status == "True" and (then is None or then.status != "True"):
            yield level, now.reason if kind != SNAPSHOT_REQUESTED else kind, now.message
