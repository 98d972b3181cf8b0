"""Operators, kernel pods, kernel hosts and connections to the API server are struck at random while people work."""

from __future__ import annotations

import time

from tests.cluster.operator.conftest import Deployed
from tests.cluster.operator.hosts import Hosts
from tests.cluster.operator.pools import Pools
from tests.cluster.operator.sessions import Sessions
from tests.cluster.operator.siege import besiege_operator
from tests.cluster.provider.base import Cluster
from tests.soak.conftest import Record

STRIKES = 300


async def test_random_strikes(
    cluster: Cluster, pair: Deployed, pools: Pools, desks: Sessions, hosts: Hosts, seconds: float, record: Record
):
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    figures = await besiege_operator(
        cluster, pair, pools, desks, hosts, strikes=STRIKES, people=4, pause=(0.2, 2), seed=seed, longest=seconds * 1.5
    )
    assert figures.struck > seconds / 10
    assert figures.done["suspended"] > 0
    record(
        "Operator: strikes at random",
        "Four people make, use, suspend, wake and delete sessions, some with a volume and an egress policy, beside a\n"
        f"pool of three pods and two replicas of the operator; every 0.2 to 2 s something is struck. Seed {seed}.",
        figures.rows(),
    )
