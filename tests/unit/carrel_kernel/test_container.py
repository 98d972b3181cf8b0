"""The container's memory, from files as the system writes them, in both versions of control groups.

Plan
- Limit, use without what can be dropped, kills; no limit; no files.
- Nearly full: a fiftieth, or 8 MiB of a small one; watching calls at once, and ends where there is nothing to watch.
What it is for is tried with a real control group in tests/integration/kernel/test_limits.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from carrel_kernel import container as container_module
from carrel_kernel.container import ContainerMemory, watch

MIB = 1024**2
GIB = 1024**3


def written(root: Path, version: int, *, limit: int | None, used: int = 0, cache: int = 0, kills: int = 0) -> None:
    if version == 2:
        files = {
            "cgroup.controllers": "cpu memory",
            "memory.max": "max" if limit is None else str(limit),
            "memory.current": str(used),
            "memory.stat": f"anon 5\ninactive_file {cache - 7}\nactive_file 7\n",
            "memory.events": f"low 0\noom 9\noom_kill {kills}\n",
        }
    else:
        files = {
            "memory/memory.limit_in_bytes": str(2**63 - 4096 if limit is None else limit),
            "memory/memory.usage_in_bytes": str(used),
            "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {cache - 7}\ntotal_active_file 7\n",
            "memory/memory.oom_control": f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n",
        }
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text + "\n")


@pytest.mark.parametrize("version", [1, 2])
def test_what_the_system_says(tmp_path: Path, version: int) -> None:
    written(tmp_path, version, limit=GIB, used=900 * MIB, cache=100 * MIB, kills=3)
    found = ContainerMemory(tmp_path)
    assert (found.limit_bytes(), found.used_bytes(), found.kills()) == (GIB, 800 * MIB, 3)
    written(tmp_path, version, limit=None, used=900 * MIB)
    assert found.limit_bytes() is None
    assert not found.nearly_full()


def test_nothing_is_there(tmp_path: Path) -> None:
    found = ContainerMemory(tmp_path)
    assert (found.limit_bytes(), found.used_bytes(), found.kills(), found.nearly_full()) == (None, 0, 0, False)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("limit", "free", "full"),
    [
        (10 * GIB, 10 * GIB // 50, False),
        (10 * GIB, 10 * GIB // 50 - 1, True),
        (128 * MIB, 8 * MIB, False),
        (128 * MIB, 8 * MIB - 1, True),
    ],
)
def test_nearly_full(tmp_path: Path, version: int, limit: int, free: int, full: bool) -> None:
    written(tmp_path, version, limit=limit, used=limit - free + 9, cache=9)
    assert ContainerMemory(tmp_path).nearly_full() is full


async def test_watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_module, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(container_module, "_SETTLE_SECONDS", 0.001)
    limits: asyncio.Queue[int] = asyncio.Queue()
    await watch(ContainerMemory(tmp_path), limits.put_nowait)  # no limit: it ends
    assert limits.empty()
    written(tmp_path, 2, limit=GIB, used=GIB)
    watching = asyncio.create_task(watch(ContainerMemory(tmp_path), limits.put_nowait))
    async with asyncio.timeout(10):
        assert await limits.get() == GIB
        assert await limits.get() == GIB  # again while nothing has changed
    written(tmp_path, 2, limit=None)
    async with asyncio.timeout(10):
        await watching
