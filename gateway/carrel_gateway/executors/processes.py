"""Processes that outlive their parent: told apart by id and start time, ended by group, never by name."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

_POLL_SECONDS: Final = 0.02


def start_time(pid: int) -> str | None:
    """Return when the process started, as the system counts; none when it is gone or a zombie.

    Source: proc(5), `/proc/pid/stat` fields 3 and 22, of which the second is in clock ticks since boot. Where there is
    no /proc, a running process has the start time "unknown".
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None if Path("/proc/self/stat").exists() else _signalled(pid)
    after_name = stat[stat.rindex(")") + 2 :].split()  # the name may hold spaces and brackets
    return None if after_name[0] in "ZX" else after_name[19]


def _signalled(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def is_alive(pid: int, started: str) -> bool:
    """Whether this very process still runs: a reused id has another start time."""
    return start_time(pid) == started


async def end(pid: int, started: str, *, grace_seconds: float) -> None:
    """End a process that leads its own group: SIGTERM, and SIGKILL for the group when the grace time is over."""
    if is_alive(pid, started):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        await _wait_gone(pid, started, grace_seconds)
        if is_alive(pid, started):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            await _wait_gone(pid, started, grace_seconds)


async def _wait_gone(pid: int, started: str, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while is_alive(pid, started):  # noqa: ASYNC110  a process that is not a child gives no event to wait for
                await asyncio.sleep(_POLL_SECONDS)
