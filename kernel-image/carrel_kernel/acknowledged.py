"""The executions that are over and acknowledged: remembered, within bounds, so that none of them runs a second time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from carrel_wire.events import Outcome

_REMEMBERED: Final = 10_000
_MAX_FILE_BYTES: Final = 16 * 1024 * 1024

_log = structlog.get_logger(__name__)


class _Entry(msgspec.Struct, frozen=True):
    id: str
    status: Outcome | None = None


class Acknowledged:
    """Ids and outcomes, the oldest forgotten first; one line of JSON each in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Outcome | None] = {}
        self._lines = 0

    def load(self) -> None:
        """Read what an earlier host wrote; lines that are none are skipped. Blocks."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                for line in file.read(_MAX_FILE_BYTES).splitlines():
                    with suppress(msgspec.DecodeError, UnicodeDecodeError):
                        entry = msgspec.json.decode(line, type=_Entry)
                        self._entries[entry.id] = entry.status
                        self._lines += 1
        while len(self._entries) > _REMEMBERED:
            del self._entries[next(iter(self._entries))]

    def __contains__(self, execution_id: str) -> bool:
        return execution_id in self._entries

    def status(self, execution_id: str) -> Outcome | None:
        """Return how the execution ended."""
        return self._entries.get(execution_id)

    def add(self, execution_id: str, status: Outcome | None) -> None:
        """Remember an execution, on disk first."""
        try:
            _write(self._path, {execution_id: status}, os.O_APPEND)
            self._lines += 1
        except OSError as error:
            _log.warning("acknowledged_not_written", reason=error.strerror)
        self._entries[execution_id] = status
        if len(self._entries) > _REMEMBERED:
            del self._entries[next(iter(self._entries))]
        if self._lines > 2 * _REMEMBERED:
            self._shorten()

    def _shorten(self) -> None:
        """Write the file anew without what is forgotten; whole, or not at all."""
        new = self._path.with_suffix(".new")
        try:
            _write(new, self._entries, os.O_TRUNC)
            new.replace(self._path)
        except OSError as error:
            _log.warning("acknowledged_not_written", reason=error.strerror)
        self._lines = len(self._entries)  # also when it failed: the next try is not at once


def _write(path: Path, entries: Mapping[str, Outcome | None], mode: int) -> None:
    """Write entries, each on a line of its own even behind one that a host's end has torn."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | mode, 0o600)
    data = memoryview(b"".join(b"\n" + msgspec.json.encode(_Entry(id_, status)) for id_, status in entries.items()))
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
