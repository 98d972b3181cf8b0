"""What a kernel process asks of the system about itself. Linux; elsewhere nothing happens where that is said."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h, as the next
_PR_SET_DUMPABLE: Final = 4


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def die_with(parent: int) -> None:
    """End this process when its parent ends, however that happens; elsewhere only when it has ended already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def let_memory_be_read(allowed: bool) -> None:
    """Decide whether other processes of the same user may read this one's memory. Source: prctl(2), ptrace(2)."""
    _prctl(_PR_SET_DUMPABLE, int(allowed))


def inherit_nothing(kept: int | None = None) -> None:
    """Close every descriptor but the standard ones and one more: the host's and other kernels' are not this one's."""
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  numbers are wanted, and no paths
        if int(name) > 2 and int(name) != kept:
            with suppress(OSError):  # the listing's own is closed by now
                os.close(int(name))


def thread_count() -> int:
    """Return how many threads this process has. Linux; elsewhere a process is never forked, and it is 1."""
    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1  # noqa: PTH208  as above
