"""How long a session takes to its kernel: started cold, or claimed from a pool, alone and many at once.

Each function is one or two lines of the table. A window of measurement holds a start and all that follows from it, such
as the replacement in a pool, and not the deletion. Nothing here knows how the operator works: what it does shows in the
API, in its metrics, and in the audit log.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from tests.load.kube import CLASSES, PODS, POOLS, Document, Kube, Sessions, until
from tests.load.rows import Row
from tests.load.usage import Meter
from tests.support.operator_process import OperatorProcess

from carrel_api import names
from carrel_wire.events import Finished, decode_event
from carrel_wire.tokens import ALL_SCOPES

START_SECONDS = 120.0
POOL_SECONDS = 600.0
"""Twenty pods that import pandas at once on two cores."""


class Beside(Protocol):
    """Something that is measured in turns with something else."""

    async def take_turn(self) -> None: ...


@dataclass
class Bench:
    """What measures are taken with."""

    kube: Kube
    operator: OperatorProcess
    sessions: Sessions
    meter: Meter
    client: str
    """User under which the bench writes."""

    def row(self, work: str, target: str = "", *, made_before: bool = False) -> Row:
        """Return a line without samples."""
        return Row(work, target, operator=self.operator.user, client=self.client, made_before=made_before)

    def note(self, row: Row, name: str) -> None:
        """Have the writes for this session, and for the pod that it got, counted as its own."""
        row.own_objects |= {name, self.sessions.seen[name].status.get("podName", name)}


async def cold_start(bench: Bench, class_name: str, times: int, where: str) -> Row:
    """Create → Ready, where no pod is kept ready."""
    row = bench.row(f"cold start: create → Ready, {where}")
    for _ in range(times):
        async with bench.meter.window(row.spent):
            name, seconds = await bench.sessions.start(class_name, START_SECONDS)
        row.samples.append(seconds)
        bench.note(row, name)
        await bench.sessions.delete_all(START_SECONDS)
    return row


async def first_reply(bench: Bench, class_name: str, times: int) -> tuple[Row, Row]:
    """Create → Ready → the first reply of a cell, on a real node; the cell is run as a gateway runs it."""
    ready = bench.row("cold start: create → Ready, runc pods, image present")
    reply = Row("cold start: Ready → first reply of `1+1`", "< 1500 ms")
    async with aiohttp.ClientSession(trust_env=False) as http:
        for _ in range(times):
            async with bench.meter.window(ready.spent):
                name, seconds = await bench.sessions.start(class_name, START_SECONDS)
                seen = bench.sessions.seen[name]
                await _execute(bench, http, seen.document, "1+1")
                assert seen.ready_at is not None
                reply.samples.append(time.perf_counter() - seen.ready_at)
            ready.samples.append(seconds)
            bench.note(ready, name)
            await bench.sessions.delete_all(START_SECONDS)
    return ready, reply


async def _execute(bench: Bench, http: aiohttp.ClientSession, session: Document, code: str) -> None:
    """Run code in the session's kernel to its end, under a token as the gateway signs it."""
    status, uid = session["status"], session["metadata"]["uid"]
    token = bench.operator.gateway_signer.token(audience=status["podUID"], session_uid=uid, scopes=ALL_SCOPES)
    url = f"http://{status['endpoint']}/v1/kernels/main/executions/{uuid.uuid4()}"
    async with http.put(url, json={"code": code}, headers={"Authorization": f"Bearer {token}"}) as answer:
        text = await answer.read()
        assert answer.status == 200, text
    last = decode_event(text.splitlines()[-1])
    assert isinstance(last, Finished), last
    assert last.status == "ok", last


@asynccontextmanager
async def pool(bench: Bench, class_name: str, replicas: int) -> AsyncIterator[str]:
    """Keep a pool of this size meanwhile; give its name when it is full."""
    name = f"pool-{uuid.uuid4().hex[:8]}"
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.POOL_KIND,
        "metadata": {"name": name, "namespace": bench.sessions.namespace},
        "spec": {"className": class_name, "replicas": replicas, "maxSurge": replicas},
    }
    await bench.kube.call("POST", POOLS, bench.sessions.namespace, body=body)
    try:
        await full(bench, name)
        yield name
    finally:
        await bench.kube.call("DELETE", POOLS, bench.sessions.namespace, name)
        await until(lambda: _no_pods(bench), START_SECONDS)  # their ends belong to no other measure


async def _no_pods(bench: Bench) -> bool:
    query = {"labelSelector": names.POOL_LABEL, "limit": "1"}
    return not (await bench.kube.call("GET", PODS, bench.sessions.namespace, query=query))["items"]


async def full(bench: Bench, name: str) -> None:
    """Wait until the pool has all its pods ready, and says so of what it has now."""

    async def holds() -> bool:
        found = await bench.kube.call("GET", POOLS, bench.sessions.namespace, name)
        status = found.get("status", {})
        return status.get("ready", 0) >= found["spec"]["replicas"] and status.get("starting", 0) == 0

    await until(holds, POOL_SECONDS)


async def claims(
    bench: Bench, class_name: str, name: str, times: int, at_once: int, row: Row, beside: Beside | None = None
) -> None:
    """Create → Ready from a full pool, `at_once` at a time; the pool is full again at the end of each window.

    `beside` takes its turn after each: what the machine does meanwhile then slows both.
    """
    for _ in range(max(1, times // at_once)):
        async with bench.meter.window(row.spent):
            starts = (bench.sessions.start(class_name, START_SECONDS) for _ in range(at_once))
            for session, seconds in await asyncio.gather(*starts):
                row.samples.append(seconds)
                bench.note(row, session)
                came_from = bench.sessions.seen[session].status.get("pool")
                assert came_from == name, f"{session} came from {came_from}, not from {name}"
            await _stable(bench, name, at_once)
        await bench.sessions.delete_all(START_SECONDS)
        if beside is not None:
            await beside.take_turn()


async def _stable(bench: Bench, name: str, claimed: int) -> None:
    """Wait until the pool has counted what was claimed, and is full again."""

    async def counted() -> bool:
        found = await bench.kube.call("GET", POOLS, bench.sessions.namespace, name)
        return found.get("status", {}).get("claimed", 0) >= claimed

    await until(counted, START_SECONDS)
    await full(bench, name)


async def make_class(bench: Bench, document: Document) -> None:
    """Make a SessionClass."""
    await bench.kube.call("POST", CLASSES, body=document)


def how(at_once: int) -> str:
    """Return how the table calls so many at a time."""
    return "serial" if at_once == 1 else f"{at_once} at once"
