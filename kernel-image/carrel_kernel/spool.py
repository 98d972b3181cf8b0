"""The events of one execution on disk, in order, until they are acknowledged.

A spool is a folder: `meta.json` says what was to be run, and segments named after the number of their first event hold
one event a line. A segment is the unit of release. Files are written before anybody is told, so a host that is killed
finds again what was delivered; they are not synced, for they outlive processes and not machines. The kernel shares the
user id, so what is read back is never trusted: only regular files are opened, and lines are counted, not believed.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

SEGMENT_BYTES: Final = 1024 * 1024
_META: Final = "meta.json"
_MAX_META_BYTES: Final = 64 * 1024 * 1024
_SUFFIX: Final = ".ndjson"


class SpoolError(Exception):
    """The disk did not take an event, or an event is not there any more."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an execution before its first event."""

    id: str
    kernel_id: str
    incarnation: str
    session_uid: str
    code: str
    created: float
    """Unix time in seconds."""


class _Segment(msgspec.Struct):
    first: int
    count: int
    size: int
    path: Path

    @property
    def last(self) -> int:
        return self.first + self.count - 1


class Spool:
    """The events of one execution. Not thread-safe, but for `read_segment`."""

    def __init__(self, folder: Path, meta: Meta) -> None:
        self.meta = meta
        self.last_n = 0
        self.released = 0
        """Events up to and with this number are gone."""
        self._folder = folder
        self._segments: deque[_Segment] = deque()
        self._tail: list[bytes] = []
        """Lines of the last segment, which is the one that readers nearly always want."""
        self._file: int | None = None
        self._broken = False

    @classmethod
    def create(cls, folder: Path, meta: Meta) -> Spool:
        """Make a new one on disk.

        Raises
        ------
        SpoolError
            The disk does not take it; nothing may run.
        """
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
            descriptor = os.open(folder / _META, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                _write_all(descriptor, msgspec.json.encode(meta))
            finally:
                os.close(descriptor)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise SpoolError(f"the workspace does not take events: {error.strerror}") from error
        return cls(folder, meta)

    @classmethod
    def load(cls, folder: Path) -> Spool:
        """Return what an earlier host left; a line that was torn by its end is cut off.

        Raises
        ------
        SpoolError
            It is no spool.
        """
        try:
            meta = msgspec.json.decode(_read_regular(folder / _META, _MAX_META_BYTES), type=Meta)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SpoolError("meta.json cannot be read") from error
        spool = cls(folder, meta)
        named = [path for path in folder.iterdir() if path.suffix == _SUFFIX and path.stem.isdigit()]
        for path in sorted(named, key=lambda path: int(path.stem)):
            spool._adopt(path)
        return spool

    def _adopt(self, path: Path) -> None:
        first = int(path.stem)
        try:
            data = _read_regular(path)
        except OSError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        if not whole or (self._segments and first != self.last_n + 1):
            return
        if len(whole) < len(data):
            with suppress(OSError):
                os.truncate(path, len(whole))
        if not self._segments:
            self.released = first - 1
        self._segments.append(_Segment(first, whole.count(b"\n"), len(whole), path))
        self.last_n = self._segments[-1].last

    @property
    def size(self) -> int:
        """Bytes of its events on disk."""
        return sum(segment.size for segment in self._segments)

    def append(self, lines: Sequence[bytes]) -> None:
        """Write the next events, each a line with its end, and count them.

        Raises
        ------
        SpoolError
            The disk does not take them. They are kept in memory then, so that the end of an execution is still told.
        """
        if not self._broken and (self._file is None or self._segments[-1].size >= SEGMENT_BYTES):
            self._roll()
        segment = self._segments[-1]
        segment.count += len(lines)
        self.last_n += len(lines)
        self._tail.extend(lines)
        if self._file is None:
            raise SpoolError("the workspace does not take events")
        data = lines[0] if len(lines) == 1 else b"".join(lines)
        try:
            _write_all(self._file, data)
        except OSError as error:
            self.close()
            self._broken = True
            raise SpoolError(f"the workspace does not take events: {error.strerror}") from error
        segment.size += len(data)

    def _roll(self) -> None:
        self.close()
        segment = _Segment(self.last_n + 1, 0, 0, self._folder / f"{self.last_n + 1:012}{_SUFFIX}")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            self._file = os.open(segment.path, flags, 0o600)
        except OSError:
            self._broken = True
        self._segments.append(segment)
        self._tail = []

    def tail(self, after: int) -> tuple[bytes, int] | None:
        """Return the events after number `after` and the number of the last, when memory holds them."""
        if not self._tail or after + 1 < self._segments[-1].first or after >= self.last_n:
            return None
        return b"".join(self._tail[after + 1 - self._segments[-1].first :]), self.last_n

    def read_segment(self, after: int) -> tuple[bytes, int]:
        """Return events after number `after`, up to the end of their segment, and the number of the last; blocks.

        Raises
        ------
        SpoolError
            They are not there any more.
        """
        segment = next((item for item in list(self._segments) if item.last > after), None)
        if segment is None or segment.first > after + 1:
            raise SpoolError("the events are released")
        first, last, size = segment.first, segment.last, segment.size
        try:
            data = _read_regular(segment.path, size)
        except OSError as error:
            raise SpoolError("the events are gone from the workspace") from error
        start = 0
        for _ in range(after + 1 - first):
            start = data.find(b"\n", start) + 1
        return data[start:], last

    def release(self, n: int) -> None:
        """Forget events up to and with number `n`, as far as whole segments go."""
        while len(self._segments) > 1 and self._segments[0].last <= n:
            segment = self._segments.popleft()
            self.released = segment.last
            with suppress(OSError):
                segment.path.unlink(missing_ok=True)

    def last_line(self) -> bytes:
        """Return the last event, or nothing where there is none; blocks."""
        if not self._segments:
            return b""
        with suppress(SpoolError):
            return self.read_segment(self.last_n - 1)[0].rstrip(b"\n")
        return b""

    def forget_tail(self) -> None:
        """Free the memory; readers read the file from now on."""
        if not self._broken:
            self._tail = []

    def close(self) -> None:
        """Close the file that is written to."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def remove(self) -> None:
        """Remove it from the disk."""
        self.close()
        self._tail = []
        shutil.rmtree(self._folder, ignore_errors=True)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_regular(path: Path, limit: int | None = None) -> bytes:
    """Return the file's bytes; anything but a regular file, such as a pipe in its place, is an OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
        return file.read(-1 if limit is None else limit)
