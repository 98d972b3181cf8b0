"""Kernels that are being made ready while nobody waits any more: one at a time for each session.

A caller waits for a bounded time; the making goes on, and whoever asks next finds the kernel, the making, or why it
failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

FAILURE_SECONDS: Final = 60.0
"""A failure is kept for so long for whoever asks again; then it is tried anew."""


class Wakes:
    """The makings of one process."""

    def __init__(self) -> None:
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    async def wait(self, session_id: UUID, wake: Callable[[], Awaitable[None]], *, seconds: float) -> bool:
        """Wait until the session's kernel is ready, begun when nobody has; false when it takes longer.

        Raises what `wake` raised, to one caller that comes within a minute, or waits.
        """
        task = self._tasks.get(session_id)
        if task is None:
            task = self._tasks[session_id] = asyncio.create_task(_run(wake), name=f"wake-{session_id}")
            task.add_done_callback(lambda done: self._done(session_id, done))
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            return False
        self._forget(session_id, task)
        task.result()
        return True

    async def aclose(self) -> None:
        """Stop all of them; whoever uses a session next begins again."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, session_id: UUID, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self._forget(session_id, task)
        else:
            asyncio.get_running_loop().call_later(FAILURE_SECONDS, self._forget, session_id, task)

    def _forget(self, session_id: UUID, task: asyncio.Task[None]) -> None:
        if self._tasks.get(session_id) is task:
            del self._tasks[session_id]


async def _run(wake: Callable[[], Awaitable[None]]) -> None:
    await wake()
