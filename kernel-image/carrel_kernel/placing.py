"""What comes into the workspace by the API, until it is in its place: one file, or a folder with many.

Both are written beside the workspace's own files and moved when they are whole (`files`), so nobody sees half of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Final

CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class Upload:
    """A file on its way to its place."""

    file: BinaryIO
    name: str
    """With links followed."""
    status: os.stat_result | None = None
    """Of the upload itself, once it is complete: in its place code may change it at once."""

    def placed(self) -> list[tuple[str, os.stat_result]]:
        """Return name and status of what has been put in its place."""
        return [(self.name, self.status)] if self.status else []


class NewFolder:
    """A folder on its way to its place."""

    def __init__(self, name: str, reach: Callable[[tuple[str, ...]], AbstractContextManager[int]]) -> None:
        self.name = name
        """With links followed."""
        self._reach = reach
        self._placed: list[tuple[str, os.stat_result]] = []

    def make(self, parts: tuple[str, ...]) -> None:
        """Make a folder in it.

        Raises
        ------
        OSError
            There is a file of that name, or the disk does not take it.
        """
        with self._reach(parts):
            pass

    def write(self, parts: tuple[str, ...], content: Iterable[bytes]) -> None:
        """Write a file in it.

        Raises
        ------
        OSError
            There is something of that name, or the disk does not take it.
        """
        with self._reach(parts[:-1]) as folder:
            descriptor = os.open(parts[-1], CREATE, 0o644, dir_fd=folder)
            with os.fdopen(descriptor, "wb") as file:
                for chunk in content:
                    file.write(chunk)
                file.flush()
                self._placed.append(("/".join((self.name, *parts)), os.fstat(descriptor)))

    def placed(self) -> list[tuple[str, os.stat_result]]:
        """Return name and status of each file in it."""
        return self._placed
