"""The short form of the soak of two gateways: everything is struck from one seed while people work.

Plan: the siege; the relay between them passes, cuts and delays, and tells of the end of either side; the reader of a
stream notices a gap, a repetition and an event that the log does not have.
"""

from __future__ import annotations

import asyncio
import copy
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.fleet.follower import Follower
from tests.support.fleet.siege import besiege_fleet
from tests.support.fleet.wire import Wire


@pytest.mark.timeout(600)
async def test_strikes_at_random_lose_nothing_and_run_nothing_twice(tmp_path: Path):
    figures = await besiege_fleet(tmp_path, seconds=20, sessions=2, seed=20_266)
    assert figures.cells["ok"] > 0


async def test_the_relay_passes_cuts_and_waits():
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(100):
            writer.write(piece)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    wire = Wire(server.sockets[0].getsockname()[1])
    await wire.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(b"a")
    assert await reader.read(10) == b"a"
    wire.delay_seconds = 0.1
    began = asyncio.get_running_loop().time()
    writer.write(b"b")
    assert await reader.read(10) == b"b"
    assert asyncio.get_running_loop().time() - began >= 0.2
    assert wire.cut()
    with suppress(ConnectionError):  # an end without a reset is one too
        assert await reader.read(10) == b""
    writer.close()
    assert not wire.cut()
    await wire.stop()
    server.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_the_end_of_one_side_is_that_of_the_other_whatever_way_it_comes(reset: bool) -> None:
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"not read")
        try:
            said = await reader.read()
        except ConnectionError:
            said = b"reset"
        ended.set_result(said)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = Wire(server.sockets[0].getsockname()[1])
    await wire.start()
    try:
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_connection("127.0.0.1", wire.port)
            writer.write(b"a word")
            if reset:
                own: socket.socket = writer.get_extra_info("socket")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()
            assert await ended in ({b"reset", b"a word"} if reset else {b"a word"})
    finally:
        await wire.stop()
        server.close()


def test_a_follower_notices_what_is_missing_doubled_or_not_in_the_log():
    log: list[dict[str, Any]] = [{"seq": seq, "id": f"e{seq}"} for seq in range(1, 6)]

    def shown(*events: dict[str, Any]) -> Follower:
        follower = Follower(httpx.AsyncClient(), "s")
        follower.seen = list(events)
        return follower

    shown(*log).check(log)
    shown(*log[:3]).check(log)
    other = copy.deepcopy(log)
    other[2]["id"] = "another"
    for wrong in (shown(log[0], log[2]), shown(log[0], log[0]), shown(*other)):
        with pytest.raises(AssertionError):
            wrong.check(log)
    with pytest.raises(AssertionError):
        shown(*log).check(log[:4])
