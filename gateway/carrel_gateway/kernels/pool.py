"""The connections of this process to kernel hosts: one per session, made when first needed, asked for again when dead.

Does not run code and does not store anything; `carrel_gateway.execution` does both.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import UUID
from weakref import WeakValueDictionary

import aiohttp
import msgspec
import structlog

from carrel_gateway.errors import CarrelError
from carrel_gateway.executors.base import Executor, HostEndpoint, SessionRef
from carrel_gateway.kernels.connection import HostConnection, watch
from carrel_gateway.kernels.inflight import InFlight
from carrel_gateway.kernels.wakes import Wakes
from carrel_gateway.settings import Settings
from carrel_wire.host import BindRequest
from carrel_wire.tokens import Signer

READ_BUFFER_BYTES: Final = 64 * 1024
"""Per response: with it the host is slowed down, and its spool file grows instead of this process."""
TRUST_SECONDS: Final = 5.0
"""Looking at a kernel asks the executor again only after this time; a call to a dead host fails by itself."""
DRAIN_SECONDS: Final = 5.0
ACKNOWLEDGE_SECONDS: Final = 1.0
KEEPALIVE_SECONDS: Final = 300.0
"""A local host that nobody calls for an hour ends itself; this is well below."""

_log = structlog.get_logger(__name__)


class HeldConnection(HostConnection):
    """A connection of the pool, with what the process has done on it so far."""

    def __init__(
        self, session: SessionRef, endpoint: HostEndpoint, signer: Signer, http: aiohttp.ClientSession
    ) -> None:
        super().__init__(endpoint, signer, http)
        self.session = session
        self.fresh = False
        """This process bound the host, so its kernel has no state yet."""
        self.incarnation: str | None = None
        """The kernel process that ran last, as far as this process knows."""
        self.verified_at = 0.0
        """Loop time at which the executor was last asked whether the host is there."""
        self.prepared = False
        """Files are placed and what was unacknowledged has been taken care of."""


class KernelPool:
    """Connections by session, and the recordings that use them."""

    def __init__(self, settings: Settings, executor: Executor, signer: Signer) -> None:
        self._settings = settings
        self._executor = executor
        self._signer = signer
        self._held: dict[UUID, HeldConnection] = {}
        self._own_http: dict[UUID, aiohttp.ClientSession] = {}  # one per Unix socket: a connector has one path
        self._shared_http: aiohttp.ClientSession | None = None
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._execution_locks: WeakValueDictionary[tuple[UUID, UUID], asyncio.Lock] = WeakValueDictionary()
        self._keepalive: asyncio.Task[None] | None = None
        self.in_flight = InFlight()
        self.wakes = Wakes()

    def lock(self, session_id: UUID) -> asyncio.Lock:
        """Return the lock under which a session's host is made ready; not reentrant."""
        lock = self._locks.get(session_id)
        if lock is None:
            lock = self._locks[session_id] = asyncio.Lock()
        return lock

    def execution_lock(self, tenant_id: UUID, execution_id: UUID) -> asyncio.Lock:
        """Return the lock under which it is found out whether an execution is known; ids are the callers' choice."""
        key = (tenant_id, execution_id)
        lock = self._execution_locks.get(key)
        if lock is None:
            lock = self._execution_locks[key] = asyncio.Lock()
        return lock

    def held(self, session_id: UUID) -> HeldConnection | None:
        """Return the connection that is open, without looking whether its host is alive."""
        return self._held.get(session_id)

    async def connect(self, session: SessionRef) -> HeldConnection:
        """Return a connection to the session's host, started and bound when there is none.

        Raises
        ------
        ExecutorFailed
            No host could be had.
        """
        held = self._held.get(session.session_id)
        return held or await self._open(session, await self._executor.acquire(session))

    async def find(self, session: SessionRef) -> HeldConnection | None:
        """Return a connection to the session's host when one is alive; starts nothing."""
        now = asyncio.get_running_loop().time()
        held = self._held.get(session.session_id)
        if held and now - held.verified_at < TRUST_SECONDS:
            return held
        endpoint = await self._executor.find(session)
        held = self._held.get(session.session_id)
        if endpoint is None or (held and held.endpoint.audience != endpoint.audience):
            await self.forget(session.session_id)
            held = None
        if held:
            held.verified_at = now
            return held
        return await self._open(session, endpoint) if endpoint else None

    def doubt(self, session_id: UUID) -> None:
        """Have the next `find` ask the executor whether the host is there: a call to it has failed."""
        held = self._held.get(session_id)
        if held:
            held.verified_at = -TRUST_SECONDS

    async def forget(self, session_id: UUID) -> None:
        """Drop the connection: the next `connect` asks the executor again."""
        held = self._held.pop(session_id, None)
        if held:
            await held.aclose()
        http = self._own_http.pop(session_id, None)
        if http:
            await http.close()

    async def release(self, session: SessionRef) -> None:
        """End the session's host and remove its workspace."""
        await self.forget(session.session_id)
        await self._executor.release(session)

    async def aclose(self) -> None:
        """Let recordings end, for a bounded time, and close all connections; hosts are the executor's business."""
        if self._keepalive:
            self._keepalive.cancel()
            with suppress(asyncio.CancelledError):
                await self._keepalive
        await self.wakes.aclose()
        await self.in_flight.aclose(drain_seconds=DRAIN_SECONDS)
        with suppress(TimeoutError):  # what a host is not told is told by whoever has the session next
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                await asyncio.gather(*(held.acknowledge() for held in self._held.values()))
        for session_id in self._held.keys() | self._own_http.keys():  # one that was never bound has no connection
            await self.forget(session_id)
        if self._shared_http:
            await self._shared_http.close()

    async def _open(self, session: SessionRef, endpoint: HostEndpoint) -> HeldConnection:
        connection = HeldConnection(session, endpoint, self._signer, self._http(session.session_id, endpoint))
        if self._executor.binds:
            reply = await connection.bind(self._binding(connection))
            connection.fresh = not reply.already
            if self._keepalive is None:
                self._keepalive = asyncio.create_task(self._keep_alive())
        connection.verified_at = asyncio.get_running_loop().time()
        self._held[session.session_id] = connection
        return connection

    def _binding(self, connection: HeldConnection) -> BindRequest:
        session, endpoint = connection.session, connection.endpoint
        return BindRequest(
            session_uid=endpoint.session_uid,
            pod_uid=endpoint.audience,
            folder=endpoint.folder,
            memory_limit_bytes=self._settings.kernel_memory_mb * 1024**2,
            owner=f"{session.tenant_id}/{session.owner_id}",
        )

    async def claim(self, connection: HeldConnection, *, boot_id: str, snapshots_of: Sequence[str]) -> None:
        """Tell a host that is bound already whose session it has, and whose snapshots may be restored there."""
        said = msgspec.structs.replace(self._binding(connection), boot_id=boot_id, snapshots_of=list(snapshots_of))
        await connection.bind(said)

    def _http(self, session_id: UUID, endpoint: HostEndpoint) -> aiohttp.ClientSession:
        if endpoint.unix_socket is None:
            if self._shared_http is None:
                self._shared_http = _client(
                    aiohttp.TCPConnector(limit=0, limit_per_host=0, socket_factory=_watched_socket)
                )
            return self._shared_http
        own = self._own_http.get(session_id)
        if own is None:
            own = self._own_http[session_id] = _client(aiohttp.UnixConnector(str(endpoint.unix_socket), limit=0))
        return own

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(KEEPALIVE_SECONDS)
            for session in await self._executor.sessions():
                try:
                    connection = await self.find(session)
                    if connection:
                        await connection.state()
                except CarrelError as error:
                    _log.info("kernel_keepalive_failed", session=str(session.session_id), code=error.code)


def _watched_socket(address: tuple[Any, ...]) -> socket.socket:
    made = socket.socket(*address[:3])
    watch(made)
    return made


def _client(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        read_bufsize=READ_BUFFER_BYTES,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
