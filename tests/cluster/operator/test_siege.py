"""The short form of the siege that `make soak` keeps up for a quarter of an hour."""

from __future__ import annotations

from tests.cluster.operator.conftest import Deployed
from tests.cluster.operator.hosts import Hosts
from tests.cluster.operator.pools import Pools
from tests.cluster.operator.sessions import Sessions
from tests.cluster.operator.siege import besiege_operator
from tests.cluster.provider.base import Cluster


async def test_a_few_strikes_double_lose_and_leave_nothing(
    cluster: Cluster, pair: Deployed, pools: Pools, desks: Sessions, hosts: Hosts
):
    figures = await besiege_operator(
        cluster, pair, pools, desks, hosts, strikes=8, people=2, pause=(0.5, 3), seed=20261129
    )
    assert figures.done["counted"] > 0
    assert figures.done["woken"] > 0
    print(*figures.rows(), sep="\n")
