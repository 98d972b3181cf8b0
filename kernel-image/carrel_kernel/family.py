"""The processes below a kernel: what they use together, and their end with it. From /proc; elsewhere there are none.

A process that has been seen below a kernel stays its relative when its parent ends or it leaves the kernel's group; one
that nobody has looked at in between does not.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from carrel_kernel import limits

_MAX_MEMBERS: Final = 512
"""More are not counted; there are limits of their own for processes."""


class Family:
    """A kernel's process and those below it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.own = limits.Figures(pid)
        """Of the kernel's process alone."""
        self._began = _began(pid)
        self._seen: dict[int, int] = {}
        """Process id → when it began, which tells it from a later one of the same id."""

    def look(self) -> None:
        """Find out which processes there are. Blocks shortly."""
        known = [pid for pid, began in self._seen.items() if _began(pid) == began]
        parents = [self.pid, *known] if _began(self.pid) == self._began else known
        found = {pid: _began(pid) for pid in (*known, *below(*parents))}
        self._seen = {pid: began for pid, began in list(found.items())[:_MAX_MEMBERS] if began}

    @property
    def members(self) -> list[int]:
        """Process ids as of the last look, the kernel's first."""
        return [self.pid, *self._seen]

    def cpu_seconds(self) -> float | None:
        """Return the CPU time of all, with that of children that have ended; none when the kernel's process is gone."""
        own = self.own.cpu_seconds()
        return own + sum(map(limits.cpu_seconds, self._seen)) if own else None

    def memory_bytes(self) -> int:
        """Return the memory of all, where each page counts once however many share it. Blocks.

        Reading that of processes with much memory takes milliseconds for each gigabyte; a kernel without children is
        not read so, and pages that it shares with other kernels count in full.
        """
        self.look()
        if not self._seen:
            return limits.resident_bytes(self.pid)
        return sum(map(limits.proportional_bytes, self.members))

    def end(self) -> None:
        """Kill what was seen below the kernel, which has ended itself. Blocks shortly."""
        self.look()
        for pid, began in self._seen.items():
            if _began(pid) == began:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        self.own.close()


def below(*pids: int) -> list[int]:
    """Return the processes below some, as many as there may be. Source: proc(5), children."""
    found: list[int] = []
    waiting = list(pids)
    while waiting and len(found) < _MAX_MEMBERS:
        children = _children(waiting.pop())
        found.extend(children)
        waiting.extend(children)
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError, ValueError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError, ValueError):
                found.extend(map(int, (thread / "children").read_bytes().split()))
    return found


def _began(pid: int) -> int:
    """Return when a process began, in ticks since the system did; 0 when it is gone. Source: proc(5), stat."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    return 0
