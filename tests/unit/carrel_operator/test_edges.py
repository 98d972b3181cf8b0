"""Edges without a cluster: probes tell the truth, hostile kernel hosts are harmless, kopf only watches.

The kernel host of these tests is a small server that misbehaves on purpose; the real one is met in tests/cluster.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web

from carrel_operator.context import Key
from carrel_operator.errors import HostRefused, HostUnreachable
from carrel_operator.handlers import probes
from carrel_operator.handlers.startup import EndlessBackoffs, kopf_settings
from carrel_operator.hosts import MAX_REPLY, Hosts
from carrel_operator.queue import WorkQueue
from carrel_operator.settings import Settings
from carrel_operator.store import Store
from carrel_wire.host import BindRequest, ReachRequest
from carrel_wire.tokens import Signer, generate_private_key

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BIND = BindRequest(session_uid="s", pod_uid="p", env={"MODE": "x"})


@pytest.fixture
async def hosts() -> AsyncGenerator[Hosts]:
    made = Hosts(Signer("operator-1", generate_private_key()), timeout_seconds=1.0)
    yield made
    await made.aclose()


@pytest.fixture
async def serve() -> AsyncGenerator[Callable[[Handler], Awaitable[str]]]:
    """Start a server with one handler for everything; gives its address."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_bind_sends_a_token_for_that_host_and_returns_the_answer(hosts: Hosts, serve: Any):
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        seen.extend([request.method, request.path, request.headers["Authorization"][:7], await request.json()])
        return web.json_response({"host_id": "p", "boot_id": "b", "session_uid": "s", "already": False})

    reply = await hosts.bind(await serve(handler), BIND)
    assert reply.boot_id == "b"
    assert seen == ["POST", "/v1/bind", "Bearer ", {"session_uid": "s", "pod_uid": "p", "env": {"MODE": "x"}}]


async def test_reach_waits_for_the_try_and_gives_its_outcome(serve: Any):
    hosts = Hosts(Signer("operator-1", generate_private_key()), timeout_seconds=0.3)
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        seen.extend([request.method, request.path, await request.json()])
        await asyncio.sleep(0.4)  # as long as the try may take, beside the time for an answer
        return web.json_response({"outcome": "timeout"})

    request = ReachRequest(host="192.0.2.1", port=8081, timeout_seconds=2.0)
    assert await hosts.reach(await serve(handler), "p", request) == "timeout"
    assert seen == ["POST", "/v1/reach", {"host": "192.0.2.1", "port": 8081, "timeout_seconds": 2.0}]
    await hosts.aclose()


async def test_an_outcome_that_there_is_not_is_no_answer(hosts: Hosts, serve: Any):
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"outcome": "isolated"})

    with pytest.raises(HostRefused, match="unknown document"):
        await hosts.reach(await serve(handler), "p", ReachRequest(host="192.0.2.1", port=8081))


async def test_nobody_listening_is_unreachable(hosts: Hosts, unused_tcp_port: int):
    with pytest.raises(HostUnreachable, match="does not answer"):
        await hosts.bind(f"127.0.0.1:{unused_tcp_port}", BIND)


async def test_a_host_that_never_answers_is_unreachable(hosts: Hosts, serve: Any):
    async def handler(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(HostUnreachable):
        await hosts.state(await serve(handler), "p")


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (409, json.dumps({"code": "already_bound", "message": "of another session"}), "already_bound"),
        (500, "no JSON", "unknown_reply"),
        (200, "[]", "unknown_reply"),
        (200, '{"host_id": 7}', "unknown_reply"),
        (302, "", "unknown_reply"),
        (200, " " * (MAX_REPLY + 1), "reply_too_large"),
    ],
)
async def test_what_a_host_answers_is_not_trusted(hosts: Hosts, serve: Any, status: int, body: str, code: str):
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={"Location": "http://127.0.0.1:1/"})

    with pytest.raises(HostRefused) as error:
        await hosts.state(await serve(handler), "p")
    assert error.value.code == code


def settings_of(tmp_path: Path) -> Settings:
    return Settings(
        operator_private_key_file=tmp_path,
        gateway_public_key_file=tmp_path,
        probe_address="127.0.0.1",
        probe_port=0,
        metrics_port=0,
        reach_port=0,
    )


def health_of(**parts: bool) -> probes.Health:
    return probes.Health(WorkQueue(lambda key: key.namespace, workers=4), Store(), **parts)


