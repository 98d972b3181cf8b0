"""Passes over pools: pods are made, asked whether they are ready, and taken away; `reconcile_pool` decides which."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

import structlog
from pydantic import ValidationError

from carrel_api import names
from carrel_api.session_pool import SessionPool, SessionPoolStatus
from carrel_operator import metrics
from carrel_operator.actions import Actions, now
from carrel_operator.context import Key, ProcessContext
from carrel_operator.errors import ApiConflict, ApiNotFound, ApiRefused, HostError, OperatorError
from carrel_operator.isolation import isolated
from carrel_operator.observed import PodView, Said
from carrel_operator.observing import Observer
from carrel_operator.plan import CreatePod, DeletePod, PoolPlan
from carrel_operator.queue import Again
from carrel_operator.reconcile import reconcile_pool
from carrel_operator.reconcile.isolating import LOOK_AGAIN
from carrel_operator.reconcile.pool import PoolObserved
from carrel_operator.reconcile.running import endpoint_of
from carrel_operator.refusals import explain
from carrel_operator.sighting import Target

logger = structlog.get_logger(__name__)

_T = TypeVar("_T")
_R = TypeVar("_R")

AT_ONCE: Final = 16
"""Pods of one pool that are made or deleted at the same time."""
PREPARED_AT_ONCE: Final = 64
"""Pods of all pools that are asked at the same time: a look at one takes a second."""
PREPARE_AGAIN: Final = 0.25
"""Seconds until a kernel host that is not ready yet is asked again."""
BETWEEN_WRITES: Final = 0.5
"""Seconds between two writes of a pool's status: what changes meanwhile is one write."""


@dataclass
class PoolMemory:
    """What was learnt of a pool; after a restart it is learnt again."""

    uid: str
    failures: int = 0
    failed_at: datetime | None = None
    wrote_at: float = 0.0
    unasked: set[str] | None = None
    """UIDs of pods that ran when this process began, and have not been asked yet whether they are ready."""


