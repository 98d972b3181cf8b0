"""`/healthz`, `/readyz` and `/metrics`: what they say is measured at the moment of asking.

Beside them a port where there is nothing to be learnt: it takes connections and closes them. Network policies keep
kernel pods from it, so a pod that gets there has shown that they are not enforced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from carrel_operator import metrics
from carrel_operator.context import Key
from carrel_operator.queue import WorkQueue
from carrel_operator.settings import Settings
from carrel_operator.store import KINDS, Store

STUCK_SECONDS: Final = 120.0
"""No pass takes so long: every request in it has a time limit far below."""


LATE_SECONDS: Final = 60.0
"""A watch brings a write back within milliseconds; kopf opens one anew that was silent for 70 s."""


@dataclass
class Health:
    """Where the process stands."""

    queue: WorkQueue[Key]
    store: Store
    leader: bool = False
    """Whether this replica is the one that writes."""
    watching: bool = False
    """Whether kopf's watches run: a replica that waits keeps its knowledge warm."""

    def faults(self) -> list[str]:
        """Return what only a restart can cure."""
        found: list[str] = []
        if self.queue.longest_handling() > STUCK_SECONDS:
            found.append(f"a pass has taken {self.queue.longest_handling():.0f} s")
        if self.leader and self.watching and self.queue.oldest_wait() > STUCK_SECONDS:
            found.append(f"a key has waited {self.queue.oldest_wait():.0f} s for a worker")
        return found

    def unready(self) -> list[str]:
        """Return why the replica does not do its part now; one that waits does its part by watching."""
        found = self.faults()
        if not self.watching:
            found.append("not watching yet")
        if self.store.oldest_unheard() > LATE_SECONDS:
            found.append(f"the watch has not brought a write back for {self.store.oldest_unheard():.0f} s")
        return found

    def watch_age(self) -> float | None:
        """Return how many seconds ago anything was heard by watch; none before the first."""
        heard = max(self.store.heard_at.values(), default=None)
        return None if heard is None else time.monotonic() - heard


@asynccontextmanager
async def serve(health: Health, settings: Settings) -> AsyncGenerator[dict[str, int]]:
    """Answer probes and give metrics meanwhile; gives the ports by name."""

    async def healthz(_: web.Request) -> web.Response:
        return _answer(health.faults())

    async def readyz(_: web.Request) -> web.Response:
        age = health.watch_age()
        return _answer(
            health.unready(), leader=health.leader, lastWatchEventSeconds=None if age is None else round(age, 1)
        )

    async def series(_: web.Request) -> web.Response:
        return _metrics(health)

    probes = [web.get("/healthz", healthz), web.get("/readyz", readyz)]
    async with AsyncExitStack() as stack:
        listen = partial(_listen, stack, settings.probe_address)
        yield {
            "probe_port": await listen(settings.probe_port, probes),
            "metrics_port": await listen(settings.metrics_port, [web.get("/metrics", series)]),
            "reach_port": await _take(stack, settings),
        }


async def _listen(stack: AsyncExitStack, address: str, port: int, routes: list[web.RouteDef]) -> int:
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, address, port).start()
    return int(runner.addresses[0][1])


class _Silent(asyncio.Protocol):
    """Closes each connection at once, and counts those that others made: the operator itself sees that it listens."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        own, other = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if own[0] != other[0]:
            metrics.REACHED.inc()
        transport.close()


async def _take(stack: AsyncExitStack, settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Silent, settings.probe_address, settings.reach_port)
    stack.push_async_callback(server.wait_closed)
    stack.callback(server.close)
    return int(server.sockets[0].getsockname()[1])


def _answer(faults: list[str], **more: object) -> web.Response:
    return web.json_response({"ok": not faults, "faults": faults, **more}, status=503 if faults else 200)


def _metrics(health: Health) -> web.Response:
    metrics.QUEUE_DEPTH.set(len(health.queue))
    metrics.QUEUE_WAIT.set(health.queue.oldest_wait())
    metrics.QUEUE_DELAYED.set(health.queue.delayed)
    metrics.LEADER.set(1 if health.leader else 0)
    age = health.watch_age()
    metrics.WATCH_AGE.set(float("nan") if age is None else age)
    metrics.WATCH_OWES.set(health.store.oldest_unheard())
    for kind in KINDS:
        metrics.OBJECTS.labels(kind=kind).set(len(health.store.names(kind)))
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
