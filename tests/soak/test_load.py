"""Many sessions at work in the embedded product, for a long time: no request fails, and memory does not grow.

How late the event loop was is written down with the rest, for it belongs to the machine; that no step of the loop takes
long is measured in CPU time, by `tests/integration/storage/test_loop.py`.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import httpx
from tests.soak.conftest import Record
from tests.support import servers, serving
from tests.support.witness import ANSWER_SECONDS

SESSIONS = 12
MIB = 1024 * 1024
LATE_SECONDS = 0.05
CODES = ("1 + 1", "for i in range(200): print(i, 'x' * 80)", "import math; sum(math.sqrt(i) for i in range(20_000))")


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the gateway is gone")


def samples_of(text: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_load(tmp_path: Path, seconds: float, record: Record):
    port = servers.free_port()
    with serving.gateway(tmp_path / "data", CARREL_METRICS_PORT=str(port)) as product:
        headers = {"Authorization": f"Bearer {product.key}"}
        async with httpx.AsyncClient(base_url=product.url, headers=headers, timeout=ANSWER_SECONDS) as client:
            waits: list[float] = []

            async def work(path: str, until: float) -> None:
                turn = 0
                while time.monotonic() < until:
                    began = time.monotonic()
                    reply = await client.post(f"{path}/kernel/execute", json={"code": CODES[turn % len(CODES)]})
                    assert reply.status_code == 200, reply.text
                    assert reply.json()["status"] == "ok", reply.text
                    waits.append(time.monotonic() - began)
                    turn += 1

            async def all_work(span: float) -> None:
                until = time.monotonic() + span
                async with asyncio.TaskGroup() as group:
                    for path in paths:
                        group.create_task(work(path, until))

            made = [await client.post("/api/sessions", json={}) for _ in range(SESSIONS)]
            paths = [f"/api/sessions/{reply.json()['id']}" for reply in made]
            await all_work(seconds / 5)  # every cache is as large as it gets
            waits.clear()
            before = resident_bytes(product.process.pid)
            await all_work(seconds * 4 / 5)
            after = resident_bytes(product.process.pid)
            metrics = await client.get(f"http://127.0.0.1:{port}/metrics")
    late = samples_of(metrics.text)
    in_time = late[f'carrel_event_loop_late_seconds_bucket{{le="{LATE_SECONDS}"}}']
    share = in_time / late["carrel_event_loop_late_seconds_count"]
    assert after < before * 1.5 + 50 * MIB, (before, after)
    ordered = [wait * 1000 for wait in sorted(waits)]
    p99 = ordered[int(len(ordered) * 0.99)]
    record(
        "Embedded: load",
        f"{SESSIONS} sessions execute small cells without a pause, over HTTP with a committed history (SQLite).",
        [
            ("time", f"{seconds * 4 / 5:.0f} s after {seconds / 5:.0f} s of warming up"),
            ("executions", f"{len(waits)}, none failed; {len(waits) / (seconds * 4 / 5):.0f} per second"),
            ("wait", f"median {statistics.median(ordered):.0f} ms, p99 {p99:.0f} ms"),
            ("event loop", f"back within {LATE_SECONDS * 1000:.0f} ms in {share:.2%} of all looks"),
            ("memory of the gateway", f"{before / MIB:.0f} MiB before, {after / MIB:.0f} MiB after"),
        ],
    )
