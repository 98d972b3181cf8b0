"""Kernel hosts as pods: an AgentSession is made, the operator does the rest, and this waits for Ready.

The status is not believed alone: the pod that it names must be there with the same UID, be labelled as a kernel pod of
this very session, and have the address that calls go to, which is one of a pod and not of a node or this machine. The
port is fixed. The operator binds the host; the gateway only talks to it.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog

from carrel_api.common import Condition
from carrel_api.names import (
    COMPONENT_LABEL,
    KERNEL_COMPONENT,
    KERNEL_PORT,
    MANAGED_BY_LABEL,
    SESSION_LABEL,
    SNAPSHOT_FAILURE_ANNOTATION,
)
from carrel_api.session import AgentSession
from carrel_gateway.errors import ExecutorFailed
from carrel_gateway.executors.base import HostEndpoint, Saved, SessionRef
from carrel_gateway.executors.cluster import Cluster, ConflictError, Object
from carrel_gateway.executors.requests import ClusterRequests, is_requested, ref_of
from carrel_gateway.settings import Settings

LABELS: Final = {MANAGED_BY_LABEL: "carrel-gateway"}

_ADVICE: Final = {
    "ClassNotFound": "ask an administrator which SessionClasses there are",
    "ImageNotInClass": "ask for an image that the SessionClass offers",
    "DatasetNotInClass": "ask for data sets that the SessionClass offers",
    "DatasetNotFound": "leave the data set out, or have an administrator make its volume",
    "EgressAboveClass": "ask for addresses that the SessionClass allows",
    "ResourcesAboveClass": "ask for less, or for a SessionClass with a higher maximum",
    "EnvironmentRefused": "choose other names for the variables",
    "InvalidSpec": "correct the AgentSession, or have the operator upgraded",
    "QuotaExceeded": "end other sessions, or ask an administrator for more",
    "LimitRangeExceeded": "ask for what lies within the namespace's LimitRange, or have it changed",
    "RuntimeClassNotFound": "an administrator must correct the SessionClass",
    "PriorityClassNotFound": "an administrator must correct the SessionClass",
    "UserNotAssigned": "an administrator must correct the SessionClass",
    "PodRefused": "ask an administrator",
    "ImagePullFailed": "an administrator must correct the image of the SessionClass",
    "NotIsolated": "an administrator must see to it that the cluster enforces network policies, as this class requires",
    "Expired": "the session's life is over; make a new one",
    "Suspended": "somebody suspends it just now; try again",
}
"""Reasons of `Ready=False` that waiting does not help against, with what to do."""

_METADATA: Final = frozenset({ipaddress.ip_address("fd00:ec2::254")})
"""Metadata services that lie outside link-local addresses. Source: AWS, "Instance metadata and user data"."""

_log = structlog.get_logger(__name__)


class KubernetesExecutor:
    """AgentSessions in the session namespace."""

    name = "kubernetes"
    binds = False

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        self._settings = settings
        self._cluster = cluster
        self._names: dict[UUID, str] = {}  # of sessions that were made with kubectl: their id is the object's UID

    @classmethod
    async def open(cls, settings: Settings) -> KubernetesExecutor:
        """Read the cluster's address and credentials."""
        return cls(settings, await Cluster.open(settings.session_namespace))

    async def acquire(self, session: SessionRef) -> HostEndpoint:
        """Return the session's pod as soon as the operator says that it is bound."""
        seen: Object | None = None
        try:
            async with asyncio.timeout(self._settings.kernel_start_seconds):
                while True:
                    name = await self._ensure(session)
                    async with aclosing(self._cluster.watch_session(name, seconds=30)) as changes:
                        async for found in changes:
                            if found is None:
                                raise ExecutorFailed(
                                    "No kernel: the session's AgentSession was deleted while it started; try again.",
                                    reason="Deleted",
                                )
                            _check_owner(found, session)
                            seen = found
                            endpoint = await self._endpoint(found)
                            if endpoint:
                                return endpoint
                            _raise_if_hopeless(found)
        except TimeoutError as error:
            raise _late(seen, self._settings.kernel_start_seconds) from error

    async def find(self, session: SessionRef) -> HostEndpoint | None:
        """Return the session's pod when it is Ready, or is to be saved, and what its status says is true."""
        found = await self._object(session)
        return await self._endpoint(found, ending=True) if found else None

    async def made_elsewhere(self, session_id: UUID) -> str | None:
        """Return the name of the AgentSession with this UID, unless a gateway made it or it is being deleted.

        Notes
        -----
        Only the gateway's account can write an owner or a tenant (ValidatingAdmissionPolicy of the chart), so their
        absence shows who did not make it. The API server's UIDs are random ones (version 4), the gateway's own ids are
        not: those are not looked for.
        """
        found = await self._cluster.find_session(str(session_id)) if session_id.version == 4 else None
        if found is None or found["metadata"].get("deletionTimestamp"):
            return None
        spec = found.get("spec", {})
        return None if spec.get("owner") or spec.get("tenant") else str(found["metadata"]["name"])

    async def release(self, session: SessionRef) -> None:
        """Delete the AgentSession; the cluster removes its pod and volume."""
        found = await self._object(session)
        if found:
            await self._cluster.delete_session(found["metadata"]["name"], found["metadata"]["uid"])
        self._names.pop(session.session_id, None)

    async def suspend(self, session: SessionRef, audience: str, saved: Saved) -> None:
        """Have the operator end the pod, if it is still this one; the AgentSession stays."""
        spec = {
            "operatingMode": "Suspended",
            "snapshot": {"podUID": audience, "ref": saved.ref, "digest": saved.digest},
        }
        while found := await self._object(session):
            known = AgentSession.model_validate(found)
            if known.status.pod_uid != audience or (known.spec.operating_mode == "Suspended" and _is_saved(known)):
                return
            metadata, settled = found["metadata"], {SNAPSHOT_FAILURE_ANNOTATION: None}
            try:
                await self._cluster.patch_session(metadata["name"], metadata["resourceVersion"], spec, settled)
            except ConflictError:  # it has changed meanwhile: is the pod still the same?
                continue
            return

    def suspension_requests(self) -> ClusterRequests:
        """Return the operator's requests to save sessions whose pods are to end."""
        return ClusterRequests(self._cluster, self._names)

    async def sessions(self) -> Sequence[SessionRef]:
        """Return none: the pods are shared by all gateways."""
        return ()

    async def made_by_gateways(self) -> Sequence[SessionRef]:
        """Return the sessions whose AgentSession a gateway made and nobody has deleted."""
        refs: list[SessionRef] = []
        async with aclosing(self._cluster.list_sessions(LABELS)) as found:
            async for item in found:
                ref = ref_of(item)
                if ref:
                    refs.append(ref)
        return refs

    async def old_workspaces(self) -> Sequence[UUID]:
        """Return none: a workspace goes with its AgentSession."""
        return ()

    async def ping(self) -> None:
        """Ask the API server."""
        await self._cluster.count()

    async def aclose(self) -> None:
        """Close the connections; pods stay, for the next gateway."""
        await self._cluster.aclose()

    # ------------------------------------------------------------------ objects

    async def _object(self, session: SessionRef) -> Object | None:
        """Return the session's AgentSession; one that only has its name is another's.

        Raises
        ------
        ExecutorFailed
            Somebody else's object has the session's name.
        """
        known = self._names.get(session.session_id)
        if known:
            found = await self._cluster.get_session(known)
            if found and found["metadata"]["uid"] == str(session.session_id):
                return found
            del self._names[session.session_id]  # deleted, and perhaps another one has its name now
        found = await self._cluster.get_session(str(session.session_id))
        if found is None and session.session_id.version == 4:  # as the API server makes them
            found = await self._cluster.find_session(str(session.session_id))
            if found:
                self._names[session.session_id] = found["metadata"]["name"]
        if found:
            _check_owner(found, session)
        return found

    async def _ensure(self, session: SessionRef) -> str:
        """Return the name of the session's AgentSession, which is created when there is none."""
        found = await self._object(session)
        while found and found["metadata"].get("deletionTimestamp"):
            await asyncio.sleep(0.2)  # bounded by the caller's deadline
            found = await self._object(session)
        if found:
            await self._wake(session, found)
            return str(found["metadata"]["name"])
        # When it ends by its class's limits, the object goes; the next use of the session makes another one.
        spec: dict[str, Any] = {
            "shutdownPolicy": "Delete",
            "owner": str(session.owner_id),
            "tenant": str(session.tenant_id),
        }
        if session.session_class:
            spec["className"] = session.session_class
        name = str(session.session_id)
        try:
            await self._cluster.create_session(name, spec, LABELS)
        except ConflictError:  # another gateway was first; whose it is, is looked at with every change of it
            return name
        _log.info("agent_session_created", session=name)
        return name

    async def _wake(self, session: SessionRef, found: Object) -> None:
        """Have a suspended session run again, once its old pod is gone: that one's end must not be taken for a loss.

        One whose state nobody has saved yet goes on in its pod: the operator does not end it before.
        """
        while (known := AgentSession.model_validate(found)).spec.operating_mode == "Suspended":
            gone = known.status.condition("Suspended")
            if (gone and gone.status == "True") or (is_requested(known) and not _is_saved(known)):
                with suppress(ConflictError):  # looked at again
                    await self._set_mode(found, "Running")
                    return
            await asyncio.sleep(0.2)  # bounded by the caller's deadline
            again = await self._object(session)
            if again is None:
                return
            found = again

    async def _set_mode(self, found: Object, mode: str) -> None:
        metadata = found["metadata"]
        await self._cluster.patch_session(metadata["name"], metadata["resourceVersion"], {"operatingMode": mode})

    async def _endpoint(self, found: Object, *, ending: bool = False) -> HostEndpoint | None:
        """Return where the session's pod listens, when it is Ready and the pod itself confirms it.

        Parameters
        ----------
        ending
            One that is only kept until its state is saved will do.
        """
        session = AgentSession.model_validate(found)
        ready = _ready(session)
        usable = (ready is not None and ready.status == "True") or (
            ending and is_requested(session) and not _is_saved(session)
        )
        if session.metadata.deletion_timestamp or not usable:
            return None
        name, pod_uid = session.status.pod_name, session.status.pod_uid
        pod = _Pod.of(await self._cluster.get_pod(name)) if name and pod_uid else None
        if pod is None or not pod_uid or not pod.confirms(pod_uid=pod_uid, session_uid=session.metadata.uid):
            _log.warning("pod_does_not_confirm_status", session=session.metadata.name, pod=name)
            return None
        address = address_of_pod(pod.status.podIP)
        if address is None:
            _log.warning("pod_address_refused", session=session.metadata.name, pod=name)
            return None
        host = f"[{address}]" if address.version == 6 else str(address)
        return HostEndpoint(session_uid=session.metadata.uid, audience=pod_uid, url=f"http://{host}:{KERNEL_PORT}")


