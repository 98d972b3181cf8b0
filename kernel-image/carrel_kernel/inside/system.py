"""What a kernel process asks of the system about itself. Linux; elsewhere nothing happens where that is said."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h, as the next
_PR_SET_DUMPABLE: Final = 4
_OOM_SCORE: Final = 100
"""A tenth of the container's memory more than the process has."""
_MAX_OOM_SCORE: Final = 1000
_CLOCK_MONOTONIC: Final = 1  # linux/time.h
_NANOSECONDS: Final = 1_000_000_000
_KIB: Final = frozenset({"VmData", "RssAnon"})


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


def lower_limit(which: int, most: int) -> None:
    """Let this process have at most so much of something, for good; 0 leaves it as it is. Source: setrlimit(2)."""
    if most:
        _, hard = resource.getrlimit(which)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))


def untouched_bytes() -> int:
    """Return what `RLIMIT_DATA` counts of this process though nothing was ever written there, such as most of the
    stacks of threads; 0 when unknown. Source: proc(5), status.
    """
    with suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/self/status").read_text().splitlines()
        kib = {
            name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if name in _KIB
        }
        return max(0, kib["VmData"] - kib["RssAnon"]) * 1024
    return 0


def be_killed_first() -> None:
    """Have the system take this process when the container is out of memory, and not the host. Source: proc(5)."""
    file = Path("/proc/self/oom_score_adj")
    with suppress(OSError, ValueError):
        file.write_text(str(min(_MAX_OOM_SCORE, int(file.read_text()) + _OOM_SCORE)))


def inherit_nothing(kept: int | None = None) -> None:
    """Close every descriptor but the standard ones and one more: the host's and other kernels' are not this one's."""
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  numbers are wanted, and no paths
        if int(name) > 2 and int(name) != kept:
            with suppress(OSError):  # the listing's own is closed by now
                os.close(int(name))


def thread_count() -> int:
    """Return how many threads this process has. Linux; elsewhere a process is never forked, and it is 1."""
    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1  # noqa: PTH208  as above


class Timer:
    """A descriptor that can be read after a while. Source: timerfd_create(2); Linux, see `timer`."""

    def __init__(self, seconds: float) -> None:
        self._library = ctypes.PyDLL(None)  # neither call waits, so no other thread need be let run meanwhile
        self._after = (ctypes.c_long * 4)(0, 0, 0, round(seconds * _NANOSECONDS))
        self._never = (ctypes.c_long * 4)()
        self._descriptor: int = self._library.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError("no timer")

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def start(self) -> None:
        """Begin to wait."""
        self._library.timerfd_settime(self._descriptor, 0, self._after, None)

    def stop(self) -> None:
        """Wait no more; when the time was over, the descriptor cannot be read any more."""
        self._library.timerfd_settime(self._descriptor, 0, self._never, None)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


def timer(seconds: float) -> Timer | None:
    """Return a timer for less than a second, where the system has such."""
    with suppress(OSError, AttributeError):
        return Timer(seconds)
    return None
