"""The memory of the container as a whole: used up, the system kills a process of it, or all of them.

All, the kernel host too, is what the kubelet decides on cgroup v2 (`memory.oom.group`). So the host looks itself, and
ends the kernel that uses most before the system does. Reads cgroup v2, and v1 where there is no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from carrel_kernel.limits import field_of

ROOT: Final = Path("/sys/fs/cgroup")
POLL_SECONDS: Final = 0.2
_SETTLE_SECONDS: Final = 1.0
"""The system takes so long to free what a killed process held."""
_MIN_MARGIN_BYTES: Final = 8 * 1024 * 1024
_OF_FILES: Final = (b"active_file", b"inactive_file")
_NO_LIMIT: Final = 2**60  # v1 says so with a very large number


class ContainerMemory:
    """What the control group of this container says."""

    def __init__(self, root: Path = ROOT) -> None:
        self._v2 = (root / "cgroup.controllers").exists()
        self._folder = root if self._v2 else root / "memory"

    def limit_bytes(self) -> int | None:
        """Return the container's limit; none without one."""
        limit = _number(self._folder / ("memory.max" if self._v2 else "memory.limit_in_bytes"))
        return limit if 0 < limit < _NO_LIMIT else None

    def used_bytes(self) -> int:
        """Return what is in use, without the contents of files, which the system drops when it needs room."""
        used = _number(self._folder / ("memory.current" if self._v2 else "memory.usage_in_bytes"))
        whole = b"" if self._v2 else b"total_"
        return used - sum(field_of(self._folder / "memory.stat", whole + kind) for kind in _OF_FILES)

    def kills(self) -> int:
        """Return how many processes of the container the system has killed for memory."""
        return field_of(self._folder / ("memory.events" if self._v2 else "memory.oom_control"), b"oom_kill")

    def nearly_full(self) -> bool:
        """Whether a fiftieth of the container's memory is left, or 8 MiB of a small one."""
        limit = self.limit_bytes()
        return limit is not None and self.used_bytes() > limit - max(limit // 50, _MIN_MARGIN_BYTES)


async def watch(container: ContainerMemory, relieve: Callable[[int], None]) -> None:
    """Call `relieve` with the limit whenever the container is nearly full. Ends at once where there is no limit."""
    while (limit := container.limit_bytes()) is not None:
        await asyncio.sleep(POLL_SECONDS)
        if container.nearly_full():
            relieve(limit)
            await asyncio.sleep(_SETTLE_SECONDS)


def _number(file: Path) -> int:
    try:
        return int(file.read_bytes())
    except (OSError, ValueError):  # `max` is no number either
        return 0
