"""Two gateways and what they stand on, and a client that goes to whichever answers.

Both serve the same data folder with the local executor, so a kernel host outlives the gateway that started it and the
other one takes it over, as with pods.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import secrets
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx
import msgspec
from tests.support import serving
from tests.support.fleet.servers import DurablePostgres, OwnRedis
from tests.support.fleet.wire import Wire
from tests.support.local import hosts_of

from carrel_gateway.executors.local import HostRecord

LEASE_SECONDS: Final = 5.0
GATEWAYS: Final = 2
_HOSTS_GONE_SECONDS: Final = 90.0


class EitherGateway(httpx.AsyncBaseTransport):
    """Sends each request to one of the gateways at random, as a load balancer does; whoever calls tries again."""

    def __init__(self, ports: list[int], chance: random.Random) -> None:
        self._ports = ports
        self._chance = chance
        self._transport = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(port=self._chance.choice(self._ports))
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        await self._transport.aclose()


class Fleet:
    """All of it. Everything that is started here is stopped by `stop`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.key = f"crl_{secrets.token_urlsafe(32)}"
        self.data_dir = folder / "data"
        self.data_dir.mkdir(parents=True)
        (folder / "redis").mkdir()
        self.postgres = DurablePostgres()
        self.redis = OwnRedis(folder / "redis")
        self.wires = {"Postgres": Wire(self.postgres.port), "Redis": Wire(self.redis.port)}
        self._gateways: list[serving.Gateway] = []
        self.ports: list[int] = []
        self._names = itertools.count()

    async def start(self) -> None:
        """Start the relays and the gateways."""
        for wire in self.wires.values():
            await wire.start()
        for _ in range(GATEWAYS):
            gateway = await self._new_gateway(port=0)
            self._gateways.append(gateway)
            self.ports.append(httpx.URL(gateway.url).port or 0)

    def client(self) -> httpx.AsyncClient:
        """Return a client that reaches either gateway."""
        return httpx.AsyncClient(
            transport=EitherGateway(self.ports, random.Random(self.chance.random())),
            base_url="http://127.0.0.1",
            headers={"Authorization": f"Bearer {self.key}"},
        )

    async def kill_gateway(self) -> str:
        """Kill a gateway, and start another one in its place."""
        place = self.chance.randrange(GATEWAYS)
        await asyncio.to_thread(self._gateways[place].stop, signal.SIGKILL)
        self._gateways[place] = await self._new_gateway(port=self.ports[place])
        return "gateway killed"

    async def freeze_gateway(self) -> str:
        """Stop a gateway for longer than its leases last, or for a moment."""
        process = self._gateways[self.chance.randrange(GATEWAYS)].process
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(self.chance.choice((0.5, 2.0, 2 * LEASE_SECONDS)))
        finally:
            process.send_signal(signal.SIGCONT)
        return "gateway stopped for a while"

    async def kill_host(self) -> str:
        """Kill the kernel host of one session."""
        pid = self._some_host()
        return "kernel host killed" if pid and _send(pid, signal.SIGKILL) else "nothing"

    async def freeze_host(self) -> str:
        """Stop the kernel host of one session for a while."""
        pid = self._some_host()
        if not pid or not _send(pid, signal.SIGSTOP):
            return "nothing"
        try:
            await asyncio.sleep(self.chance.uniform(0.5, 3.0))
        finally:
            _send(pid, signal.SIGCONT)
        return "kernel host stopped for a while"

    async def stop(self) -> None:
        """End everything, the kernel hosts too."""
        try:
            for gateway in self._gateways:
                with suppress(ProcessLookupError):
                    gateway.process.send_signal(signal.SIGCONT)
            for gateway in self._gateways:
                await asyncio.to_thread(gateway.stop)
            await self._end_hosts()
        finally:
            for wire in self.wires.values():
                await wire.stop()
            await asyncio.to_thread(self.redis.stop)
            await asyncio.to_thread(self.postgres.stop)

    async def _new_gateway(self, *, port: int) -> serving.Gateway:
        settings = {
            "CARREL_API_KEY": self.key,
            "CARREL_DATABASE_URL": self.postgres.url(self.wires["Postgres"].port),
            "CARREL_REDIS_URL": self.redis.url(self.wires["Redis"].port),
            "CARREL_RUN_LEASE_SECONDS": str(LEASE_SECONDS),
        }
        name = f"gateway{next(self._names)}"
        return await asyncio.to_thread(serving.start, self.data_dir, name=name, port=port, **settings)

    async def _end_hosts(self) -> None:
        """Those whose gateway was killed are nobody's children here; they are this test's all the same."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_HOSTS_GONE_SECONDS):
                while await asyncio.to_thread(hosts_of, self.data_dir):  # noqa: ASYNC110  asked of the system
                    await asyncio.sleep(0.2)
        for pid in await asyncio.to_thread(hosts_of, self.data_dir):
            _send(pid, signal.SIGKILL)

    def _some_host(self) -> int | None:
        records = sorted((self.data_dir / "hosts").glob("*.json"))
        with suppress(OSError, msgspec.DecodeError):
            if records:
                return msgspec.json.decode(self.chance.choice(records).read_bytes(), type=HostRecord).pid
        return None


def _send(pid: int, how: signal.Signals) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, how)
        return True
    return False
