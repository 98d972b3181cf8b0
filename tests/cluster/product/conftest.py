"""The whole product on the cluster, installed with Helm once for all tests of this folder, and desks in it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import httpx
import pytest
from tests.cluster.product.desk import Desk
from tests.cluster.product.outside import Outside
from tests.cluster.provider.bare import BareCluster
from tests.cluster.provider.base import Cluster
from tools.cluster import Access


@pytest.fixture(scope="session")
def api(product: Access) -> Iterator[httpx.Client]:
    """A client of the gateway, with its key."""
    headers = {"Authorization": f"Bearer {product.api_key}"}
    with httpx.Client(base_url=product.gateway, headers=headers, timeout=120) as client:
        yield client


@pytest.fixture
def open_desk(api: httpx.Client) -> Generator[Callable[[], Desk]]:
    """Make sessions; they are deleted after the test."""
    made: list[Desk] = []

    def make() -> Desk:
        made.append(Desk.create(api))
        return made[-1]

    yield make
    for desk in made:
        desk.delete()


@pytest.fixture
def desk(open_desk: Callable[[], Desk]) -> Desk:
    """One session."""
    return open_desk()


@pytest.fixture(scope="session")
def outside(cluster: Cluster) -> Iterator[Outside]:
    """A network namespace that stands for the world: the metadata service's address and a public one."""
    if not isinstance(cluster, BareCluster):
        pytest.skip("a network beside the pods' can be made on the bare host only")
    with Outside.made() as world:
        yield world
