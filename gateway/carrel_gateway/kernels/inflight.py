"""The executions that this process is recording: found by id, so that a second caller joins instead of competing.

Holds strong references to their tasks (the event loop itself keeps weak ones only) and ends them when the process does.
"""

from __future__ import annotations

import asyncio
from typing import Protocol
from uuid import UUID


class Recording(Protocol):
    """Something that reads one execution to its end in a task of its own."""

    task: asyncio.Task[None]

    @property
    def session_id(self) -> UUID:
        """Session whose kernel runs it."""
        ...


class InFlight:
    """Recordings by execution."""

    def __init__(self) -> None:
        self._recordings: dict[UUID, Recording] = {}

    def get(self, execution_id: UUID) -> Recording | None:
        """Return the recording of the execution while it goes on."""
        return self._recordings.get(execution_id)

    def add(self, execution_id: UUID, recording: Recording) -> None:
        """Keep the recording until its task is done."""
        self._recordings[execution_id] = recording
        recording.task.add_done_callback(lambda _: self._recordings.pop(execution_id, None))

    async def wait(self, session_id: UUID, *, seconds: float) -> None:
        """Wait until nothing of the session is being recorded, for a bounded time."""
        tasks = [recording.task for recording in self._recordings.values() if recording.session_id == session_id]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def aclose(self, *, drain_seconds: float) -> None:
        """Wait for the recordings, and stop those that take longer; the hosts keep what is not committed."""
        tasks = [recording.task for recording in self._recordings.values()]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=drain_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