def _check_owner(found: Object, session: SessionRef) -> None:
    """Refuse an object that has the session's name and is not its own.

    Whoever may create AgentSessions may choose a name, and would have the session's code run where they like. What
    they cannot choose is the UID, and owner and tenant, which only the gateway's account may write.
    """
    if found["metadata"]["uid"] == str(session.session_id):
        return
    spec = found.get("spec", {})
    if spec.get("owner") == str(session.owner_id) and spec.get("tenant") == str(session.tenant_id):
        return
    raise ExecutorFailed(
        f"The AgentSession {found['metadata']['name']} was not made by this gateway and has the session's name; "
        "an administrator must delete it.",
        reason="NameTaken",
    )


def _is_saved(session: AgentSession) -> bool:
    """Whether the state of the pod that the status names lies somewhere else, so that the pod may end."""
    snapshot = session.spec.snapshot
    return snapshot is not None and snapshot.pod_uid == session.status.pod_uid


class _PodMetadata(msgspec.Struct, frozen=True):
    uid: str
    labels: dict[str, str] = {}
    deletionTimestamp: str | None = None  # noqa: N815  named as in the API


class _PodStatus(msgspec.Struct, frozen=True):
    podIP: str = ""  # noqa: N815  named as in the API


class _PodSpec(msgspec.Struct, frozen=True):
    hostNetwork: bool = False  # noqa: N815  named as in the API


