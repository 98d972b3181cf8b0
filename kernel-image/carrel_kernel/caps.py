"""How much output goes out: limits of a message, of an execution and of the session, and a file for what is beyond.

Counts only; what an output is, and in which order outputs go, is `outputs`' business.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from carrel_wire.events import Truncated, TruncationReason

EVENT_BYTES: Final = 64
"""What an event costs beside its content, so that a million empty ones count too."""
CHECK_BYTES: Final = 1024 * 1024
"""After so much has been written, the disk is looked at again. So much of every execution goes out on a full one, too:
nobody could see what fills it otherwise."""


@dataclass(frozen=True)
class Caps:
    """The limits of each execution's output, in bytes."""

    message_bytes: int
    execution_bytes: int
    overflow_bytes: int


@dataclass
class Allowance:
    """What all executions of a session together may still put out."""

    limit_bytes: int
    used_bytes: int = 0

    @property
    def room(self) -> int:
        """Bytes that are left."""
        return max(0, self.limit_bytes - self.used_bytes)


@dataclass
class Meter:
    """What of one execution's output goes out, and how much does not and why."""

    caps: Caps
    session: Allowance
    bytes_out: int = 0
    """Bytes of content that the code put out, delivered or not."""
    omitted_bytes: int = 0
    reason: TruncationReason | None = None
    """The widest limit that was met."""
    _used: int = field(default=0, repr=False)

    @property
    def closed(self) -> bool:
        """Whether nothing goes out any more: after the first output without room, there is none for smaller ones."""
        return self.reason not in (None, "message")

    @property
    def room(self) -> int:
        """Bytes of content that an event may have."""
        return min(self.caps.execution_bytes - self._used, self.session.room) - EVENT_BYTES

    def spend(self, size: int, *, lossy: bool = False) -> bool:
        """Count an output of so many bytes and return whether it may go out; `lossy` is a disk that takes no events."""
        self.bytes_out += size
        if not self.closed and (lossy or size > self.room):
            self.close("disk" if lossy else None)
        if self.closed:
            self.omitted_bytes += max(size, 1)
            return False
        self._used += size + EVENT_BYTES
        self.session.used_bytes += size + EVENT_BYTES
        return True

    def close(self, reason: TruncationReason | None = None) -> None:
        """Let nothing out any more; without a reason it is the limit that has less room."""
        if reason is None:
            reason = "session" if self.session.room < self.caps.execution_bytes - self._used else "execution"
        self.reason = reason

    def leave_out(self, size: int) -> None:
        """Count what is left out of a message that is too large by itself."""
        self.bytes_out += size
        self.omitted_bytes += size
        self.reason = self.reason or "message"

    def tell(self, n: int, path: str | None) -> Truncated | None:
        """Return the event that says what was left out, if anything was."""
        if self.reason is None:
            return None
        limits: dict[TruncationReason, int] = {
            "message": self.caps.message_bytes,
            "execution": self.caps.execution_bytes,
            "session": self.session.limit_bytes,
            "disk": 0,
        }
        return Truncated(
            n=n,
            omitted_bytes=self.omitted_bytes,
            limit_bytes=limits[self.reason],
            reason=self.reason,
            path=path,
        )


class DiskWatch:
    """Whether the disk takes more: looked at each time so much has been written."""

    def __init__(self, may_write: Callable[[], bool], *, free_bytes: int) -> None:
        self._may_write = may_write
        self._unchecked = free_bytes
        self._full = False

    def allows(self, size: int) -> bool:
        """Whether so many bytes more may be written."""
        self._unchecked -= size
        if self._unchecked < 0:
            self._unchecked = CHECK_BYTES
            self._full = not self._may_write()
        return not self._full


class Overflow:
    """The file for output over a limit, made when first needed. A full disk makes it shorter, and is no error."""

    def __init__(self, path: Path | str, limit_bytes: int, may_write: Callable[[], bool]) -> None:
        self._path = path
        self._room = limit_bytes
        self._disk = DiskWatch(may_write, free_bytes=0)
        self._file: int | None = None
        self._failed = False

    def write(self, data: bytes) -> None:
        """Append data, as far as there is room."""
        data = data[: self._room]
        self._room -= len(data)
        if data and not self._failed:
            self._failed = not (self._disk.allows(len(data)) and self._append(data))

    def _append(self, data: bytes) -> bool:
        try:
            if self._file is None:
                self._file = self._open()
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            return False
        return True

    def _open(self) -> int:
        path = Path(self._path)  # only now: most executions have none
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)

    def close(self) -> bool:
        """Close the file; whether there is one."""
        if self._file is None:
            return False
        os.close(self._file)
        self._file = None
        return True
