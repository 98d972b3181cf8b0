"""What the operator asks gateways for: sessions whose pods are to end, and whose state must be saved first.

The request is a condition of the AgentSession, the answer is in its spec; this finds the one and knows nothing of how
the other comes about.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Final, cast
from uuid import UUID

from pydantic import ValidationError

from carrel_api.names import SNAPSHOT_FAILURE_ANNOTATION
from carrel_api.session import AgentSession
from carrel_gateway.executors.base import Listed, SessionRef, Sighting, SuspensionRequest
from carrel_gateway.executors.cluster import Cluster, Object

MAX_EXPLANATION: Final = 500
"""Characters."""
_WATCH_SECONDS: Final = 300.0
"""Then all of them are listed again: whatever a watch may have missed is seen by then."""


class ClusterRequests:
    """Requests in the session namespace."""

    def __init__(self, cluster: Cluster, names: dict[UUID, str]) -> None:
        self._cluster = cluster
        self._names = names  # of sessions that were made with kubectl: it saves looking for them

    async def follow(self) -> AsyncGenerator[Sighting | Listed, None]:
        """Yield all AgentSessions, `Listed`, and then every change for five minutes."""
        names: set[str] = set()
        version = ""
        async with aclosing(self._cluster.session_pages()) as pages:
            async for page in pages:
                version = page["metadata"]["resourceVersion"]
                for found in page["items"]:
                    names.add(found["metadata"]["name"])
                    yield self._sight(found)
        yield Listed(names)
        async with aclosing(self._cluster.watch_sessions(version, seconds=_WATCH_SECONDS)) as events:
            async for kind, found in events:
                yield Sighting(found["metadata"]["name"], None) if kind == "DELETED" else self._sight(found)

    async def explain(self, name: str, text: str | None) -> None:
        """Write the annotation, or take it away."""
        await self._cluster.annotate_session(
            name, {SNAPSHOT_FAILURE_ANNOTATION: text[:MAX_EXPLANATION] if text is not None else None}
        )

    def _sight(self, found: Object) -> Sighting:
        metadata = found["metadata"]
        request = request_of(found)
        if request and request.tenant_id is None:
            self._names[request.session_id] = request.name
        explained = SNAPSHOT_FAILURE_ANNOTATION in (metadata.get("annotations") or {})
        return Sighting(metadata["name"], request, explained)


def is_requested(session: AgentSession) -> bool:
    """Whether the operator waits for the session's state to be saved."""
    condition = session.status.condition("SnapshotRequested")
    return condition is not None and condition.status == "True"


def request_of(found: Object) -> SuspensionRequest | None:
    """Return the request that an AgentSession carries and nobody has answered yet."""
    conditions = cast("list[Object]", found.get("status", {}).get("conditions", []))
    if not any(condition.get("type") == "SnapshotRequested" for condition in conditions):
        return None  # nearly all of them: cheaper than reading all of the object
    try:
        session = AgentSession.model_validate(found)
    except ValidationError:  # of a newer schema: a newer gateway reads it
        return None
    condition, pod_uid = session.status.condition("SnapshotRequested"), session.status.pod_uid
    if condition is None or condition.status != "True" or not pod_uid or session.metadata.deletion_timestamp:
        return None
    snapshot = session.spec.snapshot
    if session.spec.operating_mode == "Suspended" and snapshot and snapshot.pod_uid == pod_uid:
        return None
    by_gateway = bool(session.spec.owner or session.spec.tenant)
    ref = ref_of(found) if by_gateway else None
    if by_gateway and ref is None:
        return None
    return SuspensionRequest(
        name=session.metadata.name,
        session_id=ref.session_id if ref else UUID(session.metadata.uid),
        tenant_id=ref.tenant_id if ref else None,
        owner_id=ref.owner_id if ref else None,
        pod_uid=pod_uid,
        reason=condition.reason,
    )


def ref_of(found: Object) -> SessionRef | None:
    """Return the session that a gateway made the AgentSession for; none when it is being deleted, or is another's."""
    metadata, spec = found["metadata"], found.get("spec", {})
    if metadata.get("deletionTimestamp"):
        return None
    with suppress(KeyError, ValueError):  # somebody else's, with our label
        return SessionRef(
            tenant_id=UUID(spec["tenant"]), session_id=UUID(metadata["name"]), owner_id=UUID(spec["owner"])
        )
    return None
