"""Carries a plan's actions out, one by one, and returns what is observed afterwards. It decides nothing.

Every action may be carried out twice: what is made is made once, what is claimed or deleted is so by UID and version,
bind is idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from carrel_api import names
from carrel_api.session import AgentSession
from carrel_operator import metrics
from carrel_operator.builders.pod import claim_patch
from carrel_operator.cluster import Cluster, Document
from carrel_operator.errors import (
    ApiConflict,
    ApiNotFound,
    ApiRefused,
    ApiUnavailable,
    HostRefused,
    HostUnreachable,
)
from carrel_operator.hosts import Hosts
from carrel_operator.isolation import foreign_policies
from carrel_operator.namespaces import Namespaces
from carrel_operator.observed import Activity, Binding, Observed, PodView, Said, controller
from carrel_operator.plan import (
    Action,
    ApplyEgress,
    AskState,
    Bind,
    ClaimPod,
    CreateClaim,
    CreatePod,
    DeleteEgress,
    DeletePod,
    DeleteSession,
    Look,
    PrepareNamespace,
)
from carrel_operator.readiness import Readiness
from carrel_operator.refusals import explain
from carrel_operator.sighting import BEGUN, Lookout, Target
from carrel_operator.store import Store


@dataclass
class Memory:
    """What was learnt of a session by asking its kernel host; after a restart it is asked for again."""

    uid: str
    binding: Binding | None = None
    activity: Activity | None = None
    unbound: bool = False
    doubted_pod: str | None = None
    """Name of a pod of which it is not known whether it was claimed."""


@dataclass(frozen=True)
class Actions:
    """What actions are carried out with."""

    cluster: Cluster
    hosts: Hosts
    namespaces: Namespaces
    store: Store
    readiness: Readiness
    lookout: Lookout
    on_claim: Callable[[PodView], None]
    """Told of a pod of a pool that is a session's from now on."""
    on_sight: Callable[[AgentSession], None]
    """Told of a session whose pod has been looked at beside everything else."""
    _looks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def carry_out(
        self, actions: tuple[Action, ...], wanted: AgentSession, observed: Observed, memory: Memory
    ) -> Observed:
        """Carry out in order up to the first that fails, whose failure is then part of what is observed."""
        for action in actions:
            try:
                if isinstance(action, Look):
                    observed = await self._look(action, wanted, observed, memory)
                elif isinstance(action, Bind | AskState):
                    observed = await self._call(action, wanted, observed, memory)
                elif isinstance(action, ClaimPod):
                    observed = await self._claim(action, wanted, observed, memory)
                elif isinstance(action, CreatePod | DeletePod):
                    observed = await self._change_pod(action, wanted, observed)
                else:
                    observed = await self._change(action, wanted, observed)
            except ApiRefused as error:
                return replace(observed, failure=explain(str(error)))
            except HostUnreachable as error:
                return replace(observed, failure=Said("NotListening", str(error)))
            except HostRefused as error:
                reason = "BoundToAnother" if error.code == "already_bound" else "BindRefused"
                return replace(observed, failure=Said(reason, f"the kernel host refused: {error}"))
        return observed

    # ------------------------------------------------------------------ objects

    async def _change(self, action: Action, wanted: AgentSession, observed: Observed) -> Observed:
        namespace = wanted.metadata.namespace
        match action:
            case PrepareNamespace():
                await self.namespaces.ensure(namespace)
            case CreateClaim(manifest):
                await self.create_once(manifest)
            case ApplyEgress(manifest):
                self.store.wrote("NetworkPolicy", await self.cluster.apply(manifest))
                return replace(observed, egress_spec=manifest["spec"])
            case DeleteEgress(name):
                await self.cluster.delete("NetworkPolicy", name, namespace)
                return replace(observed, egress_spec=None)
            case DeleteSession():
                metadata = wanted.metadata
                await self.cluster.delete(names.SESSION_KIND, metadata.name, namespace, uid=metadata.uid)
            case _:
                raise AssertionError(action)
        return observed

    async def create_once(self, manifest: Document) -> Document:
        """Make the object, unless it is there; return it as it is.

        Raises
        ------
        ApiConflict
            It was there, and then it was not: the next pass sees what is.
        """
        kind, metadata = manifest["kind"], manifest["metadata"]
        try:
            document = await self.cluster.create(manifest)
        except ApiConflict:
            found = await self.cluster.find(kind, metadata["name"], metadata["namespace"])
            if found is None:
                raise
            if kind == "Pod":
                self.store.read(kind, found)
            return found
        if kind == "Pod":
            self.store.wrote(kind, document)
            metrics.PODS_CREATED.inc()
        return document

    # ------------------------------------------------------------------ pods

    async def _change_pod(self, action: CreatePod | DeletePod, wanted: AgentSession, observed: Observed) -> Observed:
        if isinstance(action, CreatePod):
            document = await self.create_once(action.manifest)
            name = document["metadata"]["name"]
            if controller(document["metadata"]).get("uid") != wanted.metadata.uid:
                raise ApiRefused(f"the name of pod {name} must be free for this session; delete the pod that has it")
            metrics.STARTS.labels(kind="cold").inc()
            return replace(observed, pod=PodView.of(document))
        pod = await self.delete_pod(action, wanted.metadata.namespace)
        if observed.pod is not None and observed.pod.uid == action.uid:
            return replace(observed, pod=pod)
        return replace(observed, further_pods=tuple(p for p in observed.further_pods if p.uid != action.uid))

    async def delete_pod(self, action: DeletePod, namespace: str, *, version: str | None = None) -> PodView | None:
        """Delete the very pod, if need be only in this version, and return it while its grace period lasts."""
        grace = 0 if action.force else None
        await self.cluster.delete("Pod", action.name, namespace, uid=action.uid, version=version, grace_seconds=grace)
        document = await self.cluster.find("Pod", action.name, namespace)
        if document is None or document["metadata"]["uid"] != action.uid:
            self.store.gone("Pod", (namespace, action.name), action.uid)
            return None
        self.store.read("Pod", document)
        return PodView.of(document)

    async def _claim(self, action: ClaimPod, wanted: AgentSession, observed: Observed, memory: Memory) -> Observed:
        """Make the first of the pods the session's that is still the pool's and as it was seen."""
        namespace = wanted.metadata.namespace
        for pod in action.candidates:
            if not self.readiness.reserve(pod):
                continue
            try:
                document = await self._patch_to_claim(pod, wanted, memory)
            finally:
                self.readiness.release(pod)
            if document is None:
                continue
            self.store.wrote("Pod", document)
            self.on_claim(pod)
            metrics.STARTS.labels(kind="warm").inc()
            pool, claimed = self.store.pool_of(pod), PodView.of(document)
            return replace(
                observed,
                pod=claimed,
                pool=pool[1] if pool is not None else None,
                sight=self.readiness.sight_of(claimed),  # seen while it was the pool's: it is not looked at again
                foreign=foreign_policies(self.store.foreign_in(namespace), claimed.labels),
                candidates=(),
            )
        return replace(observed, candidates=(), cold_start_reason="started cold: other sessions were faster")

    async def _patch_to_claim(self, seen: PodView, wanted: AgentSession, memory: Memory) -> Document | None:
        """Return the pod as the session's; none where it is no longer what was seen.

        Once more where only the kubelet was faster: it writes a pod's status whenever it likes.
        """
        namespace, pod = wanted.metadata.namespace, seen
        for _ in range(2):
            try:
                return await self.cluster.patch("Pod", pod.name, namespace, claim_patch(wanted, pod, now()))
            except (ApiConflict, ApiRefused, ApiNotFound):
                metrics.CLAIM_CONFLICTS.inc()
            except ApiUnavailable:  # it may be the session's now: the next pass asks before it takes another one
                memory.doubted_pod = pod.name
                raise
            again = await self._look_again(pod, namespace)
            if again is None or not again.live or _host(again) != _host(seen):
                return None
            pod = again
        return None

    async def _look_again(self, pod: PodView, namespace: str) -> PodView | None:
        """Return a pod that is not what was thought, as it is; none where it is gone."""
        document = await self.cluster.find("Pod", pod.name, namespace)
        if document is None:
            self.store.gone("Pod", (namespace, pod.name), pod.uid)
            return None
        self.store.read("Pod", document)
        return PodView.of(document)

    # ------------------------------------------------------------------ kernel hosts

    async def _look(self, action: Look, wanted: AgentSession, observed: Observed, memory: Memory) -> Observed:
        """See whether the pod is isolated, once its kernel host answers."""
        state = await self.hosts.state(action.endpoint, action.pod.uid)
        if state.session_uid == wanted.metadata.uid:  # bound by an earlier process, which could not say so any more
            memory.binding = Binding(pod_uid=action.pod.uid, container_id=action.pod.container_id)
        look = self._note_sight(action.pod, unbound=state.session_uid is None)
        if action.waits:
            await look
        else:
            await self._begin(look, wanted)
        readiness, pod = self.readiness, action.pod
        return replace(
            observed, sight=readiness.sight_of(pod), looking=readiness.is_looked_at(pod), binding=memory.binding
        )

    async def _note_sight(self, pod: PodView, *, unbound: bool) -> None:
        with self.readiness.looking(pod):
            sight = await self.lookout.look(Target(pod.ip or "", pod.uid), unbound=unbound)
        self.readiness.note(pod, sight)

    async def _begin(self, look: Coroutine[None, None, None], wanted: AgentSession) -> None:
        """Let a look go on by itself, and return when all its tries are under way: a bound host makes none."""
        task = asyncio.create_task(look)
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)
        await asyncio.wait([task], timeout=BEGUN)
        task.add_done_callback(lambda _: self.on_sight(wanted))

    async def _call(
        self, action: Bind | AskState, wanted: AgentSession, observed: Observed, memory: Memory
    ) -> Observed:
        if isinstance(action, Bind):
            await self.hosts.bind(action.endpoint, action.request)
            memory.binding = Binding(pod_uid=action.request.pod_uid, container_id=action.container_id)
            memory.unbound = False
            return replace(observed, binding=memory.binding, unbound=False)
        state = await self.hosts.state(action.endpoint, action.pod_uid)
        if state.session_uid != wanted.metadata.uid:
            memory.binding, memory.unbound = None, True
            return replace(observed, binding=None, unbound=True)
        asked = now()
        active = asked if state.busy or state.connections > 0 else _moment(state.last_activity, asked)
        memory.activity = Activity(asked_at=asked, active_at=active)
        return replace(observed, activity=memory.activity)


def now() -> datetime:
    """Return the present time in whole seconds, as Kubernetes stores it."""
    return datetime.now(UTC).replace(microsecond=0)


def _host(pod: PodView) -> tuple[str, str, str | None]:
    """Return what tells a pool's kernel host from all others."""
    return pod.uid, pod.owner_uid, pod.container_id


def _moment(seconds: float, latest: datetime) -> datetime:
    """Return the time that a kernel host told, `latest` where it is none or later than that."""
    try:
        return min(datetime.fromtimestamp(seconds, UTC).replace(microsecond=0), latest)
    except (ValueError, OverflowError, OSError):
        return latest
