"""Kills inside a real pod, under the restricted Pod Security Standard and limits: kernel, fork server, host, wire.

Plan: the product's kernel image in a pod as the operator makes it; this test binds it and runs cells as the gateway
does, from the node, while parts of it die. What must hold is the same as without a pod (`tests.support.kernel_siege`).
The host is process 1 of its container: the kubelet starts another, which finds the spool on the workspace volume.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.cluster.pods import RESTRICTED, wait_ready
from tests.cluster.provider.base import Cluster
from tests.integration.kernel.host import HostClient, Refused, until
from tests.support.kernel_siege import POINTS, KernelSiege, children
from tools.images import Image

from carrel_wire.tokens import ALL_SCOPES, KeySet, PublicKey, public_key_of

PORT = 8888
START_SECONDS = 120


def host_pod(name: str, host_id: str, image: str) -> dict[str, Any]:
    """Return a pod of a kernel host, with its key set from a ConfigMap of the same name."""
    settings = {
        "CARREL_KERNEL_HOST_ID": host_id,
        "CARREL_KERNEL_KEYS": "/etc/carrel/keys/keys.json",
        "HOME": "/home/carrel",
        "MPLCONFIGDIR": "/home/carrel/matplotlib",
    }
    volumes = {"workspace": "/workspace", "home": "/home/carrel", "tmp": "/tmp"}
    keys = {"name": "keys", "mountPath": "/etc/carrel/keys", "readOnly": True}
    limits = {"cpu": "1", "memory": "2Gi", "ephemeral-storage": "1Gi"}
    container = {
        "name": "kernel",
        "image": image,
        "imagePullPolicy": "Never",
        "env": [{"name": key, "value": value} for key, value in settings.items()],
        "securityContext": RESTRICTED,
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": PORT}, "periodSeconds": 1},
        "volumeMounts": [*({"name": key, "mountPath": path} for key, path in volumes.items()), keys],
        "resources": {"limits": limits, "requests": {**limits, "cpu": "50m"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "OnFailure",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                *({"name": key, "emptyDir": {}} for key in volumes),
                {"name": "keys", "configMap": {"name": name}},
            ],
        },
    }


class PodHost(HostClient):
    """A kernel host in a pod on this machine, whose processes this one can see and kill."""

    def _hosts(self) -> set[int]:
        marker = f"CARREL_KERNEL_HOST_ID={self.host_id}".encode()
        found: set[int] = set()
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                # The fork server and its kernels do not have it: they get an allow-list of the environment.
                if marker in (path / "environ").read_bytes().split(b"\0"):
                    found.add(int(path.name))
        return found

    @property
    def visible(self) -> bool:
        """Whether its processes are this machine's."""
        return bool(self._hosts())

    @property
    def process(self) -> int:
        """Process id of the host: process 1 of its container."""
        (process,) = self._hosts()
        return process

    def processes(self) -> list[int]:
        return children(self.process)

    async def replace(self) -> None:
        before = (await self.call("GET", "/v1/state"))["boot_id"]
        await asyncio.to_thread(lambda: os.kill(self.process, signal.SIGKILL))
        await until(lambda: self._came_back(before), seconds=START_SECONDS, what="another container")
        await self.bind()

    async def _came_back(self, before: str) -> bool:
        with suppress(aiohttp.ClientError, ConnectionError, Refused):
            return (await self.call("GET", "/v1/state", token=self.token(session=None)))["boot_id"] != before
        return False

    async def runs(self) -> Counter[str]:
        async with self.request("GET", "/v1/files/runs.txt") as reply:
            return Counter((await reply.text()).split())


@pytest.fixture
async def host(cluster: Cluster, namespace: str, image: Callable[[str], Image]) -> AsyncIterator[PodHost]:
    built = await asyncio.to_thread(image, "kernel")
    host = PodHost("host-in-a-pod")
    keys = KeySet(keys=[PublicKey("gateway-1", public_key_of(host.private_key), sorted(ALL_SCOPES))])
    config = {"keys.json": msgspec.json.encode(keys).decode()}

    def start() -> str:
        metadata = {"name": "siege", "namespace": namespace}
        cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": config})
        pod = host_pod("siege", host.host_id, built.tag)
        cluster.apply({**pod, "metadata": metadata})
        return wait_ready(cluster, namespace, "siege", START_SECONDS)

    host.url = f"http://{await asyncio.to_thread(start)}:{PORT}"
    await host.cut()
    if not host.visible:
        pytest.skip("the processes of this cluster's pods cannot be seen from here")
    yield host
    if host.http:
        await host.http.close()


async def test_nothing_is_lost_when_parts_of_a_pod_die(host: PodHost) -> None:
    await host.bind()
    siege = KernelSiege(host, seed=1)
    for point in POINTS:
        await siege.run("kernel", point)
        await siege.run("connection", point)
    await siege.run("zygote", "output")
    await siege.run("host", "output")
    await siege.verify()
    assert siege.kills.total() == 2 * len(POINTS) + 2
