"""A client whose fence is down reads, and asks for leases, but writes nothing else: the request is not even sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from carrel_api import names
from carrel_operator.cluster import Cluster
from carrel_operator.errors import ApiUnavailable

POD: dict[str, Any] = {"kind": "Pod", "metadata": {"name": "a", "namespace": "b"}}
LEASE: dict[str, Any] = {"kind": "Lease", "metadata": {"name": "a", "namespace": "b"}}


class Server:
    """An API server that grants everything and remembers the methods."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.method)
        return web.json_response({"items": [], "metadata": {}})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest_asyncio.fixture
async def cluster(server: Server) -> AsyncIterator[Cluster]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    async with TestServer(application) as running:
        connected = Cluster(client.ApiClient(client.Configuration(host=str(running.make_url("")).rstrip("/"))))
        yield connected
        await connected.aclose()


def down() -> None:
    raise ApiUnavailable("the fence is down")


@pytest.mark.parametrize(
    "write",
    [
        lambda cluster: cluster.create(POD),
        lambda cluster: cluster.apply(POD),
        lambda cluster: cluster.patch("Pod", "a", "b", []),
        lambda cluster: cluster.replace(POD),
        lambda cluster: cluster.delete("Pod", "a", "b"),
    ],
)
async def test_a_fence_that_is_down_keeps_every_write_back(
    cluster: Cluster, server: Server, write: Callable[[Cluster], Awaitable[object]]
):
    cluster.fence = down
    with pytest.raises(ApiUnavailable, match="the fence is down"):
        await write(cluster)
    assert server.asked == []
    cluster.fence = lambda: None
    await write(cluster)
    assert len(server.asked) == 1


async def test_a_fence_that_is_down_lets_reads_and_leases_pass(cluster: Cluster, server: Server):
    cluster.fence = down
    await cluster.find("Pod", "a", "b")
    assert [item async for item in cluster.items(names.SESSION_KIND, "b")] == []
    await cluster.create(LEASE)
    await cluster.replace(LEASE)
    assert server.asked == ["GET", "GET", "POST", "PUT"]
