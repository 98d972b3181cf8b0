"""Compares what this process knows with the cluster from time to time, and takes away pods that belong to nobody.

A watch can miss what was deleted while it was away, and a pod can lose its owner without the garbage collector's doing
(`--cascade=orphan`): neither may stay.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from carrel_api import names
from carrel_operator import metrics
from carrel_operator.concerning import have_looked_at
from carrel_operator.context import ProcessContext
from carrel_operator.observed import PodView
from carrel_operator.store import KINDS

logger = structlog.get_logger(__name__)

ORPHAN_AGE: Final = timedelta(seconds=60)
"""Whatever made the pod has long named its owner."""
_KERNELS: Final = f"{names.COMPONENT_LABEL}={names.KERNEL_COMPONENT}"


class Sweeper:
    """Looks at one namespace at a time."""

    def __init__(self, context: ProcessContext) -> None:
        self._context = context

    async def sweep(self, namespace: str) -> None:
        """Read everything of the namespace, and delete what belongs to nobody."""
        await read_all(self._context, namespace)
        store = self._context.store
        store_pods = [(name, store.find("Pod", *name)) for name in store.names("Pod") if name[0] == namespace]
        self._context.readiness.keep_only({store.find("Pod", *name).uid for name in store.names("Pod")})
        for (_, name), pod in store_pods:
            if self._is_orphan(pod, namespace):
                logger.warning("a pod that belongs to nobody is deleted", pod=name)
                metrics.ORPHANS.inc()
                await self._context.cluster.delete("Pod", name, namespace, uid=pod.uid)

    def _is_orphan(self, pod: PodView, namespace: str) -> bool:
        if pod.labels.get(names.MANAGED_BY_LABEL) != names.MANAGER or pod.deleted_at is not None:
            return False
        if pod.made_at is None or datetime.now(UTC) - pod.made_at < ORPHAN_AGE:
            return False
        kind, _, name = pod.owner.partition("/")
        if kind not in (names.SESSION_KIND, names.POOL_KIND):
            return not pod.owner  # what another controller has taken is its own
        return not self._context.store.is_there(kind, namespace, name, pod.owner_uid)


async def read_all(context: ProcessContext, namespace: str) -> None:
    """Take what the API server has of all that is watched in the namespace, and of classes; have the news looked at."""
    for kind in KINDS:
        where = "" if kind == names.CLASS_KIND else namespace
        since = context.store.newest(kind)
        labels = _KERNELS if kind == "Pod" else None
        documents = [document async for document in context.cluster.items(kind, where or None, labels=labels)]
        for name, value in context.store.replace(kind, where, documents, since=since):
            have_looked_at(context, kind, name, value)
