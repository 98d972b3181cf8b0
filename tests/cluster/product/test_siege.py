"""The short form of the soak on the cluster: kills from one seed while people work (`make soak` is longer)."""

from __future__ import annotations

from tests.cluster.product.siege import besiege_cluster
from tests.cluster.provider.base import Cluster
from tools.cluster import Access


async def test_random_kills_lose_nothing_and_run_nothing_twice(cluster: Cluster, product: Access):
    figures = await besiege_cluster(cluster, product, seconds=25, sessions=2, seed=20_261, pause=(2, 8))
    assert figures.cells["ok"] > 0
