"""What an executor is: it starts and finds the kernel host of a session, and ends it.

It does not speak to kernels (`carrel_gateway.kernels` does) and knows nothing of cells.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class SessionRef:
    """A session, as far as an executor must know it."""

    tenant_id: UUID
    session_id: UUID
    owner_id: UUID
    session_class: str = ""
    """SessionClass of the cluster; empty means its default. The local executor has none."""


@dataclass(frozen=True, slots=True)
class HostEndpoint:
    """Where a kernel host listens, and what tokens for it must say."""

    session_uid: str
    """Session that tokens name: the AgentSession's UID, or the session's id for local hosts."""
    audience: str
    """Identity of the host: the pod's UID, or the local host's id."""
    url: str
    """Base address without a path; the host part means nothing when there is a socket."""
    unix_socket: Path | None = None
    folder: str | None = None
    """Folder below the host's workspace that bind makes the session's; none where all of it is."""
    boot_id: str | None = None
    """Boot that was seen last, where the executor knows it."""


@dataclass(frozen=True, slots=True)
class Saved:
    """Where the state of a host that is to end lies; both empty where there was none to save."""

    ref: str = ""
    """Id of the snapshot."""
    digest: str = ""
    """Of its manifest."""


@dataclass(frozen=True, slots=True)
class SuspensionRequest:
    """A host whose end somebody waits for, until its session's state is saved."""

    name: str
    """What the session is called where it runs."""
    session_id: UUID
    tenant_id: UUID | None
    """None of a session that was not made by a gateway."""
    owner_id: UUID | None
    pod_uid: str
    reason: str
    """`Idle`, or `Suspending` when somebody asked for it."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A session as it is now: with a request or without one."""

    name: str
    request: SuspensionRequest | None
    explained: bool = False
    """Whether it says why an earlier request could not be fulfilled."""


@dataclass(frozen=True, slots=True)
class Listed:
    """All sessions have been seen: these there are, and no others."""

    names: AbstractSet[str]


class SuspensionRequests(Protocol):
    """Requests of the platform to save sessions, so that their hosts can end."""

    def follow(self) -> AsyncGenerator[Sighting | Listed, None]:
        """Yield all sessions, `Listed`, and then every change for a time; the caller begins again when it ends.

        Raises
        ------
        ExecutorFailed
            The platform cannot be asked.
        """
        ...

    async def explain(self, name: str, text: str | None) -> None:
        """Say why a session could not be saved yet, for people to read; nothing any more with none."""
        ...


class Executor(Protocol):
    """Starts, finds and ends kernel hosts."""

    name: str
    binds: bool
    """Whether the gateway binds the host to its session; on a cluster the operator does."""

    async def acquire(self, session: SessionRef) -> HostEndpoint:
        """Return the session's host, started when there is none, as soon as it can be talked to.

        Raises
        ------
        ExecutorFailed
            No host could be had; the message says why and what to do.
        """
        ...

    async def find(self, session: SessionRef) -> HostEndpoint | None:
        """Return the session's host when it is there and alive; starts nothing."""
        ...

    async def made_elsewhere(self, session_id: UUID) -> str | None:
        """Return the name of a session that was made where kernels run (with kubectl), not by a gateway."""
        ...

    async def release(self, session: SessionRef) -> None:
        """End the session's host and remove its workspace; nothing happens when there is none."""
        ...

    async def suspend(self, session: SessionRef, audience: str, saved: Saved) -> None:
        """End the session's host of this identity, and no other: the session goes on with a new one some day.

        The workspace may be kept or not; whoever suspends has what was in it, and says where.
        """
        ...

    def suspension_requests(self) -> SuspensionRequests | None:
        """Return what asks for sessions to be saved; none where nobody but the gateway ends hosts."""
        ...

    async def sessions(self) -> Sequence[SessionRef]:
        """Return the sessions whose hosts this gateway alone looks after; empty where it shares them with others."""
        ...

    async def made_by_gateways(self) -> Sequence[SessionRef]:
        """Return the sessions that have something on a cluster which gateways made; empty where hosts are processes."""
        ...

    async def old_workspaces(self) -> Sequence[UUID]:
        """Return the sessions of which a folder lies on this machine that nobody has touched for a day."""
        ...

    async def ping(self) -> None:
        """Check that hosts can be started.

        Raises
        ------
        Unavailable
            They cannot.
        """
        ...

    async def aclose(self) -> None:
        """Free what is held; the local executor ends its hosts, whose spools stay in the workspaces."""
        ...
