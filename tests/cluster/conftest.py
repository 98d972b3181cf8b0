"""Fixtures of tests that need a real Kubernetes: the cluster, namespaces, images. Without a cluster they are skipped.

The cluster outlives the test run, so that the next one starts at once; `make cluster-down` ends it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator

import pytest
from tests.cluster.provider.base import Cluster
from tests.cluster.provider.choice import NoCluster, choose
from tests.support.audit import AuditLog
from tools.cluster import Access, up
from tools.images import Image, build

FIRST_START_SECONDS = 1800
"""Building Kubernetes, CoreDNS and the images for the first time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give what uses the cluster its mark, and time for the first start."""
    for item in items:
        if isinstance(item, pytest.Function) and {"cluster", "product"} & set(item.fixturenames):
            item.add_marker("cluster")
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(FIRST_START_SECONDS))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A cluster for tests: `kubeconfig`, `kubectl()`, `apply()`, `get()`, `load_image()`."""
    try:
        return choose()
    except NoCluster as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def audit(cluster: Cluster) -> AuditLog:
    """What the API server notes of every write."""
    path = cluster.audit_log()
    if path is None:
        pytest.skip(f"{cluster.name} keeps no audit log that tests can read")
    return AuditLog(path)


@pytest.fixture
def namespace(cluster: Cluster) -> Generator[str]:
    """An empty namespace that enforces the restricted Pod Security Standard; gone after the test."""
    name = f"carrel-test-{secrets.token_hex(4)}"
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}})
    yield name
    cluster.delete("namespace", name, wait=False)


@pytest.fixture(scope="session")
def image(cluster: Cluster) -> Callable[[str], Image]:
    """Build one of the product's images (`kernel`, `gateway`, `operator`) and load it; unchanged ones cost nothing."""

    def loaded(name: str) -> Image:
        built = build(name)
        cluster.load_image(built.archive)
        return built

    return loaded


@pytest.fixture(scope="session")
def product(cluster: Cluster) -> Access:
    """The whole product, installed as `make cluster` does and brought to the state of the working tree."""
    return up(cluster)
