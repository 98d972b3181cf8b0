"""A look with real sockets on this machine: what gets furthest counts, and some are not asked at all.

Plan: the kernel host is a small server that answers as each test says; the real one is met in
tests/integration/kernel/test_sighting.py and in tests/cluster. A port that swallows what comes is a listener whose
queue is full. IPv4 and IPv6; the control (the kernel port), the closed port in three states; the pod that is asked, one
of whose tries gets through, that is bound, that knows no such call; an operator without an address or with a wrong one.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from aiohttp import web

from carrel_operator import sighting
from carrel_operator.hosts import Hosts
from carrel_operator.sighting import SECONDS, TRIES, Lookout, Target, reach
from carrel_wire.host import ReachOutcome
from carrel_wire.tokens import Signer, generate_private_key

Serve = Callable[[list[Any]], Awaitable[int]]


@pytest.fixture
async def hosts() -> AsyncGenerator[Hosts]:
    made = Hosts(Signer("operator-1", generate_private_key()), timeout_seconds=5.0)
    yield made
    await made.aclose()


@pytest.fixture
async def kernel_host() -> AsyncGenerator[Serve]:
    """Start a host that answers calls in turn with outcomes or errors, the last one for good; gives its port."""
    runners: list[web.AppRunner] = []

    async def start(answers: list[Any], address: str = "127.0.0.1") -> int:
        async def handler(request: web.Request) -> web.Response:
            assert request.path == "/v1/reach"
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, str):
                return web.json_response({"outcome": answer})
            return web.json_response({"code": answer[1], "message": "no"}, status=answer[0])

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, address, 0).start()
        return runner.addresses[0][1]

    yield start
    for runner in runners:
        await runner.cleanup()


@contextmanager
def listening(address: str = "127.0.0.1") -> Iterator[int]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        yield listener.getsockname()[1]


@contextmanager
def swallowing(address: str = "127.0.0.1") -> Iterator[int]:
    """A port whose listener's queue is full: the system drops what more comes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family, backlog=0) as listener, ExitStack() as waiting:
        port, full = listener.getsockname()[1], False
        while not full:
            caller = waiting.enter_context(socket.socket(family))
            caller.settimeout(0.3)
            try:
                caller.connect((address, port))
            except TimeoutError:
                full = True
        yield port


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_connection_is_opened_refused_or_not_heard_of(address: str, unused_tcp_port: int):
    with listening(address) as port:
        assert await reach(address, port) == "connected"
    assert await reach(address, unused_tcp_port) == "refused"
    with swallowing(address) as port:
        assert await reach(address, port, 0.2) == "timeout"
    assert await reach("255.255.255.255", 80) == "unreachable"


async def test_all_three_as_they_must_be(hosts: Hosts, kernel_host: Serve):
    kernel = await kernel_host(["timeout"])
    with listening() as own, swallowing() as closed:
        began = time.monotonic()
        seen = await Lookout(hosts, "127.0.0.1", own).look(Target("127.0.0.1", "p", kernel, closed), unbound=True)
        took = time.monotonic() - began
    assert (seen.kernel_port, seen.closed_port, seen.from_pod) == ("connected", "timeout", "timeout")
    assert took >= SECONDS


async def test_a_look_over_ipv6(hosts: Hosts, kernel_host: Any):
    kernel = await kernel_host(["timeout"], "::1")
    with listening("::1") as own, swallowing("::1") as closed:
        seen = await Lookout(hosts, "::1", own).look(Target("::1", "p", kernel, closed), unbound=True)
    assert (seen.kernel_port, seen.closed_port, seen.from_pod) == ("connected", "timeout", "timeout")


