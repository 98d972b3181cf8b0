"""A stub of the kernel host, for pods that are not real: one process answers for every address of a range.

    python -m tests.support.stub_host CIDR

It has the paths and the types of `carrel_wire.host` for what an operator asks before and after bind, and nothing else:
it runs no kernel, verifies no token and knows no pod. A host here is an address; a bind for another pod UID is taken
as another pod that got the address. What it says of reach is what a cluster with enforcement would bring about, and
not an observation. So it serves to measure the operator, and proves nothing about isolation or execution.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys
import time
import uuid
from dataclasses import dataclass, field

import jwt
import msgspec
from aiohttp import web

from carrel_api.names import KERNEL_PORT
from carrel_wire.host import BindReply, BindRequest, ErrorBody, HostState, ReachReply, ReachRequest


@dataclass
class FakeHost:
    """What would be one process in a pod."""

    pod_uid: str
    session_uid: str | None = None
    boot_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    last_activity: float = field(default_factory=time.time)

    def state(self) -> HostState:
        """Return the state of a host in which nothing ever ran."""
        return HostState(
            host_id=self.pod_uid,
            boot_id=self.boot_id,
            session_uid=self.session_uid,
            kernels=[],
            last_activity=self.last_activity,
            busy=False,
            connections=0,
            disk_used_bytes=0,
            unacknowledged=[],
        )

    def bind(self, session_uid: str) -> BindReply | None:
        """Become the session's; none where it is another's."""
        already = self.session_uid == session_uid
        if self.session_uid is not None and not already:
            return None
        self.session_uid, self.last_activity = session_uid, time.time()
        return BindReply(host_id=self.pod_uid, boot_id=self.boot_id, session_uid=session_uid, already=already)


class FakeHosts:
    """The hosts of all addresses that were asked so far."""

    def __init__(self, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
        self._network = network
        self._hosts: dict[str, FakeHost] = {}

    def application(self) -> web.Application:
        """Return the web application."""
        application = web.Application(middlewares=[self._inside])
        application.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/v1/state", self._state),
                web.post("/v1/bind", self._bind),
                web.post("/v1/reach", self._reach),
            ]
        )
        return application

    @web.middleware
    async def _inside(self, request: web.Request, handler: web.Handler) -> web.StreamResponse:
        """Answer under addresses of the range alone: the socket listens on all of this machine's."""
        if ipaddress.ip_address(_address(request)) not in self._network:
            return _reply(ErrorBody(code="not_found", message="no pod has this address"), 404)
        return await handler(request)

    def _host(self, address: str, pod_uid: str) -> FakeHost:
        found = self._hosts.get(address)
        if found is None or found.pod_uid != pod_uid:
            found = self._hosts[address] = FakeHost(pod_uid)
        return found

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _state(self, request: web.Request) -> web.Response:
        return _reply(self._host(_address(request), _audience(request)).state())

    async def _bind(self, request: web.Request) -> web.Response:
        asked = msgspec.json.decode(await request.read(), type=BindRequest)
        bound = self._host(_address(request), asked.pod_uid).bind(asked.session_uid)
        if bound is None:
            return _reply(ErrorBody(code="already_bound", message="the host is another session's"), 409)
        return _reply(bound)

    async def _reach(self, request: web.Request) -> web.Response:
        msgspec.json.decode(await request.read(), type=ReachRequest)
        if self._host(_address(request), _audience(request)).session_uid is not None:
            return _reply(ErrorBody(code="already_bound", message="the host is bound"), 409)
        return _reply(ReachReply(outcome="timeout"))


def _address(request: web.Request) -> str:
    """Return the address that was called."""
    assert request.transport is not None
    return str(request.transport.get_extra_info("sockname")[0])


def _audience(request: web.Request) -> str:
    """Return the pod UID that the caller meant; only a caller says here which pod it is."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return str(jwt.decode(token, options={"verify_signature": False}).get("aud", ""))


def _reply(body: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


async def serve(cidr: str) -> None:
    """Answer on the kernel port until cancelled; print `listening` when it does."""
    runner = web.AppRunner(FakeHosts(ipaddress.ip_network(cidr)).application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", KERNEL_PORT).start()
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
