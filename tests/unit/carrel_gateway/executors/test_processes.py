"""Processes told apart by id and start time.

Plan: a running one is alive, an ended one and one with another start time are not; ending is polite first, then not;
the whole group of a process that ignores SIGTERM goes.
"""

from __future__ import annotations

import asyncio
import os
import sys

from carrel_gateway.executors import processes

DEAF = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
signal.pause()
"""


async def start(code: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )


def test_this_process_is_alive():
    started = processes.start_time(os.getpid())
    assert started is not None
    assert processes.is_alive(os.getpid(), started)


def test_a_reused_id_is_another_process():
    assert not processes.is_alive(os.getpid(), "1")


async def test_ends_politely():
    process = await start("import time; print(1, flush=True); time.sleep(600)")
    assert process.stdout
    await process.stdout.readline()
    started = processes.start_time(process.pid) or ""
    await processes.end(process.pid, started, grace_seconds=30)
    assert not processes.is_alive(process.pid, started)
    assert await process.wait() == -15


async def test_ends_the_group_of_a_process_that_does_not_listen():
    process = await start(DEAF)
    assert process.stdout
    child = int(await process.stdout.readline())
    started, child_started = processes.start_time(process.pid) or "", processes.start_time(child) or ""
    await processes.end(process.pid, started, grace_seconds=0.5)
    assert await process.wait() == -9
    async with asyncio.timeout(30):
        while processes.is_alive(child, child_started):  # noqa: ASYNC110  a process that is no child gives no event
            await asyncio.sleep(0.01)
