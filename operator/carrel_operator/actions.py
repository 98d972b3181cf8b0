"""Carries a plan's actions out, one by one, and returns what is observed afterwards. It decides nothing.

Every action may be carried out twice: what is made is made once, what is deleted is deleted by UID, bind is idempotent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from carrel_api import names
from carrel_api.session import AgentSession
from carrel_operator import metrics
from carrel_operator.cluster import Cluster, Document
from carrel_operator.errors import ApiConflict, ApiRefused, HostRefused, HostUnreachable
from carrel_operator.hosts import Hosts
from carrel_operator.namespaces import Namespaces
from carrel_operator.observed import Activity, Binding, Observed, PodView, Said
from carrel_operator.plan import (
    Action,
    ApplyEgress,
    AskState,
    Bind,
    CreateClaim,
    CreatePod,
    DeleteEgress,
    DeletePod,
    DeleteSession,
    PrepareNamespace,
)
from carrel_operator.refusals import explain


@dataclass
class Memory:
    """What was learnt of a session by asking its kernel host; after a restart it is asked for again."""

    uid: str
    binding: Binding | None = None
    activity: Activity | None = None


@dataclass(frozen=True)
class Actions:
    """What actions are carried out with."""

    cluster: Cluster
    hosts: Hosts
    namespaces: Namespaces

    async def carry_out(
        self, actions: tuple[Action, ...], wanted: AgentSession, observed: Observed, memory: Memory
    ) -> Observed:
        """Carry out in order up to the first that fails, whose failure is then part of what is observed."""
        for action in actions:
            try:
                if isinstance(action, Bind | AskState):
                    observed = await self._call(action, observed, memory)
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

    async def _change(self, action: Action, wanted: AgentSession, observed: Observed) -> Observed:
        namespace = wanted.metadata.namespace
        match action:
            case PrepareNamespace():
                await self.namespaces.ensure(namespace)
            case CreateClaim(manifest):
                await self._create_once(manifest)
            case ApplyEgress(manifest):
                await self.cluster.apply(manifest)
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

    async def _change_pod(self, action: CreatePod | DeletePod, wanted: AgentSession, observed: Observed) -> Observed:
        if isinstance(action, CreatePod):
            document = await self._create_once(action.manifest)
            name = document["metadata"]["name"]
            if not owned(document, wanted):
                raise ApiRefused(f"the name of pod {name} must be free for this session; delete the pod that has it")
            return replace(observed, pod=PodView.of(document))
        grace = 0 if action.force else None
        namespace = wanted.metadata.namespace
        await self.cluster.delete("Pod", action.name, namespace, uid=action.uid, grace_seconds=grace)
        document = await self.cluster.find("Pod", action.name, namespace)
        return replace(observed, pod=PodView.of(document) if document is not None else None)

    async def _call(self, action: Bind | AskState, observed: Observed, memory: Memory) -> Observed:
        if isinstance(action, Bind):
            await self.hosts.bind(action.endpoint, action.request)
            memory.binding = Binding(pod_uid=action.request.pod_uid, container_id=action.container_id)
            return replace(observed, binding=memory.binding)
        state = await self.hosts.state(action.endpoint, action.pod_uid)
        asked = now()
        active = asked if state.busy or state.connections > 0 else _moment(state.last_activity, asked)
        memory.activity = Activity(asked_at=asked, active_at=active)
        return replace(observed, activity=memory.activity)

    async def _create_once(self, manifest: Document) -> Document:
        kind, metadata = manifest["kind"], manifest["metadata"]
        try:
            document = await self.cluster.create(manifest)
        except ApiConflict:
            found = await self.cluster.find(kind, metadata["name"], metadata["namespace"])
            if found is None:  # it went away in between: the next pass sees what is there
                raise
            return found
        if kind == "Pod":
            metrics.PODS_CREATED.inc()
        return document


def now() -> datetime:
    """Return the present time in whole seconds, as Kubernetes stores it."""
    return datetime.now(UTC).replace(microsecond=0)


def owned(document: Document, wanted: AgentSession) -> bool:
    """Return whether the session controls the object: a name or a label alone proves nothing."""
    owners = document["metadata"].get("ownerReferences", [])
    return any(owner.get("uid") == wanted.metadata.uid and owner.get("controller") for owner in owners)


def _moment(seconds: float, latest: datetime) -> datetime:
    """Return the time that a kernel host told, `latest` where it is none or later than that."""
    try:
        return min(datetime.fromtimestamp(seconds, UTC).replace(microsecond=0), latest)
    except (ValueError, OverflowError, OSError):
        return latest