class PoolWorker:
    """Handles the keys of pools."""

    def __init__(self, context: ProcessContext, actions: Actions, observer: Observer) -> None:
        self._context = context
        self._actions = actions
        self._observer = observer
        self._memories: dict[Key, PoolMemory] = {}
        self._preparing: dict[str, asyncio.Task[None]] = {}
        """By the UID of the pod."""
        self._limit = asyncio.Semaphore(PREPARED_AT_ONCE)

    async def handle(self, key: Key) -> Again:
        """Do one pass over a pool."""
        document = self._context.store.find(names.POOL_KIND, key.namespace, key.name)
        if document is None:
            self._memories.pop(key, None)
            return Again()
        try:
            pool = SessionPool.parse(document)
        except ValidationError as error:
            logger.warning("a SessionPool cannot be understood", name=key.name, error=str(error.errors()[0]["loc"]))
            return Again()
        memory = self._memories.get(key)
        if memory is None or memory.uid != pool.metadata.uid:
            memory = self._memories[key] = PoolMemory(pool.metadata.uid)
        return await self._converge(key, pool, memory)

    async def _converge(self, key: Key, pool: SessionPool, memory: PoolMemory) -> Again:
        observed = self._observed(pool, memory)
        plan = reconcile_pool(pool, observed, now())
        asked = {pod.uid for pod in plan.prepare}
        memory.unasked = asked if memory.unasked is None else memory.unasked & asked
        self._begin_to_prepare(key, plan.prepare, isolation=observed.isolation)
        if plan.actions:
            failure = await self._carry_out(pool, plan, memory)
            observed = replace(self._observed(pool, memory), failure=failure)
            plan = replace(reconcile_pool(pool, observed, now()), prepare=(), actions=())
        if observed.ready:
            memory.failures = 0
        return await self._say(pool, plan, memory)

    def _observed(self, pool: SessionPool, memory: PoolMemory) -> PoolObserved:
        class_name, session_class = self._observer.class_of(pool.spec.class_name)
        pods = self._context.store.pods_of(pool.metadata.uid)
        isolation = session_class is not None and session_class.spec.isolation == "Required"
        return PoolObserved(
            class_name=class_name,
            session_class=session_class,
            pods=pods,
            ready=frozenset(pod.uid for pod in pods if self._context.readiness.is_ready(pod, isolation=isolation)),
            isolation=isolation,
            unproven=next((said for pod in pods if (said := self._unproven(pod, isolation=isolation))), None),
            claimed=self._context.store.pods_from(pool.metadata.uid),
            failures=memory.failures,
            failed_at=memory.failed_at,
        )

    def _begin_to_prepare(self, key: Key, pods: tuple[PodView, ...], *, isolation: bool) -> None:
        """Ask kernel hosts in the background: the pool's next pass is not to wait for the slowest of them."""
        for pod in pods:
            if pod.uid not in self._preparing:
                task = asyncio.create_task(self._prepare_once(key, pod, isolation=isolation))
                self._preparing[pod.uid] = task

    async def _prepare_once(self, key: Key, pod: PodView, *, isolation: bool) -> None:
        pause = PREPARE_AGAIN
        try:
            async with self._limit:
                await self._prepare(pod, isolation=isolation)
            if self._context.readiness.is_ready(pod, isolation=isolation):
                pause = 0.0
            elif self._context.readiness.sight_of(pod) is not None:
                pause = LOOK_AGAIN.total_seconds()
        except OperatorError as error:
            logger.warning("a pod of a pool could not be prepared", pod=pod.name, error=str(error))
        finally:
            del self._preparing[pod.uid]
            memory = self._memories.get(key)
            if memory is not None and memory.unasked is not None:
                memory.unasked.discard(pod.uid)
            self._context.queue.add_after(key, pause)

    async def _prepare(self, pod: PodView, *, isolation: bool) -> None:
        """Ask the kernel host, and look at its isolation."""
        try:
            state = await self._context.hosts.state(endpoint_of(pod.ip or ""), pod.uid)
        except HostError:
            return
        if state.session_uid is not None:  # somebody else bound it: nobody may have it
            logger.warning("a pod of a pool is bound", pod=pod.name)
            await self._actions.delete_pod(DeletePod(pod.name, pod.uid), self._namespace_of(pod), version=pod.version)
        elif state.warm:
            looks = bool(self._context.settings.pod_ip) or isolation
            sight = await self._actions.lookout.look(Target(pod.ip or "", pod.uid), unbound=True) if looks else None
            self._context.readiness.note(pod, sight)

    def _unproven(self, pod: PodView, *, isolation: bool) -> Said | None:
        """Return why a pod that answers is not ready: its class wants to see it isolated."""
        readiness = self._context.readiness
        sight = readiness.sight_of(pod)
        if sight is None or readiness.is_ready(pod, isolation=isolation):
            return None
        return Said("NotIsolated", isolated(sight).message)

    def _namespace_of(self, pod: PodView) -> str:
        pool = self._context.store.pool_of(pod)
        return pool[0] if pool is not None else ""

    async def _carry_out(self, pool: SessionPool, plan: PoolPlan, memory: PoolMemory) -> Said | None:
        """Make and delete; return why one of them was refused."""
        failed = [pod for pod in self._context.store.pods_of(pool.metadata.uid) if pod.over or pod.ended is not None]
        if any(isinstance(action, DeletePod) and action.uid in {pod.uid for pod in failed} for action in plan.actions):
            memory.failures, memory.failed_at = memory.failures + 1, now()
        if any(isinstance(action, CreatePod) for action in plan.actions):
            await self._actions.namespaces.ensure(pool.metadata.namespace)

        async def act(action: object) -> Said | None:
            try:
                if isinstance(action, CreatePod):
                    await self._actions.create_once(action.manifest)
                elif isinstance(action, DeletePod):
                    await self._take_away(pool, action)
            except ApiRefused as error:
                return explain(str(error))
            return None

        results = await _each(plan.actions, act)
        return next((refused for refused in results if refused is not None), None)

    async def _take_away(self, pool: SessionPool, action: DeletePod) -> None:
        """Delete the pod, unless a session has become faster since that was decided: then it is not the pool's."""
        namespace = pool.metadata.namespace
        pod: PodView | None = self._context.store.find("Pod", namespace, action.name)
        still = pod is not None and pod.uid == action.uid and pod.owner_uid == pool.metadata.uid
        if pod is None or not still or not self._context.readiness.reserve(pod):
            return
        try:
            await self._actions.delete_pod(action, namespace, version=pod.version)
        finally:
            self._context.readiness.release(pod)

    async def _say(self, pool: SessionPool, plan: PoolPlan, memory: PoolMemory) -> Again:
        again = Again(after=plan.after, retry=plan.retry)
        if plan.status is None or plan.status.dump() == pool.status.dump():
            return again
        if memory.unasked:  # what the process before has seen stands until this one has looked
            return again
        wait = memory.wrote_at + BETWEEN_WRITES - time.monotonic()
        if wait > 0:
            return replace(again, after=wait if again.after is None else min(again.after, wait))
        memory.wrote_at = time.monotonic()
        return again if await self._write(pool, plan.status) else Again(retry=True)

    async def _write(self, pool: SessionPool, status: SessionPoolStatus) -> bool:
        metrics.POOL_STATUS_WRITES.inc()
        metadata = pool.metadata
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.POOL_KIND,
            "metadata": {
                "name": metadata.name,
                "namespace": metadata.namespace,
                "resourceVersion": metadata.resource_version,
            },
            "status": status.dump(),
        }
        try:
            document = await self._context.cluster.apply(manifest, subresource="status")
        except ApiNotFound:
            return True
        except ApiConflict:
            return False
        self._context.store.wrote(names.POOL_KIND, document)
        return True


async def _each(items: tuple[_T, ...], act: Callable[[_T], Awaitable[_R]]) -> list[_R]:
    """Act on all, some at a time; when one raises, the others still end, and then it is raised."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(item: _T) -> _R:
        async with limit:
            return await act(item)

    results = await asyncio.gather(*(one(item) for item in items), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
