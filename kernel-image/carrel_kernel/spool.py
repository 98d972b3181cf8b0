"""The events of one execution on disk, in order, until they are acknowledged.

A spool is one file, or several when there is much: segments named after the execution and the number of their first
event, with one event a line. The first line of the first segment is what was to be run, so that taking an execution
costs one new file. A later segment is the unit of release. Files are written before anybody is told, so a host that is
killed finds again what was delivered; they are not synced, for they outlive processes and not machines. The kernel
shares the user id, so what is read back is never trusted: only regular files are opened, and lines are counted, not
believed.
"""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

SEGMENT_BYTES: Final = 1024 * 1024
_NAME: Final = re.compile(r"([A-Za-z0-9_-]{1,64})\.(\d{1,15})\.ndjson")
_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE: Final = _APPEND | os.O_CREAT | os.O_EXCL


class SpoolError(Exception):
    """The disk did not take an event, or an event is not there any more."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an execution before its first event."""

    id: str
    kernel_id: str
    incarnation: str
    session_uid: str
    code: str


class _Segment(msgspec.Struct):
    first: int
    path: Path
    start: int = 0
    """Bytes before the first event."""
    count: int = 0
    size: int = 0
    """Bytes of events."""

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
        spool = cls(folder, meta)
        line = msgspec.json.encode(meta) + b"\n"
        segment = _Segment(1, spool._path(1), start=len(line))
        try:
            spool._file = _create(segment.path)
            _write_all(spool._file, line)
        except OSError as error:
            spool.remove()
            raise SpoolError(f"the workspace does not take events: {error.strerror}") from error
        spool._segments.append(segment)
        return spool

    @classmethod
    def load_all(cls, folder: Path) -> Iterable[Spool]:
        """Yield what an earlier host left in a folder, by id; files that are no spool are passed over."""
        names: dict[str, list[int]] = {}
        for path in folder.iterdir():
            if found := _NAME.fullmatch(path.name):
                names.setdefault(found[1], []).append(int(found[2]))
        for id_, firsts in sorted(names.items()):
            with suppress(SpoolError):
                yield cls._load(folder, id_, sorted(firsts))

    @classmethod
    def _load(cls, folder: Path, id_: str, firsts: list[int]) -> Spool:
        path = folder / f"{id_}.{1:012}.ndjson"
        try:
            line, end, _ = _read_regular(path).partition(b"\n")
            if not end:  # the host ended before anything could run: the id is free again
                path.unlink()
            meta = msgspec.json.decode(line if end else b"", type=Meta)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SpoolError("the first segment cannot be read") from error
        if meta.id != id_:
            raise SpoolError("the file is another execution's")
        spool = cls(folder, meta)
        for first in firsts:
            spool._adopt(first, len(line) + 1 if first == 1 else 0)
        return spool

    def _adopt(self, first: int, start: int) -> None:
        """Take a segment over; a line that was torn by the host's end is cut off."""
        path = self._path(first)
        try:
            data = _read_regular(path)
        except OSError:
            return
        whole = data[start : data.rfind(b"\n") + 1]
        if start + len(whole) < len(data):
            with suppress(OSError):
                os.truncate(path, start + len(whole))
        if self._segments and first != self.last_n + 1:  # what lies between was released
            self.released = first - 1
        self._segments.append(_Segment(first, path, start, whole.count(b"\n"), len(whole)))
        self.last_n = self._segments[-1].last

    def _path(self, first: int) -> Path:
        return self._folder / f"{self.meta.id}.{first:012}.ndjson"

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.start + segment.size for segment in self._segments)

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
        last = self._segments[-1]
        try:
            if last.count == 0:  # an earlier host came to no event in it
                self._file = os.open(last.path, _APPEND)
                return
            segment = _Segment(self.last_n + 1, self._path(self.last_n + 1))
            self._segments.append(segment)
            self._tail = []
            self._file = _create(segment.path)
        except OSError:
            self._broken = True

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
        first, last, end = segment.first, segment.last, segment.start + segment.size
        try:
            data = _read_regular(segment.path, end)
        except OSError as error:
            raise SpoolError("the events are gone from the workspace") from error
        start = segment.start
        for _ in range(after + 1 - first):
            start = data.find(b"\n", start) + 1
        if data.count(b"\n", start) != last - after:
            raise SpoolError("the events were changed in the workspace")
        return data[start:], last

    def release(self, n: int) -> None:
        """Forget events up to and with number `n`, as far as whole segments go; the first and the last one stay."""
        while len(self._segments) > 2 and self._segments[1].last <= n:
            segment = self._segments[1]
            del self._segments[1]
            self.released = segment.last
            with suppress(OSError):
                segment.path.unlink(missing_ok=True)

    def last_line(self) -> bytes:
        """Return the last event, or nothing where there is none; blocks."""
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
        for segment in self._segments:
            with suppress(OSError):
                segment.path.unlink(missing_ok=True)


def _create(path: Path) -> int:
    try:
        return os.open(path, _CREATE, 0o600)
    except FileNotFoundError:  # user code removed the folder
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, _CREATE, 0o600)


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