async def test_open_and_refusing_ports_are_seen(hosts: Hosts, kernel_host: Serve, unused_tcp_port: int):
    kernel = await kernel_host(["refused"])
    with listening() as own, listening() as closed:
        lookout = Lookout(hosts, "127.0.0.1", own)
        seen = await lookout.look(Target("127.0.0.1", "p", kernel, closed), unbound=True)
        assert (seen.kernel_port, seen.closed_port, seen.from_pod) == ("connected", "connected", "refused")
    with listening() as own:
        target = Target("127.0.0.1", "p", unused_tcp_port, unused_tcp_port)
        seen = await Lookout(hosts, "127.0.0.1", own).look(target, unbound=True)
    assert (seen.kernel_port, seen.closed_port, seen.from_pod) == ("refused", "refused", None)
    assert "does not answer" in seen.not_asked


@pytest.mark.parametrize("lucky", range(TRIES))
async def test_one_try_of_the_pod_that_gets_through_counts(hosts: Hosts, kernel_host: Serve, lucky: int):
    answers: list[Any] = ["timeout", (409, "already_bound"), (500, "internal")][:TRIES]
    answers[lucky] = "connected"
    kernel = await kernel_host([*answers, (500, "internal")])
    with listening() as own, listening() as closed:
        seen = await Lookout(hosts, "127.0.0.1", own).look(Target("127.0.0.1", "p", kernel, closed), unbound=True)
    assert seen.from_pod == "connected"


async def test_one_try_at_the_closed_port_that_gets_through_counts(hosts: Hosts, kernel_host: Serve):
    kernel, tried = await kernel_host(["timeout"]), asyncio.Event()

    async def first_lost(host: str, port: int, seconds: float = SECONDS) -> ReachOutcome:
        if port != closed or tried.is_set():
            return await reach(host, port, seconds)
        tried.set()
        return "timeout"

    with listening() as closed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sighting, "reach", first_lost)
        seen = await Lookout(hosts, "", 1).look(Target("127.0.0.1", "p", kernel, closed), unbound=True)
    assert tried.is_set()
    assert seen.closed_port == "connected"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((404, "not_found"), "not_found"),
        ((429, "queue_full"), "queue_full"),
        ("elsewhere", "unknown document"),
    ],
)
async def test_a_host_that_does_not_try_has_not_been_asked(hosts: Hosts, kernel_host: Serve, answer: Any, says: str):
    kernel = await kernel_host(["timeout", answer])
    with listening() as own, listening() as closed:
        seen = await Lookout(hosts, "127.0.0.1", own).look(Target("127.0.0.1", "p", kernel, closed), unbound=True)
    assert seen.from_pod is None
    assert says in seen.not_asked


async def test_a_host_that_was_bound_meanwhile_has_tried_as_often_as_it_says(hosts: Hosts, kernel_host: Serve):
    late = (409, "already_bound")
    kernel, bound, broken = [
        await kernel_host(one) for one in (["timeout", late], [late], ["timeout", late, (500, "x")])
    ]
    with listening() as own, listening() as closed:
        lookout = Lookout(hosts, "127.0.0.1", own)
        seen, none, failed = [
            await lookout.look(Target("127.0.0.1", "p", one, closed), unbound=True) for one in (kernel, bound, broken)
        ]
    assert (seen.from_pod, none.from_pod, failed.from_pod) == ("timeout", None, None)
    assert "already_bound" in none.not_asked
    assert failed.not_asked.endswith("x: no")


async def test_nobody_is_asked_who_is_bound_or_where_the_operator_does_not_reach_itself(
    hosts: Hosts, kernel_host: Serve, unused_tcp_port: int
):
    kernel = await kernel_host([(500, "must not be asked")])
    with listening() as own, listening() as closed:
        target = Target("127.0.0.1", "p", kernel, closed)
        bound = await Lookout(hosts, "127.0.0.1", own).look(target, unbound=False)
        nowhere = await Lookout(hosts, "", own).look(target, unbound=True)
        elsewhere = await Lookout(hosts, "127.0.0.1", unused_tcp_port).look(target, unbound=True)
    assert [seen.from_pod for seen in (bound, nowhere, elsewhere)] == [None, None, None]
    assert "bound" in bound.not_asked
    assert "set CARREL_POD_IP" in nowhere.not_asked
    assert "correct CARREL_POD_IP" in elsewhere.not_asked
