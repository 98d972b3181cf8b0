"""Memory and CPU of kernel processes: what they use, from /proc, and how libraries are told of the CPU limit.

`RLIMIT_DATA` itself is set inside the kernel (`inside.child`). Where there is no /proc, use is reported as zero and the
second line of defence (`resident_bytes` above the limit) does not exist.
"""

from __future__ import annotations

import math
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from carrel_kernel.inside.threads import VARIABLES

_PAGE: Final = os.sysconf("SC_PAGESIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_MAX_BYTES: Final = 64 * 1024
"""Of a file of the system that is read; one such call returns it whole."""
_PEAK: Final = b"\nVmHWM:"
_KEPT_FREE_BYTES: Final = 1024**3


def thread_count(cpu_limit: float | None) -> int:
    """Return how many threads numerical libraries may use; all CPUs of this process without a limit."""
    if cpu_limit is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(cpu_limit))


def thread_environment(cpu_limit: float | None) -> dict[str, str]:
    """Return the variables that keep numerical libraries to the CPUs; nothing without a limit."""
    return {} if cpu_limit is None else dict.fromkeys(VARIABLES, str(thread_count(cpu_limit)))


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 when it is gone. Source: proc(5), statm."""
    with suppress(OSError, ValueError, IndexError):
        return int(_contents(f"/proc/{pid}/statm").split()[1]) * _PAGE
    return 0


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process, its share of what others have, too; 0 when it is gone. Source: proc(5), smaps."""
    return field_of(f"/proc/{pid}/smaps_rollup", b"Pss:") * 1024 or resident_bytes(pid)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its ended children; 0 when it is gone. Source: proc(5), stat."""
    with suppress(OSError):
        return _cpu_seconds(_contents(f"/proc/{pid}/stat"))
    return 0.0


def _cpu_seconds(stat: bytes) -> float:
    with suppress(ValueError, IndexError):
        return sum(map(int, stat.rpartition(b")")[2].split(None, 15)[11:15])) / _TICKS
    return 0.0


def data_bytes(pid: int) -> int:
    """Return what `RLIMIT_DATA` counts of a process; 0 when unknown. Source: proc(5), status."""
    return field_of(f"/proc/{pid}/status", b"VmData:") * 1024


class Figures:
    """What one process uses. Its files stay open, for that takes most of the time, and every execution reads them.

    They are never another process's, though one may get the number. Source: proc(5), stat, status and clear_refs.
    """

    def __init__(self, pid: int) -> None:
        self._folder = f"/proc/{pid}"
        self._files: dict[str, int] = {}
        self._closed = False

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process and its ended children; 0 when it is gone."""
        return _cpu_seconds(self._contents("stat"))

    def peak_bytes(self) -> int:
        """Return the largest resident memory since `reset_peak`; 0 when unknown."""
        status = self._contents("status")
        start = status.find(_PEAK)
        with suppress(ValueError):
            return int(status[start + len(_PEAK) : status.index(b"kB", start)]) * 1024 if start >= 0 else 0
        return 0

    def reset_peak(self) -> None:
        """Let `peak_bytes` begin anew."""
        with suppress(OSError):
            os.write(self._file("clear_refs", os.O_WRONLY), b"5")

    def close(self) -> None:
        """Read nothing any more."""
        self._closed = True
        while self._files:
            os.close(self._files.popitem()[1])

    def _contents(self, name: str) -> bytes:
        with suppress(OSError):
            return os.pread(self._file(name, os.O_RDONLY), _MAX_BYTES, 0)
        return b""

    def _file(self, name: str, mode: int) -> int:
        found = self._files.get(name)
        if found is None:
            if self._closed:
                raise ProcessLookupError
            found = self._files[name] = os.open(f"{self._folder}/{name}", mode)
        return found


def field_of(file: Path | str, name: bytes) -> int:
    """Return a number of a file with a name and a number in each line; 0 when it is not there."""
    with suppress(OSError, ValueError):
        for line in _contents(file).splitlines():
            if line.startswith(name):
                match line.split():
                    case [first, value, *_] if first == name:
                        return int(value)
                    case _:
                        continue
    return 0


def _contents(file: Path | str) -> bytes:
    """Return a short file of the system, in the three calls that it takes: every execution reads several.

    Raises
    ------
    OSError
    """
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)


def disk_nearly_full(folder: Path) -> bool:
    """Whether the disk is filled to 90 %, or to the last GiB of a large one."""
    with suppress(OSError):
        usage = shutil.disk_usage(folder)
        return usage.free < min(usage.total // 10, _KEPT_FREE_BYTES)
    return False
