"""Surroundings of a host under test that are smaller than the machine: a disk, and a control group for its memory.

Each is the beginning of a command, which puts what follows it there and becomes it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def small_disk(folder: Path, mib: int) -> list[str]:
    """Return what gives a command a small disk of its own in place of a folder."""
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    mounted = f'mount -t tmpfs -o size={mib}m none "$0" && exec "$@"'
    return ["unshare", *rights, "--mount", "sh", "-c", mounted, str(folder)]


@contextmanager
def container_memory(mib: int) -> Iterator[list[str] | None]:
    """Give what lets a command have so much memory, as a container has, and see no other control group.

    None where no control group can be made: without root, or where another one manages the memory.
    """
    v2 = (CGROUP / "cgroup.controllers").exists()
    parent = CGROUP if v2 else CGROUP / "memory"
    group = parent / f"carrel-test-{uuid.uuid4().hex[:8]}"
    limit = group / ("memory.max" if v2 else "memory.limit_in_bytes")
    try:
        group.mkdir()
        limit.write_text(str(mib * 1024**2))
    except OSError:
        with suppress(OSError):
            group.rmdir()
        yield None
        return
    entered = f'echo $$ > "$0/cgroup.procs" && mount --bind "$0" {parent} && exec "$@"'
    try:
        yield ["unshare", "--mount", "sh", "-c", entered, str(group)]
    finally:
        _leave(group, parent)


def _leave(group: Path, parent: Path) -> None:
    """Remove the group; what still ends in it is moved out of it first."""
    for _ in range(100):
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (parent / "cgroup.procs").write_text(pid)
        try:
            group.rmdir()
        except OSError:
            continue
        return