async def asked(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_probes_and_metrics_answer_on_their_own_ports(tmp_path: Path):
    health = health_of()
    async with probes.serve(health, settings_of(tmp_path)) as ports:
        assert (await asked(ports["probe_port"], "/healthz"))[0] == 200
        assert (await asked(ports["probe_port"], "/metrics"))[0] == 404
        status, text = await asked(ports["metrics_port"], "/metrics")
        assert status == 200
        assert "carrel_operator_queue_depth 0.0" in text
        health.leader = True
        status, text = await asked(ports["probe_port"], "/readyz")
        assert (status, json.loads(text)["faults"]) == (503, ["not watching yet"])
        health.watching = True
        assert (await asked(ports["probe_port"], "/readyz"))[0] == 200


async def test_a_port_takes_connections_says_nothing_and_counts_those_of_others(tmp_path: Path):
    health = health_of()
    settings = settings_of(tmp_path).model_copy(update={"probe_address": "0.0.0.0"})
    async with probes.serve(health, settings) as ports:

        async def heard(source: str) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", ports["reach_port"], local_addr=(source, 0))
            writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
            try:
                return await reader.read()
            except ConnectionResetError:  # it was closed with what was sent unread
                return b""
            finally:
                writer.close()

        async def reached() -> float:
            _, text = await asked(ports["metrics_port"], "/metrics")
            return float(re.findall(r"^carrel_operator_reached_total (.+)$", text, re.MULTILINE)[0])

        before = await reached()
        assert await heard("127.0.0.1") == b""  # the operator itself, to see that it listens
        assert await reached() == before
        assert await heard("127.0.0.2") == b""
        assert await reached() == before + 1


@pytest.mark.parametrize("stuck", ["_since", "_handled"])
async def test_a_stuck_queue_is_no_healthy_process(tmp_path: Path, stuck: str):
    health = health_of(leader=True, watching=True)
    getattr(health.queue, stuck)[Key("session")] = time.monotonic() - probes.STUCK_SECONDS - 1
    async with probes.serve(health, settings_of(tmp_path)) as ports:
        assert (await asked(ports["probe_port"], "/healthz"))[0] == 503
        assert (await asked(ports["probe_port"], "/readyz"))[0] == 503


async def test_a_watch_that_owes_a_write_for_long_makes_unready_but_not_unhealthy(tmp_path: Path):
    health = health_of(leader=True, watching=True)
    document = {"metadata": {"name": "desk", "namespace": "ns", "uid": "u", "resourceVersion": "5"}}
    async with probes.serve(health, settings_of(tmp_path)) as ports:
        port, metrics_port = ports["probe_port"], ports["metrics_port"]
        health.store.wrote("AgentSession", document)
        assert (await asked(port, "/readyz"))[0] == 200
        health.store._awaited["u"] = (5, time.monotonic() - probes.LATE_SECONDS - 1)
        status, text = await asked(port, "/readyz")
        assert status == 503
        assert re.fullmatch(r"the watch has not brought a write back for \d+ s", json.loads(text)["faults"][0])
        assert (await asked(port, "/healthz"))[0] == 200
        _, series = await asked(metrics_port, "/metrics")
        [owed] = re.findall(r"^carrel_operator_watch_owes_seconds (.+)$", series, re.MULTILINE)
        assert float(owed) > probes.LATE_SECONDS
        health.store.heard("AgentSession", document)
        assert (await asked(port, "/readyz"))[0] == 200


async def test_when_something_was_last_heard_is_told(tmp_path: Path):
    health = health_of(watching=True)
    async with probes.serve(health, settings_of(tmp_path)) as ports:
        assert json.loads((await asked(ports["probe_port"], "/readyz"))[1])["lastWatchEventSeconds"] is None
        assert "carrel_operator_watch_age_seconds NaN" in (await asked(ports["metrics_port"], "/metrics"))[1]
        health.store.heard_at |= {"Pod": time.monotonic() - 100, "AgentSession": time.monotonic() - 10_000}
        told = json.loads((await asked(ports["probe_port"], "/readyz"))[1])
        assert 100 <= told["lastWatchEventSeconds"] < 10_000
        assert (told["leader"], told["ok"]) == (False, True)


def test_kopf_only_watches():
    settings = kopf_settings()
    assert settings.posting.enabled is False
    assert settings.peering.standalone is True
    assert settings.queueing.worker_limit is None
    delays = iter(EndlessBackoffs())
    assert [next(delays) for _ in range(7)] == [0.5, 1, 2, 3, 5, 10, 10]


def test_keys_are_readable_in_logs():
    assert str(Key("session", "ns", "desk")) == "session/ns/desk"
    assert str(Key("namespace", "ns")) == "namespace/ns"


def test_kopf_copies_and_compares_nothing_of_what_a_watch_brings():
    persistence = kopf_settings().persistence
    body = kopf.Body({"metadata": {"name": "desk", "labels": {"a": "b"}}, "spec": {"deep": {"er": [1, 2]}}})
    essence = persistence.diffbase_storage.build(body=body)
    assert essence == {}
    assert persistence.progress_storage.clear(essence=essence) is essence
    assert persistence.diffbase_storage.fetch(body=body) is None
    patch = kopf.Patch()
    persistence.diffbase_storage.store(body=body, patch=patch, essence=essence)
    persistence.progress_storage.touch(body=body, patch=patch, value="now")
    assert not patch
