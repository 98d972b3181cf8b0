"""One pass over one key: observe through `cluster`, let `reconcile` decide, carry the plan out, write what is new.

What it remembers between passes (who is bound, who was active, which namespaces are prepared) is only there to spare
requests: after a restart it is asked for again.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import structlog
from pydantic import ValidationError

from carrel_api import names
from carrel_api.common import Condition
from carrel_api.session import AgentSession, AgentSessionStatus
from carrel_api.session_class import SessionClass
from carrel_operator import metrics
from carrel_operator.actions import Actions, Memory, now, owned
from carrel_operator.builders.identity import egress_policy_name, pod_name
from carrel_operator.context import Key, ProcessContext
from carrel_operator.errors import ApiConflict, ApiNotFound
from carrel_operator.namespaces import Namespaces
from carrel_operator.observed import Document, Observed, PodView
from carrel_operator.plan import DeleteSession, Plan
from carrel_operator.queue import Again
from carrel_operator.reconcile import reconcile
from carrel_operator.status import READY
from carrel_operator.terminations import REASONS

logger = structlog.get_logger(__name__)

MAX_ROUNDS: Final = 6
"""Decisions in one pass: what an action brought is decided on at once. The longest way has four."""
SOONEST: Final = 0.05
"""Seconds; a deadline that is due within the same second is not polled faster."""


class Worker:
    """Handles the keys of the queue."""

    def __init__(self, context: ProcessContext) -> None:
        self.context = context
        self._namespaces = Namespaces(context.settings, context.cluster, context.own_key)
        self._actions = Actions(context.cluster, context.hosts, self._namespaces)
        self._memories: dict[Key, Memory] = {}

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
        if key.kind == "session":
            return await self._session(key)
        if key.kind == "namespace":
            await self._namespaces.renew(key.namespace)
            return Again(after=self.context.settings.resync_seconds)
        await self._wake_sessions(key.name)
        return Again()

    # sessions

    async def _session(self, key: Key) -> Again:
        document = await self.context.cluster.find(names.SESSION_KIND, key.name, key.namespace)
        if document is None:
            self._memories.pop(key, None)
            return Again()
        try:
            wanted = AgentSession.parse(document)
        except ValidationError as error:
            await self._say_invalid(document, error)
            return Again()
        memory = self._memory(key, wanted.metadata.uid)
        return await self._converge(wanted, await self._observe(wanted, memory), memory)

    async def _converge(self, wanted: AgentSession, observed: Observed, memory: Memory) -> Again:
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
        if not await self._write_status(wanted, before):
            return Again(retry=True)
        after = None if plan.after is None else max(plan.after, SOONEST)
        return Again(after=after, retry=plan.retry or (observed.failure is not None and after is None))

    async def _observe(self, wanted: AgentSession, memory: Memory) -> Observed:
        cluster, namespace = self.context.cluster, wanted.metadata.namespace
        pod, policy, (class_name, session_class) = await asyncio.gather(
            cluster.find("Pod", pod_name(wanted), namespace),
            cluster.find("NetworkPolicy", egress_policy_name(wanted), namespace),
            self._class_of(wanted),
        )
        return Observed(
            class_name=class_name,
            session_class=session_class,
            closed=self.context.settings.closed_networks,
            pod=PodView.of(pod) if pod is not None and owned(pod, wanted) else None,
            egress_spec=policy["spec"] if policy is not None else None,
            binding=memory.binding,
            activity=memory.activity,
        )

    async def _class_of(self, wanted: AgentSession) -> tuple[str, SessionClass | None]:
        name = wanted.spec.class_name or wanted.status.class_name
        if name:
            document = await self.context.cluster.find(names.CLASS_KIND, name)
            return name, _parsed_class(document)
        defaults = [
            found
            async for document in self.context.cluster.items(names.CLASS_KIND)
            if (found := _parsed_class(document)) is not None and found.is_default
        ]
        newest = max(defaults, key=_made, default=None)
        return (newest.metadata.name, newest) if newest is not None else ("", None)

    async def _write_status(self, wanted: AgentSession, before: AgentSessionStatus) -> bool:
        """Write what is new; return whether the session is still the one that was decided on."""
        status = wanted.status
        if status.dump() == before.dump():
            return True
        try:
            await self._apply_status(wanted.metadata.name, wanted.metadata.namespace,
                                     wanted.metadata.resource_version, status)  # fmt: skip
        except ApiNotFound:
            return True  # deleted meanwhile
        except ApiConflict:
            return False
        _measure(wanted, before)
        return True

    async def _apply_status(self, name: str, namespace: str, version: str, status: AgentSessionStatus) -> None:
        metrics.STATUS_WRITES.inc()
        await self.context.cluster.apply(
            {
                "apiVersion": names.API_VERSION,
                "kind": names.SESSION_KIND,
                "metadata": {"name": name, "namespace": namespace, "resourceVersion": version},
                "status": status.dump(),
            },
            subresource="status",
        )

    async def _say_invalid(self, document: Document, error: ValidationError) -> None:
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

    # classes

    async def _wake_sessions(self, class_name: str) -> None:
        """Look again at the sessions that a changed class may concern: its own, and those that wait for one."""
        for namespace in self.context.settings.session_namespaces:
            async for document in self.context.cluster.items(names.SESSION_KIND, namespace):
                status = document.get("status", {})
                conditions = status.get("conditions", [])
                ready = any(entry["type"] == READY and entry["status"] == "True" for entry in conditions)
                if not ready or status.get("className") == class_name:
                    self.context.queue.add(Key("session", namespace, document["metadata"]["name"]))

    def _memory(self, key: Key, uid: str) -> Memory:
        memory = self._memories.get(key)
        if memory is None or memory.uid != uid:
            memory = self._memories[key] = Memory(uid)
        return memory


def _made(session_class: SessionClass) -> tuple[datetime, str]:
    made = session_class.metadata.creation_timestamp
    return made or datetime.min.replace(tzinfo=UTC), session_class.metadata.name


def _parsed_class(document: Document | None) -> SessionClass | None:
    if document is None:
        return None
    try:
        return SessionClass.parse(document)
    except ValidationError:
        logger.warning("a SessionClass cannot be understood and counts as missing", name=document["metadata"]["name"])
        return None


def _measure(wanted: AgentSession, before: AgentSessionStatus) -> None:
    status, made = wanted.status, wanted.metadata.creation_timestamp
    if before.start_time is None and status.start_time is not None and made is not None:
        metrics.START_SECONDS.observe((status.start_time - made).total_seconds())
    if status.restarts > before.restarts and status.last_termination is not None:
        reason = status.last_termination.reason
        metrics.TERMINATIONS.labels(reason=reason if reason in REASONS else "Failed").inc()
