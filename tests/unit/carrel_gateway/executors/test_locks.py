"""The locks of hosts: one holder per session, within a process and between two; a dead holder holds nothing."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from carrel_gateway.errors import Unavailable
from carrel_gateway.executors import locks
from carrel_gateway.executors.locks import HostLocks

SESSION = uuid4()


def hold(file: Path, session_id: UUID, said: Connection) -> None:
    async def run() -> None:
        async with HostLocks(file).hold(session_id):
            said.send("held")
            await asyncio.sleep(60)

    asyncio.run(run())


async def test_another_process_waits_and_a_dead_one_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.3)
    file = tmp_path / "lock"
    ours, theirs = multiprocessing.Pipe()
    holder = multiprocessing.get_context("spawn").Process(target=hold, args=(file, SESSION, theirs), daemon=True)
    holder.start()
    try:
        assert await asyncio.to_thread(ours.recv) == "held"
        own = HostLocks(file)
        async with own.hold(uuid4()):
            pass
        with pytest.raises(Unavailable, match="another gateway"):
            async with own.hold(SESSION):
                pytest.fail("both hold it")
        assert holder.pid
        os.kill(holder.pid, signal.SIGKILL)
        await asyncio.to_thread(holder.join)
        async with own.hold(SESSION):
            pass
        own.close()
    finally:
        holder.kill()


async def test_within_a_process_one_comes_after_the_other(tmp_path: Path):
    own = HostLocks(tmp_path / "lock")
    inside = 0

    async def work() -> None:
        nonlocal inside
        async with own.hold(SESSION):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(20)))
    own.close()


async def test_closing_again_or_while_one_is_held_touches_no_other_file(tmp_path: Path):
    own = HostLocks(tmp_path / "lock")
    async with own.hold(SESSION):
        own.close()
        with (tmp_path / "other").open("wb") as other:  # gets the number that the lock's file had
            own.close()
            other.write(b"written")
    assert (tmp_path / "other").read_bytes() == b"written"
