"""What is measured of processes and disks, read from the real /proc, and zero where there is nothing to read."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from carrel_kernel import limits

MIB = 1024**2
GONE = 2**22 + 1  # above the largest process id


def test_this_process() -> None:
    pid = os.getpid()
    figures = limits.Figures(pid)
    figures.reset_peak()
    before = limits.resident_bytes(pid)
    with mmap.mmap(-1, 64 * MIB) as memory:
        memory.write(b"x" * len(memory))
        assert limits.resident_bytes(pid) >= before + 60 * MIB
    assert figures.peak_bytes() >= before + 60 * MIB
    figures.reset_peak()
    assert figures.peak_bytes() < before + 60 * MIB
    assert limits.data_bytes(pid) > MIB
    used = limits.cpu_seconds(pid)
    while limits.cpu_seconds(pid) == used:  # a tick of the clock is a hundredth of a second
        sum(range(100_000))
    assert 0 < limits.cpu_seconds(pid) - used < 60
    assert used < figures.cpu_seconds() <= limits.cpu_seconds(pid)
    figures.close()
    assert figures.cpu_seconds() == figures.peak_bytes() == 0
    figures.reset_peak()


def test_ended_children_count() -> None:
    before = limits.cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert limits.cpu_seconds(os.getpid()) > before


def test_a_process_that_is_gone_uses_nothing() -> None:
    assert limits.resident_bytes(GONE) == limits.data_bytes(GONE) == 0
    assert limits.proportional_bytes(GONE) == 0
    assert limits.cpu_seconds(GONE) == 0.0


def test_open_figures_of_a_process_that_ends_are_no_others() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        figures = limits.Figures(process.pid)
        while not figures.peak_bytes():
            pass
        process.kill()
    assert figures.cpu_seconds() == figures.peak_bytes() == 0
    figures.reset_peak()
    figures.close()
    gone = limits.Figures(GONE)
    assert gone.cpu_seconds() == gone.peak_bytes() == 0
    gone.reset_peak()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("low 0\noom 3\noom_kill 4\noom_group_kill 5\n", 4),
        ("oom 3\n", 0),
        ("", 0),
        ("oom_kill\n", 0),
        ("oom_kill many\n", 0),
    ],
)
def test_a_number_of_a_file(tmp_path: Path, text: str, value: int) -> None:
    (tmp_path / "file").write_text(text)
    assert limits.field_of(tmp_path / "file", b"oom_kill") == value
    assert limits.field_of(tmp_path / "none", b"oom_kill") == 0


@pytest.mark.parametrize(("cpu", "threads"), [(None, None), (0.1, "1"), (1, "1"), (1.5, "2"), (8, "8")])
def test_threads_of_libraries(cpu: float | None, threads: str | None) -> None:
    found = limits.thread_environment(cpu)
    assert set(found.values()) == ({threads} if threads else set())
    if threads:
        assert {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"} <= set(found)


@pytest.mark.parametrize(
    ("total", "free", "full"),
    [
        (10 * MIB, MIB, False),
        (10 * MIB, MIB - 1, True),
        (1024**4, 1024**3, False),
        (1024**4, 1024**3 - 1, True),
        (0, 0, False),
    ],
)
def test_a_disk_is_nearly_full(monkeypatch: pytest.MonkeyPatch, total: int, free: int, full: bool) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=total, free=free))
    assert limits.disk_nearly_full(Path("/")) is full


def test_a_disk_that_is_not_there_is_not_full(tmp_path: Path) -> None:
    assert limits.disk_nearly_full(tmp_path / "none") is False
