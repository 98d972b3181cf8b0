"""The whole way of one person with kernels as pods: the same body as with child processes (`tests.support.journey`).

Beside it: what the way left on the cluster. The session's pod is there while the session is, and gone with it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from tests.cluster.provider.base import Cluster
from tests.support.journey import STEP_SECONDS, journey, leave
from tools.cluster import Access, Place

GONE_SECONDS = 90


def agent_sessions(cluster: Cluster) -> dict[str, Any]:
    """Return the AgentSessions of the session namespace by name."""
    found = cluster.get("agentsessions.carrel.dev", f"--namespace={Place().sessions}")["items"]
    return {item["metadata"]["name"]: item for item in found}


async def test_the_whole_way(cluster: Cluster, product: Access):
    headers = {"Authorization": f"Bearer {product.api_key}"}
    async with httpx.AsyncClient(base_url=product.gateway, headers=headers, timeout=STEP_SECONDS) as client:
        way = await journey(client)
        session = (await asyncio.to_thread(agent_sessions, cluster))[way.session_id]
        assert session["status"]["podUID"]
        await leave(client, way)
    async with asyncio.timeout(GONE_SECONDS):
        while way.session_id in await asyncio.to_thread(agent_sessions, cluster):  # noqa: ASYNC110  asked with kubectl
            await asyncio.sleep(0.5)
