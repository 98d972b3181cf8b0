"""The whole way of one person with kernels as pods: the same body as with child processes (`tests.support.journey`).

Once through a session that the gateway makes, once through one that was made with kubectl. Beside it: what the way left
on the cluster. The session's pod, policies and volume are there while the session is, and gone with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cluster.provider.base import Cluster
from tests.support.journey import STEP_SECONDS, journey, leave
from tools.cluster import Access, Place

SESSIONS = Place().sessions
GONE_SECONDS = 90
CLASS = "journey"
EGRESS = {"cidr": "203.0.113.0/24", "ports": [443]}
OWNED = "pods,persistentvolumeclaims,networkpolicies,secrets,services"


def agent_sessions(cluster: Cluster) -> dict[str, Any]:
    """Return the AgentSessions of the session namespace by UID."""
    found = cluster.get("agentsessions.carrel.dev", f"--namespace={SESSIONS}")["items"]
    return {item["metadata"]["uid"]: item for item in found}


def owned_by(cluster: Cluster, uid: str) -> set[str]:
    """Return what the cluster holds for a session, as kind/name."""
    return {
        f"{item['kind']}/{item['metadata']['name']}"
        for item in cluster.get(OWNED, f"--namespace={SESSIONS}")["items"]
        if any(owner["uid"] == uid for owner in item["metadata"].get("ownerReferences", ()))
    }


async def gone(cluster: Cluster, uid: str) -> None:
    async with asyncio.timeout(GONE_SECONDS):
        while uid in await asyncio.to_thread(agent_sessions, cluster) or await asyncio.to_thread(  # noqa: ASYNC110  asked with kubectl
            owned_by, cluster, uid
        ):
            await asyncio.sleep(0.5)


@pytest.fixture
def with_egress(cluster: Cluster, product: Access) -> Generator[None]:
    """A SessionClass as the default one, whose sessions may have a network policy of their own."""
    spec = {**cluster.get("sessionclass", "default")["spec"], "egress": [EGRESS]}
    metadata = {"name": CLASS}
    cluster.apply({"apiVersion": "carrel.dev/v1alpha1", "kind": "SessionClass", "metadata": metadata, "spec": spec})
    yield
    cluster.kubectl("delete", "sessionclass", CLASS, "--wait=false")


@pytest.mark.parametrize("made_with", ["gateway", "kubectl"])
@pytest.mark.usefixtures("with_egress")
async def test_the_whole_way(cluster: Cluster, product: Access, tmp_path: Path, made_with: str):
    session_id = await asyncio.to_thread(apply, cluster) if made_with == "kubectl" else None
    headers = {"Authorization": f"Bearer {product.api_key}"}
    async with httpx.AsyncClient(base_url=product.gateway, headers=headers, timeout=STEP_SECONDS) as client:
        way = await journey(client, tmp_path / "elsewhere", session_id)
        by_name = {item["metadata"]["name"]: item for item in agent_sessions(cluster).values()}
        session = by_name[way.session_id if session_id is None else "by-hand"]
        owned = owned_by(cluster, session["metadata"]["uid"])
        assert f"Pod/{session['status']['podName']}" in owned
        if session_id:
            assert {name.split("/")[0] for name in owned} == {"Pod", "NetworkPolicy", "PersistentVolumeClaim"}, owned
        await leave(client, way)
    await gone(cluster, session["metadata"]["uid"])


def apply(cluster: Cluster) -> str:
    """Make a session as a person at a terminal does, wait until it is ready, and return its id in the gateway."""
    spec = {
        "className": CLASS,
        "workspace": {"type": "Persistent", "size": "256Mi"},
        "network": {"egress": [EGRESS]},
    }
    metadata = {"name": "by-hand", "namespace": SESSIONS}
    document = {"apiVersion": "carrel.dev/v1alpha1", "kind": "AgentSession", "metadata": metadata, "spec": spec}
    cluster.apply(document)
    where = f"--namespace={SESSIONS}"
    cluster.kubectl("wait", "--for=condition=Ready", "agentsession/by-hand", where, f"--timeout={GONE_SECONDS}s")
    return str(cluster.get("agentsession", "by-hand", where)["metadata"]["uid"])
