"""One at a time starts or ends the host of a session, also where two gateways serve the same data folder.

Within the process an `asyncio.Lock` per session; between processes a record lock on one byte of one file, which the
system gives back when its holder dies. Nothing is stored in the file.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

from carrel_gateway.errors import Unavailable

WAIT_SECONDS: Final = 60.0
"""A host starts and ends well within this; who holds the lock for longer stands still."""
_LOOK_SECONDS: Final = 0.05
_CLOSED: Final = -1
"""No file's number: the one that the file had may be another's by now."""


class HostLocks:
    """The locks of one data folder in one process."""

    def __init__(self, file: Path) -> None:
        # Never opened twice: closing any descriptor of the file would give all of the process's locks back.
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, session_id: UUID) -> AsyncGenerator[None]:
        """Keep everybody else from starting or ending the session's host.

        Raises
        ------
        Unavailable
            Another gateway has held it for too long.
        """
        place = int.from_bytes(session_id.bytes[-6:]) >> 1  # 47 random bits of the id
        async with self._locks.setdefault(session_id, asyncio.Lock()):
            await self._take(place)
            try:
                yield
            finally:
                if self._file != _CLOSED:  # else they have all been given back
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def close(self) -> None:
        """Give all locks back; done once, however often it is asked for."""
        file, self._file = self._file, _CLOSED
        if file != _CLOSED:
            os.close(file)

    async def _take(self, place: int) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not self._taken(place):  # noqa: ASYNC110  of another process, which gives no event to wait for
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError as error:
            raise Unavailable("another gateway is starting or ending this session's kernel; try again soon") from error

    def _taken(self, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True
