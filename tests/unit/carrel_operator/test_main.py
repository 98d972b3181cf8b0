"""The process as a whole, with an API server that is a dictionary: how it begins, waits and ends.

Plan: a standby watches, ends at once when it is told to and takes no lease; what the API server cannot say now is
asked again, and what will not change by itself ends the process with a line that says what to do.
kopf itself runs on a real cluster in tests/cluster/operator.
"""

# ruff: noqa: ARG002 (stand-ins have the signatures of what they stand for)

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from carrel_operator import __main__ as process
from carrel_operator.cluster import Cluster
from carrel_operator.context import ProcessContext
from carrel_operator.errors import ApiNotFound, ApiRefused, ApiUnavailable, ConfigurationError
from carrel_operator.handlers.probes import Health
from carrel_operator.hosts import Hosts
from carrel_operator.keys import OwnKey
from carrel_operator.settings import Settings
from carrel_wire.tokens import Signer, generate_private_key, public_key_of

DEADLINE = 30


class Api:
    """An API server whose lease another replica holds and renews at every look."""

    def __init__(self) -> None:
        self.version = 0
        self.asked = asyncio.Event()
        self.watched = asyncio.Event()
        self.faults: list[Exception] = []
        """What the next lists raise."""
        self.lists = 0
        self.writes: list[str] = []

    async def items(
        self, kind: str, namespace: str | None = None, *, labels: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        self.lists += 1
        if self.faults:
            raise self.faults.pop(0)
        for document in ():
            yield document

    async def find(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        self.version += 1
        self.asked.set()
        return {"metadata": {"resourceVersion": str(self.version)}, "spec": {"holderIdentity": "another"}}

    async def replace(self, document: dict[str, Any]) -> dict[str, Any]:
        self.writes.append("replace")
        return document

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        operator_private_key_file=tmp_path,
        gateway_public_key_file=tmp_path,
        pod_name="this",
        probe_address="127.0.0.1",
        probe_port=0,
        metrics_port=0,
    )


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()

    async def context(settings: Settings) -> ProcessContext:
        private = generate_private_key()
        own = OwnKey(Signer("operator-1", private), public_key_of(private))
        hosts = Hosts(own.signer, timeout_seconds=1.0)
        return ProcessContext(settings=settings, cluster=cast("Cluster", made), hosts=hosts, own_key=own)

    async def watch(context: ProcessContext, health: Health) -> None:
        made.watched.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(process.ProcessContext, "from_settings", context)
    monkeypatch.setattr(process, "_watch", watch)
    return made


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT])
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that nobody handles, and that does nothing then: so it is for PID 1."""
    before = signal.signal(request.param, signal.SIG_IGN)
    yield request.param
    signal.signal(request.param, before)


async def test_a_standby_that_is_told_to_end_ends_and_takes_nothing(
    api: Api, settings: Settings, number: signal.Signals
):
    async with asyncio.timeout(DEADLINE):
        running = asyncio.create_task(process.run(settings))
        await api.asked.wait()
        await api.watched.wait()  # so that it knows what there is when it takes over
        os.kill(os.getpid(), number)
        await running
    assert api.writes == []


async def test_definitions_are_looked_for_until_the_api_server_can_say(
    api: Api, settings: Settings, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(process, "FIRST_PAUSES", (0.0, 0.01))
    monkeypatch.setattr(process, "LAST_PAUSE", 0.01)
    api.faults = [ApiUnavailable("away"), ApiRefused("forbidden"), ApiUnavailable("away"), ApiUnavailable("away")]
    async with asyncio.timeout(DEADLINE):
        running = asyncio.create_task(process.run(settings))
        await api.asked.wait()  # for the lease: the definitions are there
        os.kill(os.getpid(), number)
        await running
    assert api.lists == 4 + 2


async def test_a_standby_that_cannot_reach_the_api_server_ends_when_it_is_told_to(
    api: Api, settings: Settings, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(process, "FIRST_PAUSES", (2.0 * DEADLINE,))
    api.faults = [ApiUnavailable("away")]
    async with asyncio.timeout(DEADLINE):
        running = asyncio.create_task(process.run(settings))
        while not api.lists:  # noqa: ASYNC110 (looks are counted, not announced)
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), number)
        await running
    assert api.writes == []


async def test_definitions_that_are_missing_end_the_process(api: Api, settings: Settings):
    api.faults = [ApiNotFound("no such resource")]
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(ConfigurationError, match="must be installed first"):
            await process.run(settings)
