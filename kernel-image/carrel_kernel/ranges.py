"""Parts of a file by HTTP: which one a request asks for, and the validator that tells one content from another. Pure.

One range only: of several, as of a header that makes no sense, the whole file is the answer, as RFC 9110 (14.2) allows.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from carrel_kernel.errors import RangeNotSatisfiable

_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True)
class Part:
    """Bytes of a file: the first one's place, how many, and of how many."""

    start: int
    length: int
    size: int

    @property
    def content_range(self) -> str:
        """Value of the `Content-Range` header."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{self.size}"


def etag_of(status: os.stat_result) -> str:
    """Return a validator of a file's content.

    Of inode, size and time of the last change of any kind, which code cannot set: a file that was written anew has
    another one. Two writes within one tick of the system's clock, a few ms, cannot be told apart.
    """
    return f'"{status.st_ino:x}-{status.st_size:x}-{status.st_ctime_ns:x}"'


def part_of(header: str | None, if_range: str | None, *, size: int, etag: str) -> Part | None:
    """Return the part that `Range` asks for, and nothing when the answer is the whole file.

    Raises
    ------
    RangeNotSatisfiable
        It begins behind the file's end.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not any(found.groups()) or (if_range is not None and if_range.strip() != etag):
        return None
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        if last and int(last) < start:
            return None
    else:  # the last so many bytes
        start, end = max(0, size - int(last)), size - 1
    if start > end:
        raise RangeNotSatisfiable(size)
    return Part(start, end - start + 1, size)
