"""How long a session takes to its kernel: started cold, claimed from a pool, alone and many at once; and bare writes.

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
from typing import Any

import aiohttp
from tests.load.kube import APPLY, CLASSES, JSON_PATCH, PODS, POOLS, SESSIONS, Document, Kube, Sessions, until
from tests.load.rows import Row
from tests.load.usage import Meter
from tests.support.operator_process import OperatorProcess

from carrel_api import names
from carrel_wire.events import Finished, decode_event
from carrel_wire.tokens import ALL_SCOPES

START_SECONDS = 120.0
POOL_SECONDS = 600.0
"""Twenty pods that import pandas at once on two cores."""


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


async def claims(bench: Bench, class_name: str, name: str, times: int, at_once: int, row: Row) -> Row:
    """Create → Ready from a full pool, `at_once` at a time; the pool is full again at the end of each window."""
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
    return row


async def _stable(bench: Bench, name: str, claimed: int) -> None:
    """Wait until the pool has counted what was claimed, and is full again."""

    async def counted() -> bool:
        found = await bench.kube.call("GET", POOLS, bench.sessions.namespace, name)
        return found.get("status", {}).get("claimed", 0) >= claimed

    await until(counted, START_SECONDS)
    await full(bench, name)


async def bare_writes(bench: Bench, namespace: str, placement: Document, times: int, at_once: int) -> Row:
    """The writes of a claim, done one after the other by a plain client that waits for nothing else.

    They are those that no way of claiming can do without: the session is made, a pod that is there is given to it
    under a test of its version, and the session's status says so. No operator looks at the namespace.
    """
    row = Row(f"bare writes of a claim, {_how(at_once)}")
    pods = [f"bare-{n}" for n in range(at_once)]
    for name in pods:
        await bench.kube.call("POST", PODS, namespace, body=_pod(name, placement))
    await until(lambda: _all_ready(bench.kube, namespace), START_SECONDS)  # nobody writes to them any more
    for turn in range(max(1, times // at_once)):
        found = {item["metadata"]["name"]: item async for item in bench.kube.items(PODS, namespace)}
        async with bench.meter.window(row.spent):
            claimed = (_bare_claim(bench.kube, namespace, f"bare-{turn}-{n}", found[pods[n]]) for n in range(at_once))
            row.samples += await asyncio.gather(*claimed)
    return row


async def _all_ready(kube: Kube, namespace: str) -> bool:
    conditions = [item["status"].get("conditions", []) async for item in kube.items(PODS, namespace)]
    return all(any(one["type"] == "Ready" and one["status"] == "True" for one in each) for each in conditions)


async def _bare_claim(kube: Kube, namespace: str, name: str, pod: Document) -> float:
    session = {
        "apiVersion": names.API_VERSION,
        "kind": names.SESSION_KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"className": "none"},
    }
    version = pod["metadata"]["resourceVersion"]
    patch = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": version},
        {"op": "add", "path": "/metadata/labels", "value": {names.SESSION_LABEL: name}},
    ]
    condition = {"type": "Ready", "status": "True", "reason": "Bound", "message": "bound",
                 "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
    status = {"podName": pod["metadata"]["name"], "podUID": pod["metadata"]["uid"], "conditions": [condition]}
    began = time.perf_counter()
    await kube.call("POST", SESSIONS, namespace, body=session)
    await kube.call("PATCH", PODS, namespace, pod["metadata"]["name"], body=patch, content_type=JSON_PATCH)
    body = {**{key: session[key] for key in ("apiVersion", "kind", "metadata")}, "status": status}
    query = {"fieldManager": "bench", "force": "true"}
    await kube.call("PATCH", SESSIONS, namespace, name, "status", body=body, query=query, content_type=APPLY)
    return time.perf_counter() - began


def _pod(name: str, placement: Document) -> Document:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "kernel", "image": "localhost/none:1", "securityContext": security}
    rest: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    spec = {"containers": [container], **rest, **placement}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {}}, "spec": spec}


def _how(at_once: int) -> str:
    return "serial" if at_once == 1 else f"{at_once} at once"


def claim_work(at_once: int, where: str) -> str:
    """Return how the table calls claims."""
    return f"claim from a warm pool, {_how(at_once)}, {where}"


async def make_class(bench: Bench, document: Document) -> None:
    """Make a SessionClass."""
    await bench.kube.call("POST", CLASSES, body=document)
