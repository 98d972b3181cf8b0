"""Kernel hosts as a gateway calls them, from outside the cluster: cells, open clients, snapshots. It stores nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp

from carrel_gateway.executors.base import HostEndpoint
from carrel_gateway.kernels.connection import HostConnection
from carrel_wire.events import Error, Finished, Stdout
from carrel_wire.host import ExecuteRequest, HostState
from carrel_wire.snapshots import Manifest, RestoreReply
from carrel_wire.tokens import EXECUTE, Signer


@dataclass(frozen=True)
class Saved:
    """A snapshot that was taken out of a pod."""

    pod_uid: str
    manifest: Manifest
    blobs: dict[str, bytes]

    @property
    def reference(self) -> dict[str, str]:
        """Return it as `spec.snapshot`."""
        return {"podUID": self.pod_uid, "ref": self.manifest.digest[:32], "digest": self.manifest.digest}


class CellFailed(Exception):
    """A cell did not end well."""

    def __init__(self, status: str, message: str | None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Host:
    """One kernel host, under its session's identity."""

    def __init__(self, connection: HostConnection, http: aiohttp.ClientSession, signer: Signer) -> None:
        self._connection, self._http, self._signer = connection, http, signer

    async def state(self) -> HostState:
        """Return what runs there."""
        return await self._connection.state()

    async def run(self, code: str, incarnation: str | None = None) -> str:
        """Run a cell, in this very process if one is named, and return what it printed.

        Raises
        ------
        CellFailed
        """
        printed: list[str] = []
        raised: str | None = None
        request = ExecuteRequest(code=code, incarnation=incarnation)
        async for event in self._connection.execute(uuid4(), request):
            if isinstance(event, Stdout):
                printed.append(event.text)
            elif isinstance(event, Error):
                raised = f"{event.name}: {event.value}"
            elif isinstance(event, Finished):
                if event.status != "ok":
                    raise CellFailed(event.status, event.message or raised)
                return "".join(printed)
        raise AssertionError("the events have no end")

    async def connect(self) -> aiohttp.ClientWebSocketResponse:
        """Open a client of the kernel, as a browser tab has one."""
        endpoint = self._connection.endpoint
        token = self._signer.token(audience=endpoint.audience, session_uid=endpoint.session_uid, scopes=[EXECUTE])
        return await self._http.ws_connect(
            f"{endpoint.url}/v1/kernels/main/channels", headers={"Authorization": f"Bearer {token}"}
        )

    async def save(self) -> Saved:
        """Take a snapshot, with all of its contents."""
        manifest = await self._connection.snapshot()
        blobs: dict[str, bytes] = {}
        for digest in manifest.blobs:
            blobs[digest] = b"".join([part async for part in self._connection.get_blob(digest)])
        return Saved(self._connection.endpoint.audience, manifest, blobs)

    async def seal(self, saved: Saved) -> None:
        """End the kernel for good, if nothing has run since the snapshot."""
        await self._connection.seal(saved.manifest.digest)

    async def restore(self, saved: Saved) -> RestoreReply:
        """Bring a snapshot's variables and files back."""
        for digest in await self._connection.missing(saved.manifest):
            await self._connection.put_blob(digest, _once(saved.blobs[digest]))
        return await self._connection.restore(saved.manifest)


class Hosts:
    """The kernel hosts of an operator's sessions."""

    def __init__(self, http: aiohttp.ClientSession, signer: Signer) -> None:
        self._http, self._signer = http, signer
        self._made: list[HostConnection] = []

    async def aclose(self) -> None:
        """Close what connections are kept."""
        for connection in self._made:
            await connection.aclose()

    def of(self, session: dict[str, Any], signer: Signer | None = None) -> Host:
        """Return the host of a session that is ready, as its document says."""
        status = session["status"]
        return self.at(session["metadata"]["uid"], status["podUID"], status["endpoint"], signer)

    def at(self, session_uid: str, pod_uid: str, endpoint: str, signer: Signer | None = None) -> Host:
        """Return the host at an address."""
        signer = signer or self._signer
        place = HostEndpoint(session_uid=session_uid, audience=pod_uid, url=f"http://{endpoint}")
        connection = HostConnection(place, signer, self._http)
        self._made.append(connection)
        return Host(connection, self._http, signer)

    async def session_of(self, pod: dict[str, Any]) -> str | None:
        """Return whose the kernel host in the pod says it is."""
        state = await self.at("", pod["metadata"]["uid"], f"{pod['status']['podIP']}:8888").state()
        return state.session_uid


async def _once(data: bytes) -> Any:
    yield data
