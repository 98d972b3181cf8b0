"""One kernel host, as the gateway speaks to it: HTTP over a Unix socket or TCP, events as NDJSON.

Nothing is repeated by itself and nothing is stored here: what to do after a lost connection is decided by
`carrel_gateway.execution`, which alone knows what has been committed.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing, asynccontextmanager
from typing import Final, TypeVar
from urllib.parse import quote
from uuid import UUID

import aiohttp
import msgspec

from carrel_gateway.errors import KernelLost
from carrel_gateway.executors.base import HostEndpoint
from carrel_gateway.kernels.acks import Acks
from carrel_gateway.kernels.ndjson import lines
from carrel_gateway.kernels.refusals import converted, refusal
from carrel_gateway.kernels.streams import HostStreams
from carrel_wire.events import ExecutionEvent, decode_event
from carrel_wire.host import (
    ACKNOWLEDGED_HEADER,
    AckRequest,
    BindReply,
    BindRequest,
    ChangesReply,
    CompleteReply,
    CompleteRequest,
    ExecuteRequest,
    FileInfo,
    FilesReply,
    HostState,
    InspectReply,
    InterruptReply,
    KernelInfo,
    VariablesReply,
    encode_acknowledged,
)
from carrel_wire.snapshots import (
    Manifest,
    MissingReply,
    RestoreReply,
    RestoreRequest,
    SealRequest,
    SnapshotRequest,
)
from carrel_wire.tokens import BIND, EXECUTE, FILES, STATE, Signer

MAIN: Final = "main"
"""The kernel that every bound host has."""

CALL_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=5)
STREAM_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5)
"""A cell may be silent for as long as its own timeout lets it; the host ends it, not the transport."""
RESTART_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, sock_connect=5)
SNAPSHOT_TIMEOUT: Final = aiohttp.ClientTimeout(total=900, sock_connect=5)
"""The host has a limit for the variables; the files of a large workspace take their time too."""
FILE_CHUNK_BYTES: Final = 256 * 1024
MAX_REFUSAL_BYTES: Final = 64 * 1024

_T = TypeVar("_T")


def main_of(state: HostState) -> KernelInfo | None:
    """Return the session's kernel; none while it is starting."""
    return next((kernel for kernel in state.kernels if kernel.id == MAIN), None)


