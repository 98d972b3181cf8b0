"""How long a suspended session takes to answer with its variables again, through a gateway, on a real node.

The gateway is a process of this host with the embedded stores (SQLite, files) and the cluster's executor. Its session
is suspended, its pod is gone, and code that uses the variables is sent: what is measured ends with the reply.
"""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path
from typing import Any

import httpx
from tests.load.kube import Sessions
from tests.load.rows import Row
from tests.load.starts import START_SECONDS, Bench
from tests.support import serving

STATE = """
import numpy as np, pandas as pd
frame = pd.DataFrame({"x": np.arange(500_000.0), "y": 2 * np.arange(500_000.0)})
model = {"weights": np.random.default_rng(1).random(500_000), "steps": list(range(1000))}
def total(): return float(frame.y.sum() - 2 * frame.x.sum()) + len(model["steps"])
"""
"""12 MB."""


def wake(bench: Bench, kubeconfig: Path, class_name: str, folder: Path, times: int) -> Row:
    """Suspended → the first reply with variables; blocks, so it runs in a thread beside the watch."""
    row = bench.row("wake of a suspended session: request → reply with 12 MB of variables", "< 2000 ms")
    key = folder / "gateway.key"
    key.write_text(bench.operator.gateway_key)
    settings = {
        "KUBECONFIG": str(kubeconfig),
        "CARREL_EXECUTOR_TYPE": "kubernetes",
        "CARREL_SECRET_KEYS": f"k1:{base64.b64encode(os.urandom(32)).decode()}",
        "CARREL_SESSION_NAMESPACE": bench.sessions.namespace,
        "CARREL_SESSION_CLASS": class_name,
        "CARREL_KERNEL_PRIVATE_KEY_FILE": str(key),
    }
    with serving.gateway(folder / "gateway", **settings) as gateway, gateway.client() as client:
        path = f"/api/sessions/{_ok(client.post('/api/sessions', json={}))['id']}"
        _execute(client, path, STATE)
        for _ in range(times):
            _ok(client.post(f"{path}/suspend"))
            _await_no_pod(bench.sessions)
            began = time.perf_counter()
            assert _execute(client, path, "print(total())").strip() == "1000.0"
            row.samples.append(time.perf_counter() - began)
        assert client.delete(path).is_success
    return row


def _await_no_pod(sessions: Sessions) -> None:
    """Wait until every session says that its pod is gone."""
    deadline = time.monotonic() + START_SECONDS
    while not all(_suspended(seen.status) for seen in list(sessions.seen.values())):
        assert time.monotonic() < deadline, {name: seen.status for name, seen in sessions.seen.items()}
        time.sleep(0.1)


def _suspended(status: dict[str, Any]) -> bool:
    conditions = status.get("conditions", [])
    return any(one["type"] == "Suspended" and one["status"] == "True" for one in conditions)


def _execute(client: httpx.Client, path: str, code: str) -> str:
    cell = _ok(client.post(f"{path}/kernel/execute", json={"code": code}))
    assert cell["status"] == "ok", cell
    streams = (output for output in cell["outputs"] if output["output_type"] == "stream")
    return "".join("".join(output["text"]) for output in streams)


def _ok(reply: httpx.Response) -> dict[str, Any]:
    assert reply.is_success, reply.text
    return reply.json()
