"""The writes that a claim cannot do without, by a plain client: what the machine and the API server cost by themselves.

No operator looks at the namespace, and the pods are of nodes that are not real.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.load.kube import APPLY, JSON_PATCH, PODS, SESSIONS, Document, Kube, until
from tests.load.rows import Row, quantile
from tests.load.starts import START_SECONDS, Bench, how

from carrel_api import names


class BareClaims:
    """The writes of a claim, done one after the other by a plain client that waits for nothing else.

    They are those that no way of claiming can do without: the session is made, a pod that is there is given to it
    under a test of its version, and the session's status says so. No operator looks at the namespace.
    """

    def __init__(self, bench: Bench, namespace: str, at_once: int) -> None:
        """Claim so many at a time, in a namespace with as many pods."""
        self.row = Row(f"bare writes of a claim, {how(at_once)}")
        self._bench = bench
        self._namespace = namespace
        self._pods = [f"bare-{n}" for n in range(at_once)]
        self._turns = 0

    async def make_pods(self, placement: Document) -> None:
        """Make the pods, and wait until nobody writes to them any more."""
        kube = self._bench.kube
        for name in self._pods:
            await kube.call("POST", PODS, self._namespace, body=_pod(name, placement))
        await until(lambda: _all_ready(kube, self._namespace), START_SECONDS)

    async def take_turn(self) -> None:
        """Claim every pod once."""
        kube, self._turns = self._bench.kube, self._turns + 1
        found = {item["metadata"]["name"]: item async for item in kube.items(PODS, self._namespace)}
        async with self._bench.meter.window(self.row.spent):
            turn = (_bare_claim(kube, self._namespace, f"{name}-{self._turns}", found[name]) for name in self._pods)
            self.row.samples += await asyncio.gather(*turn)

    def compare(self, claimed: Row) -> None:
        """Note how much longer claims took in the same minutes."""
        ratio = quantile(claimed.samples, 0.5) / quantile(self.row.samples, 0.5)
        self.row.target = f"a claim takes {ratio:.1f} times as long (p50)"


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
