"""Random kills of the product's pods while people work; the bodies of the long and of the short run on the cluster."""

from __future__ import annotations

import asyncio
import random

import httpx
from tests.cluster.provider.base import Cluster
from tests.support.siege import Figures, Strike, siege
from tests.support.witness import ANSWER_SECONDS, Witness
from tools.cluster import Access, Place

PLACE = Place()
GONE_SECONDS = 60


async def besiege_cluster(
    cluster: Cluster, product: Access, *, seconds: float, sessions: int, seed: int, pause: tuple[float, float] = (5, 20)
) -> Figures:
    """Kill gateways, operators and kernel pods at random, one pod at a time and without grace."""
    chance = random.Random(seed)

    def killer(what: str, namespace: str, selector: str) -> Strike:
        async def kill() -> str:
            where = f"--namespace={namespace}"
            pods = await asyncio.to_thread(cluster.get, "pods", where, f"--selector={selector}")
            names = sorted(pod["metadata"]["name"] for pod in pods["items"])
            if not names:
                return "nothing"
            options = ("--grace-period=0", "--force", "--ignore-not-found", "--wait=false")
            await asyncio.to_thread(cluster.kubectl, "delete", "pod", chance.choice(names), where, *options)
            return what

        return kill

    strikes = [
        killer("gateway", PLACE.namespace, "app.kubernetes.io/component=gateway"),
        killer("operator", PLACE.namespace, "app.kubernetes.io/component=operator"),
        killer("kernel pod", PLACE.sessions, "carrel.dev/component=kernel"),
    ]
    headers = {"Authorization": f"Bearer {product.api_key}"}
    async with httpx.AsyncClient(base_url=product.gateway, headers=headers, timeout=ANSWER_SECONDS) as client:
        witnesses = [await Witness.arrive(client, files_outlive_kernels=False) for _ in range(sessions)]
        figures = await siege(witnesses, strikes, seconds=seconds, pause=pause, seed=seed)
        await _gone(cluster, {witness.session_id for witness in witnesses})
        return figures


async def _gone(cluster: Cluster, sessions: set[str]) -> None:
    """Wait until nothing on the cluster belongs to the sessions any more."""
    async with asyncio.timeout(GONE_SECONDS):
        while True:
            found = await asyncio.to_thread(cluster.get, "agentsessions.carrel.dev", f"--namespace={PLACE.sessions}")
            if not sessions & {item["metadata"]["name"] for item in found["items"]}:
                return
            await asyncio.sleep(1)
