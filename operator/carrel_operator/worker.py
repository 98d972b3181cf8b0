"""One pass over one key: see what is there, let `reconcile` decide, carry the plan out, write what is new.

What it remembers between passes (who is bound, who was active, which namespaces are prepared) is only there to spare
requests: after a restart it is asked for again.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from functools import partial
from typing import Any, Final

import structlog
from pydantic import ValidationError

from carrel_api import names
from carrel_api.common import Condition
from carrel_api.session import AgentSession, AgentSessionStatus
from carrel_operator import metrics
from carrel_operator.actions import Actions, Memory, now
from carrel_operator.announcing import Announcer
from carrel_operator.concerning import claimed
from carrel_operator.context import Key, ProcessContext
from carrel_operator.errors import ApiConflict, ApiNotFound
from carrel_operator.namespaces import Namespaces
from carrel_operator.observed import Observed
from carrel_operator.observing import Observer
from carrel_operator.plan import DeleteSession, Plan
from carrel_operator.pools import PoolWorker
from carrel_operator.queue import Again
from carrel_operator.reconcile import reconcile
from carrel_operator.sighting import Lookout
from carrel_operator.status import READY
from carrel_operator.sweeping import Sweeper
from carrel_operator.terminations import REASONS

logger = structlog.get_logger(__name__)

MAX_ROUNDS: Final = 6
"""Decisions in one pass: what an action brought is decided on at once. The longest way has four."""
SOONEST: Final = 0.05
"""Seconds; a deadline that is due within the same second is not polled faster."""


class Worker:
    """Handles the keys of the queue."""

    def __init__(self, context: ProcessContext, lookout: Lookout, *, read: Collection[str] = ()) -> None:
        """Make it; `read` names namespaces of which everything has just been read."""
        self.context = context
        self._namespaces = Namespaces(context.settings, context.cluster, context.own_key, context.store)
        self._actions = Actions(
            context.cluster,
            context.hosts,
            self._namespaces,
            context.store,
            context.readiness,
            lookout,
            partial(claimed, context),
            lambda seen: context.queue.add(Key("session", seen.metadata.namespace, seen.metadata.name)),
        )
        self._observer = Observer(context.settings, context.store, context.readiness)
        self._pools = PoolWorker(context, self._actions, self._observer)
        self._sweeper = Sweeper(context, read)
        self._announcer = Announcer(context.cluster, context.settings)
        self._memories: dict[Key, Memory] = {}
        self._begun: dict[Key, float] = {}
        """When sessions that are on their way to Ready were first seen so (monotonic seconds)."""

    async def handle(self, key: Key) -> Again:
        """Do one pass over what the key names."""
        outcome = "failed"
        try:
            with metrics.PASS_SECONDS.labels(kind=key.kind).time():
                again = await self._pass(key)
            outcome = "retry" if again.retry else "ok"
        finally:
            metrics.PASSES.labels(kind=key.kind, outcome=outcome).inc()
        return again

    async def _pass(self, key: Key) -> Again:
        match key.kind:
            case "session":
                return await self._session(key)
            case "pool":
                return await self._pools.handle(key)
            case "namespace":
                await self._namespaces.renew(key.namespace)
                await self._sweeper.sweep(key.namespace)
                return Again(after=self.context.settings.resync_seconds)
            case _:
                self._wake_users_of(key.name)
                return Again()

    # sessions

    async def _session(self, key: Key) -> Again:
        document = self.context.store.find(names.SESSION_KIND, key.namespace, key.name)
        if document is None:
            self._memories.pop(key, None)
            self._begun.pop(key, None)
            return Again()
        try:
            wanted = AgentSession.parse(document)
        except ValidationError as error:
            await self._say_invalid(document, error)
            return Again()
        memory = self._memory(key, wanted.metadata.uid)
        if memory.doubted_pod is not None:
            await self._look_at_doubted(memory, key.namespace)
        if not wanted.status.is_true(READY):
            self._begun.setdefault(key, time.monotonic())
        return await self._converge(key, wanted, self._observer.session(wanted, memory), memory)

    async def _converge(self, key: Key, wanted: AgentSession, observed: Observed, memory: Memory) -> Again:
        before, plan = wanted.status, Plan(retry=True)
        for _ in range(MAX_ROUNDS):
            plan = reconcile(wanted, observed, now())
            if plan.status is not None:  # the next decision goes on from what this one says
                wanted = wanted.model_copy(update={"status": plan.status})
            failure = observed.failure
            if not plan.actions or (failure is not None and failure.reason != "BoundToAnother"):
                break
            observed = await self._actions.carry_out(plan.actions, wanted, observed, memory)
            if DeleteSession() in plan.actions and observed.failure is None:
                break  # nothing is left to decide on
        if not await self._write_status(key, wanted, before):
            return Again(retry=True)
        after = None if plan.after is None else max(plan.after, SOONEST)
        return Again(after=after, retry=plan.retry or (observed.failure is not None and after is None))

    async def _look_at_doubted(self, memory: Memory, namespace: str) -> None:
        name = memory.doubted_pod or ""
        document = await self.context.cluster.find("Pod", name, namespace)
        if document is not None:
            self.context.store.read("Pod", document)
        memory.doubted_pod = None

    # status

    async def _write_status(self, key: Key, wanted: AgentSession, before: AgentSessionStatus) -> bool:
        """Write what is new; return whether the session is still the one that was decided on."""
        status = wanted.status
        if status.dump() == before.dump():
            return True
        metadata = wanted.metadata
        try:
            await self._apply_status(metadata.name, metadata.namespace, metadata.resource_version, status)
        except ApiNotFound:
            return True  # deleted meanwhile
        except ApiConflict:
            return False
        self._measure(key, status, before)
        self._announcer.announce(wanted, before)
        return True

    async def _apply_status(self, name: str, namespace: str, version: str, status: AgentSessionStatus) -> None:
        metrics.STATUS_WRITES.inc()
        document = await self.context.cluster.apply(
            {
                "apiVersion": names.API_VERSION,
                "kind": names.SESSION_KIND,
                "metadata": {"name": name, "namespace": namespace, "resourceVersion": version},
                "status": status.dump(),
            },
            subresource="status",
        )
        self.context.store.wrote(names.SESSION_KIND, document)

    async def _say_invalid(self, document: dict[str, Any], error: ValidationError) -> None:
        """Say that a stored object is none that this version understands, once."""
        metadata = document["metadata"]
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = f"{where}: {first['msg']}; correct the field, or upgrade the operator"
        said = document.get("status", {}).get("conditions", [])
        if any(entry.get("reason") == "InvalidSpec" and entry.get("message") == message for entry in said):
            return
        condition = Condition(
            type=READY, status="False", reason="InvalidSpec", message=message, last_transition_time=now(),
            observed_generation=metadata.get("generation", 0),
        )  # fmt: skip
        status = AgentSessionStatus(conditions=[condition])
        await self._apply_status(metadata["name"], metadata["namespace"], metadata["resourceVersion"], status)

    def _measure(self, key: Key, status: AgentSessionStatus, before: AgentSessionStatus) -> None:
        if status.is_true(READY):
            began = self._begun.pop(key, None)
            if began is not None and not before.is_true(READY):
                kind = "cold" if status.pool is None else "warm"
                metrics.START_SECONDS.labels(kind=kind).observe(time.monotonic() - began)
        if status.restarts > before.restarts and status.last_termination is not None:
            reason = status.last_termination.reason
            metrics.TERMINATIONS.labels(reason=reason if reason in REASONS else "Failed").inc()

    # classes

    def _wake_users_of(self, class_name: str) -> None:
        """Look again at what a changed class may concern: its pools and sessions, and those that wait for one."""
        store, queue = self.context.store, self.context.queue
        for namespace, name in store.names(names.POOL_KIND):
            queue.add(Key("pool", namespace, name))
        for namespace, name in store.names(names.SESSION_KIND):
            status = store.find(names.SESSION_KIND, namespace, name).get("status", {})
            conditions = status.get("conditions", [])
            ready = any(entry["type"] == READY and entry["status"] == "True" for entry in conditions)
            if not ready or status.get("className") == class_name:
                queue.add(Key("session", namespace, name))

    def _memory(self, key: Key, uid: str) -> Memory:
        memory = self._memories.get(key)
        if memory is None or memory.uid != uid:
            memory = self._memories[key] = Memory(uid)
        return memory
