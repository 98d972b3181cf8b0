"""Keys change while sessions run: nobody notices, and what is bound anew is bound under the new key.

Plan: another key of the operator, of which kernel hosts learn by the ConfigMap as of a further key of the
gateway. The session is never anything but Ready, and is not written to; when its host ends, it is bound again.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from tests.cluster.operator.conftest import Deployed
from tests.cluster.operator.hosts import Hosts
from tests.cluster.operator.sessions import Sessions, eventually
from tests.cluster.operator.test_recovery import kill_host
from tests.cluster.provider.base import Cluster

from carrel_gateway.errors import CarrelError
from carrel_wire.tokens import Signer, generate_private_key, public_key_of

KUBELET_SECONDS = 240
"""A kubelet brings a changed ConfigMap to its pods within a minute and a half, on a machine that is not busy."""


def put_keys(cluster: Cluster, pair: Deployed, **files: str) -> None:
    """Replace files of the operator's keys, and start both replicas anew."""
    data = {name.replace("_", "."): base64.b64encode(text.encode()).decode() for name, text in files.items()}
    where = ("-n", pair.control)
    cluster.kubectl("patch", "secret", "keys", *where, f"--patch={json.dumps({'data': data})}")
    cluster.kubectl("rollout", "restart", "deployment/operator", *where)
    cluster.kubectl("rollout", "status", "deployment/operator", *where, "--timeout=180s")


def published(cluster: Cluster, pair: Deployed) -> dict[str, str]:
    """Return the keys that kernel hosts are told to trust, by id."""
    document = cluster.get("configmap", "carrel-kernel-keys", "-n", pair.sessions)
    return {key["kid"]: key["pem"] for key in json.loads(document["data"]["keys.json"])["keys"]}


async def trusts(hosts: Hosts, session: dict[str, Any], signer: Signer) -> bool:
    """Whether the session's host takes the signer's word."""
    try:
        return await hosts.of(session, signer).run("print(kept)") == "41\n"
    except CarrelError:
        return False


async def test_keys_are_renewed_while_sessions_run(cluster: Cluster, pair: Deployed, desks: Sessions, hosts: Hosts):
    name = desks.create()
    desks.ready(name)
    desks.wait(name, kind="Isolated", reason="Enforced")
    before = desks.get(name)
    await hosts.of(before).run("kept = 41")

    own, second = generate_private_key(), generate_private_key()
    further = json.dumps([{"kid": "gateway-2", "pem": public_key_of(second)}])
    put_keys(cluster, pair, operator_key=own, further_json=further)
    eventually("the new keys are published", lambda: published(cluster, pair).get("operator-1") == public_key_of(own))
    assert published(cluster, pair)["gateway-2"] == public_key_of(second)
    signer = Signer("gateway-2", second)
    await until_trusted(hosts, before, signer)
    assert await trusts(hosts, before, Signer("gateway-1", pair.gateway_key))
    after = desks.get(name)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]

    kill_host(cluster, desks.namespace, before["status"]["podName"])
    eventually("its end is counted", lambda: desks.status(name)["restarts"] == 1)
    desks.ready(name)  # bound again, by the operator with the new key
    assert await hosts.of(desks.get(name), signer).run("print('works')") == "works\n"


async def until_trusted(hosts: Hosts, session: dict[str, Any], signer: Signer) -> None:
    """Ask until the running host trusts the signer."""
    async with asyncio.timeout(KUBELET_SECONDS):
        while not await trusts(hosts, session, signer):  # noqa: ASYNC110 (the kubelet announces nothing)
            await asyncio.sleep(1)
