"""Gateways, operators and kernel pods of the whole product on the cluster are killed at random, for a long time."""

from __future__ import annotations

import time

from tests.cluster.product.siege import besiege_cluster
from tests.cluster.provider.base import Cluster
from tests.soak.conftest import Record
from tools.cluster import Access


async def test_random_kills(cluster: Cluster, product: Access, seconds: float, record: Record):
    seed = time.time_ns() % 1_000_000
    figures = await besiege_cluster(cluster, product, seconds=seconds, sessions=3, seed=seed)
    assert figures.strikes.total() > seconds / 60
    record(
        "Cluster: kills at random",
        "Three sessions at work over HTTP through two gateways; every 5 to 20 s a gateway, an operator or a kernel\n"
        f"pod is killed without grace. Postgres, Redis and S3 stay. Seed {seed}.",
        figures.rows(),
    )
