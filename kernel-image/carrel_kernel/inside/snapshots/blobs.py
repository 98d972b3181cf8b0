"""Files named by the SHA-256 of their content, as the kernel writes them; the host checks every one of them again."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

_BUFFER_BYTES: Final = 1024 * 1024


class TooLarge(Exception):
    """The snapshot would take more than it may."""

    def __str__(self) -> str:
        return "it is larger than what is left of the snapshot's limit"


class Writer:
    """A file under construction; every library that writes bytes takes it for one."""

    closed = False

    def __init__(self, descriptor: int, room: int) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=_BUFFER_BYTES)
        self._room = room
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        """Write bytes, or anything that lets its memory be read as such.

        Raises
        ------
        TooLarge
        """
        view = memoryview(data)
        if not view.nbytes:
            return 0
        view = view.cast("B")
        if self.size + len(view) > self._room:
            raise TooLarge
        self.size += len(view)
        self._hash.update(view)
        self._file.write(view)
        return len(view)

    def tell(self) -> int:
        """Return how much has been written."""
        return self.size

    def flush(self) -> None:
        """Do nothing: the file is closed soon."""

    def mark(self) -> tuple[int, Any]:
        """Return what `rollback` needs to come back here."""
        return self.size, self._hash.copy()

    def rollback(self, mark: tuple[int, Any]) -> None:
        """Take back what was written since."""
        self.size, self._hash = mark
        self._file.seek(self.size)
        self._file.truncate()

    def close(self) -> None:
        """Bring everything to the file."""
        self._file.close()

    @property
    def digest(self) -> str:
        """SHA-256 of what has been written, in hexadecimal."""
        return self._hash.hexdigest()


class Blobs:
    """A folder of blobs, and how much may still be put there, in bytes."""

    def __init__(self, folder: Path, room: int) -> None:
        self._folder = folder
        self._room = room
        self._known: set[str] = set()

    @contextmanager
    def writer(self) -> Generator[Writer]:
        """Give a file to write to; it becomes a blob when the block ends well, and nothing otherwise.

        Raises
        ------
        TooLarge
        """
        descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".half-")
        writer = Writer(descriptor, self._room)
        try:
            yield writer
            writer.close()
            Path(name).replace(self._folder / writer.digest)
        except BaseException:
            with suppress(OSError):
                writer.close()
            with suppress(FileNotFoundError):
                Path(name).unlink()
            raise
        if writer.digest not in self._known:
            self._known.add(writer.digest)
            self._room -= writer.size
