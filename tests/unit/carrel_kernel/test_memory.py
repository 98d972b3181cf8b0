"""The reserve of memory: given when a process has hit its limit, taken back when there is room, else the end of it.

The limit is set on a real process; what that process uses is told by the test.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from carrel_kernel import memory
from carrel_kernel.memory import MemoryReserve, reserve_of

MIB = 1024**2
LIMIT = 512 * MIB
RESERVE = 64 * MIB


@pytest.mark.parametrize(("limit", "reserve"), [(0, 0), (64, 8), (128, 16), (512, 64), (4096, 64)])
def test_an_eighth_and_64_mib_at_most(limit: int, reserve: int) -> None:
    assert reserve_of(limit * MIB) == reserve * MIB


@pytest.fixture
def pid() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    resource.prlimit(process.pid, resource.RLIMIT_DATA, (LIMIT - RESERVE, LIMIT))
    yield process.pid
    process.communicate(b"\n")


def soft(pid: int) -> int:
    return resource.prlimit(pid, resource.RLIMIT_DATA)[0]


def uses(monkeypatch: pytest.MonkeyPatch, used: int) -> None:
    monkeypatch.setattr(memory, "data_bytes", lambda _: used)


def test_an_allocation_that_was_too_large_needs_no_reserve(pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    uses(monkeypatch, LIMIT - 2 * RESERVE)
    reserve = MemoryReserve(pid, LIMIT)
    assert reserve.after_memory_error() is True
    assert soft(pid) == LIMIT - RESERVE


def test_given_once_and_taken_back(pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = MemoryReserve(pid, LIMIT)
    uses(monkeypatch, LIMIT - 2 * RESERVE + 1)
    assert reserve.after_memory_error() is True
    assert soft(pid) == LIMIT
    reserve.after_cell()  # it is still needed
    assert soft(pid) == LIMIT
    uses(monkeypatch, LIMIT - RESERVE // 2)
    assert reserve.after_memory_error() is True  # the half of it is left
    uses(monkeypatch, LIMIT - RESERVE // 2 + 1)
    assert reserve.after_memory_error() is False  # the process must go
    uses(monkeypatch, 0)
    reserve.after_cell()
    assert soft(pid) == LIMIT - RESERVE
    uses(monkeypatch, LIMIT)
    assert reserve.after_memory_error() is True  # and anew
    assert soft(pid) == LIMIT


def test_without_a_limit_there_is_nothing_to_do(pid: int) -> None:
    reserve = MemoryReserve(pid, None)
    assert reserve.after_memory_error() is True
    reserve.after_cell()
    assert soft(pid) == LIMIT - RESERVE


def test_a_process_that_is_gone_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    uses(monkeypatch, LIMIT)
    assert MemoryReserve(2**22 + 1, LIMIT).after_memory_error() is True