class HostConnection:
    """Calls to one kernel host under its session's identity."""

    def __init__(self, endpoint: HostEndpoint, signer: Signer, http: aiohttp.ClientSession) -> None:
        self.endpoint = endpoint
        self._signer = signer
        self._http = http
        self._acks = Acks(self.ack)
        self._streams = HostStreams(endpoint, watch)

    async def bind(self, request: BindRequest) -> BindReply:
        """Make the host this session's; idempotent."""
        return await self._call("POST", "/v1/bind", BindReply, scope=BIND, body=request, bound=False)

    async def state(self) -> HostState:
        """Return what runs on the host and what it holds unacknowledged, after telling it what is not."""
        await self.acknowledge()
        return await self._call("GET", "/v1/state", HostState, scope=STATE, bound=False)

    def execute(
        self, execution_id: UUID, request: ExecuteRequest, *, kernel: str = MAIN
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """Run the code, or attach to it when the id has been sent before; yields its events from the first.

        Whoever does not read to the end closes it.

        Raises
        ------
        KernelLost
            The connection broke: what became of the code is not known here.
        CarrelError
            The host refused; nothing was run.
        """
        path = f"/v1/kernels/{quote(kernel, safe='')}/executions/{execution_id}"
        return self._events("PUT", path, body=msgspec.json.encode(request), acks=kernel == MAIN)

    def events(self, execution_id: UUID, *, after: int, kernel: str = MAIN) -> AsyncGenerator[ExecutionEvent, None]:
        """Read on after event number `after` until `finished`; whoever does not read to the end closes it.

        Raises
        ------
        NotFound
            The host knows no such execution.
        KernelLost
            The connection broke.
        """
        path = f"/v1/kernels/{quote(kernel, safe='')}/executions/{execution_id}/events?after={after}"
        return self._events("GET", path)

    async def ack(self, execution_id: UUID, n: int, *, kernel: str = MAIN) -> None:
        """Release the spool up to and with event `n`: all of it is committed."""
        path = f"/v1/kernels/{quote(kernel, safe='')}/executions/{execution_id}/ack"
        await self._send("POST", path, scope=EXECUTE, body=AckRequest(n=n))

    def settle(self, execution_id: UUID, n: int) -> None:
        """Release the same soon: with the next code for `main`, or by itself; when that fails, a recovery does it."""
        self._acks.add(execution_id, n)

    async def acknowledge(self) -> None:
        """Release now what was to be released soon."""
        await self._acks.flush()

    async def aclose(self) -> None:
        """Leave what has not been released to a recovery."""
        await self._acks.aclose()
        self._streams.close()

    async def interrupt(self, *, kernel: str = MAIN) -> InterruptReply:
        """Interrupt what runs."""
        return await self._call(
            "POST", f"/v1/kernels/{quote(kernel, safe='')}/interrupt", InterruptReply, scope=EXECUTE
        )

    async def restart(self, *, kernel: str = MAIN) -> KernelInfo:
        """Replace the kernel's process; its variables are gone."""
        path = f"/v1/kernels/{quote(kernel, safe='')}/restart"
        return await self._call("POST", path, KernelInfo, scope=EXECUTE, timeout=RESTART_TIMEOUT)

    async def variables(self, *, kernel: str = MAIN) -> VariablesReply:
        """Return the kernel's variables; 409 `kernel_busy` while a cell runs."""
        return await self._call("GET", f"/v1/kernels/{quote(kernel, safe='')}/variables", VariablesReply, scope=EXECUTE)

    async def complete(self, request: CompleteRequest, *, kernel: str = MAIN) -> CompleteReply:
        """Return completions at the cursor."""
        path = f"/v1/kernels/{quote(kernel, safe='')}/complete"
        return await self._call("POST", path, CompleteReply, scope=EXECUTE, body=request)

    async def inspect(self, request: CompleteRequest, *, kernel: str = MAIN) -> InspectReply:
        """Return documentation of the name at the cursor."""
        path = f"/v1/kernels/{quote(kernel, safe='')}/inspect"
        return await self._call("POST", path, InspectReply, scope=EXECUTE, body=request)

    async def files(self) -> list[FileInfo]:
        """Return the files of the workspace."""
        return (await self._call("GET", "/v1/files", FilesReply, scope=FILES)).files

    async def changes(self, since: str | None = None) -> ChangesReply:
        """Return what changed in the workspace since the cursor."""
        params = {"since": since} if since else None
        return await self._call("GET", "/v1/changes", ChangesReply, scope=FILES, params=params)

    async def put_file(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        """Write a file of the workspace, replacing it whole."""
        async with (
            converted(),
            self._request("PUT", f"/v1/files/{quote(path)}", scope=FILES, data=chunks, timeout=STREAM_TIMEOUT) as reply,
        ):
            await reply.read()

    async def get_file(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file of the workspace.

        Raises
        ------
        NotFound
            There is no such file (any more).
        KernelLost
            The connection broke before its end.
        """
        async with (
            converted(),
            self._request("GET", f"/v1/files/{quote(path)}", scope=FILES, timeout=STREAM_TIMEOUT) as reply,
        ):
            async for chunk in reply.content.iter_chunked(FILE_CHUNK_BYTES):
                yield chunk

    async def delete_file(self, path: str) -> None:
        """Remove a file of the workspace."""
        await self._send("DELETE", f"/v1/files/{quote(path)}", scope=FILES)

    # ------------------------------------------------------------------ snapshots

    async def snapshot(self, *, kernel: str = MAIN) -> Manifest:
        """Save variables and files, and return what they are; 409 `kernel_busy` while a cell runs."""
        path = f"/v1/kernels/{quote(kernel, safe='')}/snapshot"
        return await self._call("POST", path, Manifest, scope=EXECUTE, body=SnapshotRequest(), timeout=SNAPSHOT_TIMEOUT)

    async def restore(self, manifest: Manifest, *, keep_files: bool = False, kernel: str = MAIN) -> RestoreReply:
        """Bring variables and files back, whose contents are on the host; `keep_files`: only files that are gone."""
        path = f"/v1/kernels/{quote(kernel, safe='')}/restore"
        body = RestoreRequest(manifest=manifest, keep_files=keep_files)
        return await self._call("POST", path, RestoreReply, scope=EXECUTE, body=body, timeout=SNAPSHOT_TIMEOUT)

    async def seal(self, digest: str, *, kernel: str = MAIN) -> None:
        """End the kernel for good; 409 `kernel_changed` when something has run since the snapshot."""
        path = f"/v1/kernels/{quote(kernel, safe='')}/seal"
        await self._send("POST", path, scope=EXECUTE, body=SealRequest(digest=digest))

    async def unseal(self, *, kernel: str = MAIN) -> None:
        """See to it that the kernel cannot be sealed with its last snapshot; 409 `sealed` when it is too late."""
        await self._send("DELETE", f"/v1/kernels/{quote(kernel, safe='')}/seal", scope=EXECUTE)

    async def missing(self, manifest: Manifest, *, keep_files: bool = False) -> list[str]:
        """Return the digests of the contents that the host does not have, and that `restore` will want."""
        body = RestoreRequest(manifest=manifest, keep_files=keep_files)
        path = "/v1/snapshots/missing"
        reply = await self._call("POST", path, MissingReply, scope=FILES, body=body, timeout=SNAPSHOT_TIMEOUT)
        return reply.missing

    async def get_blob(self, digest: str) -> AsyncGenerator[bytes, None]:
        """Yield a content of the last snapshot; the connection is cut when it is not that content any more."""
        async with (
            converted(),
            self._request("GET", f"/v1/snapshots/blobs/{digest}", scope=FILES, timeout=STREAM_TIMEOUT) as reply,
        ):
            async for chunk in reply.content.iter_chunked(FILE_CHUNK_BYTES):
                yield chunk

    async def put_blob(self, digest: str, chunks: AsyncIterable[bytes]) -> None:
        """Bring a content that is about to be restored."""
        path = f"/v1/snapshots/blobs/{digest}"
        async with (
            converted(),
            self._request("PUT", path, scope=FILES, data=chunks, timeout=STREAM_TIMEOUT) as reply,
        ):
            await reply.read()

    # ------------------------------------------------------------------ transport

    async def _call(
        self,
        method: str,
        path: str,
        reply_type: type[_T],
        *,
        scope: str,
        body: msgspec.Struct | None = None,
        params: dict[str, str] | None = None,
        bound: bool = True,
        timeout: aiohttp.ClientTimeout = CALL_TIMEOUT,  # noqa: ASYNC109  handed to aiohttp, which has one of its own
    ) -> _T:
        data = await self._send(method, path, scope=scope, body=body, params=params, bound=bound, timeout=timeout)
        async with converted():
            return msgspec.json.decode(data, type=reply_type)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        body: msgspec.Struct | None = None,
        params: dict[str, str] | None = None,
        bound: bool = True,
        timeout: aiohttp.ClientTimeout = CALL_TIMEOUT,  # noqa: ASYNC109  as above
    ) -> bytes:
        data = msgspec.json.encode(body) if body is not None else None
        async with (
            converted(),
            self._request(method, path, scope=scope, data=data, params=params, bound=bound, timeout=timeout) as reply,
        ):
            return await reply.read()

    async def _events(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        acks: bool = False,
    ) -> AsyncGenerator[ExecutionEvent, None]:
        told = self._acks.take() if acks else {}
        headers = self._headers(EXECUTE)
        if told:
            headers[ACKNOWLEDGED_HEADER] = encode_acknowledged(told)
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with converted():
                if self._streams.closed:
                    raise _unreachable()
                reply = await self._streams.open(method, path, headers, body)
                try:
                    if reply.status >= 300:
                        raise refusal(reply.status, await reply.rest(MAX_REFUSAL_BYTES))
                    if ACKNOWLEDGED_HEADER.lower() not in reply.headers:
                        self._acks.put_back(told)
                    told = {}
                    async with aclosing(lines(reply)) as stream:
                        async for line in stream:
                            yield decode_event(line)
                finally:
                    self._streams.give_back(reply)
        finally:
            self._acks.put_back(told)

    def _headers(self, scope: str, *, bound: bool = True) -> dict[str, str]:
        session = self.endpoint.session_uid if bound else None
        token = self._signer.token(audience=self.endpoint.audience, session_uid=session, scopes=(scope,))
        return {"Authorization": f"Bearer {token}"}

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        data: bytes | AsyncIterable[bytes] | None = None,
        params: dict[str, str] | None = None,
        bound: bool = True,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  as above
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        if self._http.closed:  # another caller saw that the host is gone
            raise _unreachable()
        headers = self._headers(scope, bound=bound)
        if isinstance(data, bytes):
            headers["Content-Type"] = "application/json"
        async with self._http.request(
            method,
            self.endpoint.url + path,
            headers=headers,
            data=data,
            params=params,
            timeout=timeout,
            allow_redirects=False,  # code in a kernel may have replaced its host: it must not say where calls go
        ) as reply:
            if reply.status >= 300:
                raise refusal(reply.status, await reply.read())
            yield reply


def watch(sock: socket.socket) -> None:
    """Have a socket notice a peer that is gone without a word, as a pod is when its node loses power.

    Within about half a minute, also in the middle of a silent cell; the system's own default is hours. Source: tcp(7).
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        option = getattr(socket, name, None)  # Linux has all of them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _unreachable() -> KernelLost:
    return KernelLost("The kernel host cannot be reached.", code="kernel_unreachable")
