"""Two gateways, Postgres, Redis and kernel hosts are killed, stopped for a while and cut off while people work.

Everything random comes from one seed; a run ends by itself. The checks are the witnesses' (`tests.support.witness`),
the followers', and those of the rows themselves at the end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.support.fleet.follower import Follower
from tests.support.fleet.gateways import Fleet
from tests.support.fleet.servers import Server
from tests.support.fleet.wire import Wire
from tests.support.siege import Figures, Strike, siege
from tests.support.witness import Witness

DELAY_SECONDS: Final = 0.3
GAPS: Final = """
    SELECT count(*) FROM (SELECT session_id, count(*) AS n, min(seq) AS low, max(seq) AS high, count(DISTINCT id) AS ids
        FROM events GROUP BY session_id) AS log
    JOIN sessions ON sessions.id = log.session_id
    WHERE n <> last_seq OR low <> 1 OR high <> last_seq OR ids <> n
"""


async def besiege_fleet(folder: Path, *, seconds: float, sessions: int, seed: int) -> Figures:
    """Strike everything at random, and check that nothing acknowledged is lost or doubled."""
    fleet = Fleet(folder, seed)
    try:
        await fleet.start()
        async with fleet.client() as client:
            witnesses = [await Witness.arrive(client, files_outlive_kernels=True) for _ in range(sessions)]
            followers = [Follower(client, witness.session_id) for witness in witnesses]
            stop = asyncio.Event()

            async def before_leaving() -> None:
                stop.set()  # whoever follows a session that is deleted is told so
                await _check_rows(fleet)

            async with asyncio.TaskGroup() as readers:
                for follower in followers:
                    readers.create_task(follower.work(stop))
                figures = await siege(
                    witnesses,
                    strikes_of(fleet),
                    seconds=seconds,
                    pause=(0.5, 3.0),
                    seed=seed,
                    checks=[lambda log, reader=follower: reader.check(log) for follower in followers],
                    before_leaving=before_leaving,
                )
            assert all(follower.connections for follower in followers)
        return figures
    finally:
        await fleet.stop()


def strikes_of(fleet: Fleet) -> list[Strike]:
    """Return everything that can happen to a fleet."""
    strikes: list[Strike] = [fleet.kill_gateway, fleet.freeze_gateway, fleet.kill_host, fleet.freeze_host]
    for server in (fleet.postgres, fleet.redis):
        wire = fleet.wires[server.name]
        strikes += [_kill(server), _freeze(server, fleet.chance), _cut(server.name, wire), _half(server.name, wire)]
        strikes.append(_slow(server.name, wire, fleet.chance))
    return strikes


async def _check_rows(fleet: Fleet) -> None:
    found = await asyncio.to_thread(fleet.postgres.server.sql, GAPS, database=fleet.postgres.database)
    assert found == "0", "the rows of a log do not agree with its session"


def _kill(server: Server) -> Strike:
    async def strike() -> str:
        await asyncio.to_thread(server.kill)
        return f"{server.name} killed"

    return strike


def _freeze(server: Server, chance: random.Random) -> Strike:
    async def strike() -> str:
        await asyncio.to_thread(server.freeze, chance.uniform(0.5, 4.0))
        return f"{server.name} stopped for a while"

    return strike


def _cut(name: str, wire: Wire) -> Strike:
    return _struck(lambda: bool(wire.cut()), f"{name} cut off")


def _half(name: str, wire: Wire) -> Strike:
    return _struck(lambda: bool(wire.half_close()), f"{name} half closed")


def _struck(strike: Callable[[], bool], what: str) -> Callable[[], Awaitable[str]]:
    async def done() -> str:
        return what if strike() else "nothing"

    return done


def _slow(name: str, wire: Wire, chance: random.Random) -> Strike:
    async def strike() -> str:
        wire.delay_seconds = DELAY_SECONDS
        try:
            await asyncio.sleep(chance.uniform(0.5, 3.0))
        finally:
            wire.delay_seconds = 0.0
        return f"{name} slow for a while"

    return strike
