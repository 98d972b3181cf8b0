"""For tests of the embedded product: its settings, waiting for another process, what a cell said."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from carrel_gateway.settings import Settings
from carrel_wire.events import ExecutionEvent, Finished, Stdout

LEFT_ALIVE: list[subprocess.Popen[bytes]] = []
"""Kernel hosts that a gateway of the test left to the next one; reaped at the test's end."""


def settings_for(data_dir: Path, **more: Any) -> Settings:
    """Return the embedded product's settings for a folder, whatever the environment says; nothing is ready ahead."""
    alone = {"database_url": None, "redis_url": None, "storage_type": "local"}
    alone |= {"spare_kernel_host": False, "kernel_preload": ""}
    return Settings(_env_file=None, data_dir=data_dir, **{**alone, **more})  # pyright: ignore[reportCallIssue]


async def until(condition: Callable[[], Awaitable[Any]], *, seconds: float = 60) -> None:
    """Wait until the condition holds, asking again and again; `TimeoutError` when it does not in time."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  of another process, which gives no event to wait for
            await asyncio.sleep(0.02)


def text_of(events: list[ExecutionEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Stdout))


def end_of(events: list[ExecutionEvent]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def hosts_of(data_dir: Path) -> set[int]:
    """Return the process ids of all hosts of a data folder, whoever's child they are."""
    marker = str(data_dir / "workspaces").encode()
    found: set[int] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"carrel_kernel" in words and marker in words:
                found.add(int(process.name))
    return found
