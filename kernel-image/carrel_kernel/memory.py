"""The memory limit of a kernel process, and the reserve that keeps it usable after it has hit the limit.

The soft limit of `RLIMIT_DATA` lies a reserve below the hard one, which is the session's and what the kernel had mapped
without touching it when it became one (`inside.app`): the system counts that, too. A cell that fails for want of
memory leaves its objects behind, and nothing could run beside them, not even what would tell of it or delete them. So
the kernel then takes the reserve (`inside.child`); the host gives it where the kernel could not, takes it back when
memory is free again, and has the process replaced when the reserve is used up too.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

from carrel_kernel.limits import data_bytes

_MIB: Final = 1024 * 1024
_MAX_RESERVE: Final = 64 * _MIB


def reserve_of(limit_bytes: int) -> int:
    """Return the reserve of a limit: an eighth, 64 MiB at most."""
    return min(_MAX_RESERVE, limit_bytes // 8)


class MemoryReserve:
    """The reserve of one process."""

    def __init__(self, pid: int, limit_bytes: int | None) -> None:
        self._pid = pid
        self._reserve = None if limit_bytes is None else reserve_of(limit_bytes)
        self._given = False

    def after_memory_error(self) -> bool:
        """Give the reserve when memory is used up; false when that did not help and the process must be replaced."""
        reserve, limit = self._reserve, self._limit()
        if reserve is None or limit is None:
            return True
        used = data_bytes(self._pid)
        if used <= limit - 2 * reserve:
            return True  # one allocation was too large; there is room beside it
        if not self._given:
            self._given = True
            self._set(limit, limit)
            return True
        return used <= limit - reserve // 2

    def after_cell(self) -> None:
        """Take the reserve back when it is not needed any more."""
        if self._given and self._reserve is not None:
            limit = self._limit()
            if limit is not None and data_bytes(self._pid) <= limit - 2 * self._reserve:
                self._given = False
                self._set(limit - self._reserve, limit)

    def _limit(self) -> int | None:
        """Return the hard limit, which the kernel has set: the session's, and what it had mapped and not touched."""
        with suppress(OSError):
            return resource.prlimit(self._pid, resource.RLIMIT_DATA)[1]
        return None  # it has ended

    def _set(self, soft: int, hard: int) -> None:
        with suppress(OSError, ValueError):  # it has ended, or took rights away from itself
            resource.prlimit(self._pid, resource.RLIMIT_DATA, (soft, hard))
