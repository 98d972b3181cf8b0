"""The operator's look at a real kernel host, on one machine without any policy: nothing is closed, and it says so.

Plan: a host as in a pod, with both ports on loopback, IPv4 and IPv6, and the operator's real listener. Unbound it is
asked and does get through; bound it is not, also where the caller does not know yet; a host without a closed port is
refused there. What a policy closes is tried in tests/cluster/operator/test_isolation.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from tests.integration.kernel.host import Host
from tests.integration.kernel.test_reach import free_port

from carrel_operator.handlers import probes
from carrel_operator.hosts import Hosts
from carrel_operator.isolation import isolated
from carrel_operator.queue import WorkQueue
from carrel_operator.settings import Settings
from carrel_operator.sighting import Lookout, Target
from carrel_operator.store import Store
from carrel_wire.tokens import Signer

ADDRESSES = ["127.0.0.1", "::1"]


def shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class PodLike(Host):
    """A host that listens on TCP, as in a pod; its address is that of its first flag."""

    def __init__(self, folder: Path, *flags: str, user: int | None = None, within: Sequence[str] = ()) -> None:
        super().__init__(folder, *flags, user=user, within=within)
        self.url = flags[0].replace("--listen=tcp:", "http://")

    def connector(self) -> aiohttp.BaseConnector:
        return aiohttp.TCPConnector(limit=0)

    async def _listens(self) -> bool:
        assert self.process
        assert self.process.returncode is None, self.log.read_text()
        with suppress(aiohttp.ClientError):
            return bool(await self.call("GET", "/readyz"))
        return False


@asynccontextmanager
async def pod_like(folder: Path, address: str, kernel: int, *flags: str) -> AsyncIterator[tuple[Host, Hosts]]:
    async with PodLike.running(folder, f"--listen=tcp:{shown(address, kernel)}", *flags) as host:
        hosts = Hosts(Signer("gateway-1", host.private_key), timeout_seconds=5.0)
        try:
            yield host, hosts
        finally:
            await hosts.aclose()


@pytest.mark.parametrize("address", ADDRESSES)
async def test_without_policies_both_ways_are_seen_to_be_open(tmp_path: Path, address: str) -> None:
    kernel, closed = free_port(), free_port()
    settings = Settings(
        operator_private_key_file=tmp_path, gateway_public_key_file=tmp_path, probe_address=address, probe_port=0,
        metrics_port=0, reach_port=0,
    )  # fmt: skip
    flag = f"--closed-listen=tcp:{shown(address, closed)}"
    health = probes.Health(WorkQueue(lambda key: key.namespace, workers=2), Store())
    async with pod_like(tmp_path, address, kernel, flag) as (host, hosts), probes.serve(health, settings) as ports:
        lookout = Lookout(hosts, address, ports["reach_port"])
        target = Target(address, host.host_id, kernel, closed)
        seen = await lookout.look(target, unbound=True)
        assert (seen.kernel_port, seen.closed_port, seen.from_pod) == ("connected", "connected", "connected")
        assert isolated(seen).reason == "NotEnforced"
        await host.bind()
        late = await lookout.look(target, unbound=True)
        assert (late.closed_port, late.from_pod) == ("connected", None)
        assert "already_bound" in late.not_asked
        assert (await lookout.look(target, unbound=False)).from_pod is None


async def test_a_host_without_a_closed_port_is_not_taken_for_isolated(tmp_path: Path) -> None:
    kernel, closed = free_port(), free_port()
    async with pod_like(tmp_path, "127.0.0.1", kernel) as (host, hosts):
        seen = await Lookout(hosts, "", 1).look(Target("127.0.0.1", host.host_id, kernel, closed), unbound=True)
    assert (seen.kernel_port, seen.closed_port) == ("connected", "refused")
    assert isolated(seen).reason == "ClosedPortRefused"