class _Pod(msgspec.Struct, frozen=True):
    """The little of a pod that is looked at."""

    metadata: _PodMetadata
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()

    @classmethod
    def of(cls, found: Object | None) -> _Pod | None:
        return msgspec.convert(found, cls) if found else None

    def confirms(self, *, pod_uid: str, session_uid: str) -> bool:
        """Whether this is the pod of the status, alive, in its own network, labelled as this session's kernel pod."""
        metadata = self.metadata
        return (
            metadata.uid == pod_uid
            and metadata.deletionTimestamp is None
            and metadata.labels.get(COMPONENT_LABEL) == KERNEL_COMPONENT
            and metadata.labels.get(SESSION_LABEL) == hash_of(session_uid)
            and not self.spec.hostNetwork  # its address would be its node's
        )


def address_of_pod(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that calls go to; none where no pod can have it.

    This machine's own addresses, those of one link (where clouds have their metadata service), of groups and of
    nobody are refused, in whatever notation: a kernel pod has none of them.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            return None
        address = address.ipv4_mapped or address
    refused = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    return None if refused or address in _METADATA else address


def hash_of(uid: str) -> str:
    """Return the value of `carrel.dev/session` for an AgentSession's UID: the form is a contract with the operator."""
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


def _ready(session: AgentSession) -> Condition | None:
    """Return the condition `Ready`, if it speaks of the spec as it is now."""
    ready = session.status.condition("Ready")
    return ready if ready and ready.observed_generation >= session.metadata.generation else None


def _raise_if_hopeless(found: Object) -> None:
    ready = _ready(AgentSession.model_validate(found))
    if ready and ready.status == "False" and ready.reason in _ADVICE:
        raise ExecutorFailed(
            f"No kernel: {ready.reason}: {ready.message} ({_ADVICE[ready.reason]}).", reason=ready.reason
        )


def _late(seen: Object | None, seconds: float) -> ExecutorFailed:
    ready = _ready(AgentSession.model_validate(seen)) if seen else None
    reason = ready.reason if ready else "Starting"
    said = ready.message if ready else "the operator has not said why; is it running?"
    return ExecutorFailed(f"No kernel within {seconds:g} s: {reason}: {said}", reason=reason)
