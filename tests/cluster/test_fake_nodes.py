"""Nodes and kernel hosts that are not real, as benchmarks of the operator use them.

Plan: the stub of the kernel host answers like a host to bind, state and reach, tells addresses apart and takes another
pod UID for another pod, without a cluster. On the cluster, what is placed there becomes ready and answers under its own
address, what is not placed there does not land there, and nothing stays.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network
from typing import Any

import httpx
import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer
from tests.cluster.provider.base import Cluster
from tests.support import fake_nodes
from tests.support.stub_host import FakeHosts

from carrel_api.names import CLOSED_PORT
from carrel_wire.host import BindReply, BindRequest, HostState, ReachRequest
from carrel_wire.tokens import ALL_SCOPES, Signer, generate_private_key

SIGNER = Signer("operator-1", generate_private_key())


@pytest.fixture
async def stub() -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(FakeHosts(ip_network("127.0.0.0/8")).application())) as client:
        yield client


def token(pod_uid: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SIGNER.token(audience=pod_uid, session_uid=None, scopes=ALL_SCOPES)}"}


async def bind(client: Any, session: str, pod_uid: str) -> tuple[int, bytes]:
    body = msgspec.json.encode(BindRequest(session_uid=session, pod_uid=pod_uid))
    async with client.post("/v1/bind", data=body) as reply:
        return reply.status, await reply.read()


async def test_a_stub_is_bound_to_one_session_until_another_pod_has_the_address(stub: TestClient[Any, Any]):
    already = []
    for _ in range(2):
        status, body = await bind(stub, "session-1", "pod-1")
        assert status == 200
        already.append(msgspec.json.decode(body, type=BindReply).already)
    assert already == [False, True]
    assert (await bind(stub, "session-2", "pod-1"))[0] == 409
    assert (await bind(stub, "session-2", "pod-2"))[0] == 200


async def test_a_stub_tells_whose_it_is_and_reaches_nothing(stub: TestClient[Any, Any]):
    async def state() -> HostState:
        async with stub.get("/v1/state", headers=token("pod-1")) as reply:
            return msgspec.json.decode(await reply.read(), type=HostState)

    reach = msgspec.json.encode(ReachRequest(host="127.0.0.1", port=1))
    assert (await state()).session_uid is None
    async with stub.post("/v1/reach", data=reach, headers=token("pod-1")) as reply:
        assert await reply.json() == {"outcome": "timeout"}
    await bind(stub, "session-1", "pod-1")
    found = await state()
    assert (found.host_id, found.session_uid, found.busy, found.kernels) == ("pod-1", "session-1", False, [])
    async with stub.post("/v1/reach", data=reach, headers=token("pod-1")) as reply:
        assert reply.status == 409


async def test_a_stub_answers_under_addresses_of_pods_alone():
    async with TestClient(TestServer(FakeHosts(ip_network(fake_nodes.CIDR)).application())) as client:
        assert (await client.get("/healthz")).status == 404


def pod(name: str, **spec: Any) -> dict[str, Any]:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "kernel", "image": "localhost/none:1", "securityContext": security}],
            **spec,
        },
    }


@pytest.mark.skipif(fake_nodes.missing() is not None, reason=fake_nodes.missing() or "")
def test_what_is_placed_there_is_ready_and_answers_and_nothing_else_lands_there(cluster: Cluster, namespace: str):
    where = f"--namespace={namespace}"
    with fake_nodes.fake_nodes(cluster, 2) as nodes:
        selected = {"nodeSelector": nodes.placement["nodeSelector"]}
        cluster.apply(*(pod(f"placed-{n}", **nodes.placement) for n in range(3)), pod("selected", **selected),
                      namespace=namespace)  # fmt: skip
        placed = [f"pod/placed-{n}" for n in range(3)]
        cluster.kubectl("wait", where, *placed, "--for=condition=Ready", "--timeout=60s")
        cluster.kubectl("wait", where, "pod/selected", "--for=condition=PodScheduled=False", "--timeout=60s")
        found = [cluster.get(one, where) for one in placed]
        addresses = [one["status"]["podIP"] for one in found]
        assert len(set(addresses)) == 3
        assert all(ip_address(address) in ip_network(fake_nodes.CIDR) for address in addresses)
        assert {one["spec"]["nodeName"] for one in found} <= {f"{nodes.run}-0", f"{nodes.run}-1"}
        for n, address in enumerate(addresses):
            body = msgspec.json.encode(BindRequest(session_uid=f"session-{n}", pod_uid=f"pod-{n}"))
            assert (
                httpx.post(f"http://{address}:8888/v1/bind", content=body, trust_env=False).json()["already"] is False
            )
        with socket.socket() as closed:
            closed.settimeout(0.5)
            with pytest.raises(TimeoutError):
                closed.connect((addresses[0], CLOSED_PORT))
        cluster.kubectl("delete", where, placed[0], "--timeout=60s")
    assert cluster.get("nodes", f"--selector={fake_nodes.LABEL}={nodes.run}")["items"] == []
    left = {one["metadata"]["name"] for one in cluster.get("pods", where)["items"]}
    assert left == {"selected"}
    routes = subprocess.run(["ip", "route", "show", "table", "local"], capture_output=True, text=True).stdout
    rules = subprocess.run(["iptables", "-w", "-S", "INPUT"], capture_output=True, text=True).stdout
    assert fake_nodes.CIDR not in routes + rules
