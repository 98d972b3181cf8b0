"""Compares what this process knows with the cluster from time to time, and takes away pods and policies of nobody.

A watch can miss what was deleted while it was away, and a pod can lose its owner without the garbage collector's doing
(`--cascade=orphan`): neither may stay. Volumes of such a session stay: who orphans them may want what is in them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from carrel_api import names
from carrel_operator import metrics
from carrel_operator.concerning import have_looked_at
from carrel_operator.context import ProcessContext
from carrel_operator.observed import Document, PodView, controller
from carrel_operator.store import KINDS

logger = structlog.get_logger(__name__)

ORPHAN_AGE: Final = timedelta(seconds=60)
"""Whatever made the object has long named its owner."""
_KERNELS: Final = f"{names.COMPONENT_LABEL}={names.KERNEL_COMPONENT}"


class Sweeper:
    """Looks at one namespace at a time."""

    def __init__(self, context: ProcessContext, read: Collection[str] = ()) -> None:
        """Make it; `read` names namespaces of which everything has just been read."""
        self._context = context
        self._read = set(read)

    async def sweep(self, namespace: str) -> None:
        """Read everything of the namespace, unless that was just done, and delete what belongs to nobody."""
        if namespace not in self._read:
            await read_all(self._context, namespace)
        self._read.discard(namespace)
        store = self._context.store
        self._context.readiness.keep_only({store.find("Pod", *name).uid for name in store.names("Pod")})
        pods: list[PodView] = [store.find("Pod", *name) for name in store.names("Pod") if name[0] == namespace]
        for pod in pods:
            if pod.deleted_at is None and self._is_orphan(pod, namespace):
                logger.warning("a pod that belongs to nobody is deleted", pod=pod.name)
                metrics.ORPHANS.inc()
                await self._context.cluster.delete("Pod", pod.name, namespace, uid=pod.uid)
        for name in store.names("NetworkPolicy"):
            metadata = store.find("NetworkPolicy", *name)["metadata"]
            if name[0] == namespace and self._is_orphan(_Owned.of(metadata), namespace):
                logger.warning("a policy that belongs to nobody is deleted", policy=name[1])
                await self._context.cluster.delete("NetworkPolicy", name[1], namespace, uid=metadata["uid"])

    def _is_orphan(self, made: PodView | _Owned, namespace: str) -> bool:
        if made.labels.get(names.MANAGED_BY_LABEL) != names.MANAGER:
            return False
        if made.made_at is None or datetime.now(UTC) - made.made_at < ORPHAN_AGE:
            return False
        kind, _, name = made.owner.partition("/")
        if kind not in (names.SESSION_KIND, names.POOL_KIND):
            return not made.owner  # what another controller has taken is its own
        return not self._context.store.is_there(kind, namespace, name, made.owner_uid)


@dataclass(frozen=True)
class _Owned:
    """What tells whose a policy is; the namespace's own ones are nobody's session's and carry no label of one."""

    labels: dict[str, str]
    made_at: datetime | None
    owner: str
    owner_uid: str

    @classmethod
    def of(cls, metadata: Document) -> _Owned:
        labels: dict[str, str] = metadata.get("labels") or {}
        owner = controller(metadata)
        return cls(
            labels=labels if names.SESSION_LABEL in labels else {},
            made_at=datetime.fromisoformat(metadata["creationTimestamp"]),
            owner="/".join((owner["kind"], owner["name"])) if owner else "",
            owner_uid=owner.get("uid", ""),
        )


async def read_all(context: ProcessContext, namespace: str) -> None:
    """Take what the API server has of all that is watched in the namespace, and of classes; have the news looked at."""
    for kind in KINDS:
        where = "" if kind == names.CLASS_KIND else namespace
        since = context.store.newest(kind)
        labels = _KERNELS if kind == "Pod" else None
        documents = context.cluster.items(kind, where or None, labels=labels)
        async for name, value in context.store.replace(kind, where, documents, since=since):
            have_looked_at(context, kind, name, value)
