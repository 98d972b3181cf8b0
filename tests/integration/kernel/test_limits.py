"""What a kernel may use, against the real host: each limit has its outcome, and the host and the kernel outlive it.

Plan
- Memory: processes below the kernel count; the container's memory, in a control group of its own: a kernel that fills
  it is ended before the system does, and one that the system ends is an outcome, too.
- Open files, sizes of files, processes: code gets an error and the kernel lives; a fork bomb leaves the host answering
  and a restart ends all of it.
- What is left below a kernel ends with it, wherever it went.
- The account of an execution: wall and CPU time, with children, ended or not; peak memory of this one, not of those
  before; bytes. As root and as a user without rights.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.integration.kernel.host import Host, until
from tests.integration.kernel.surroundings import container_memory

from carrel_wire.events import Error, Finished

MIB = 1024**2


async def usable(host: Host) -> None:
    assert await host.text("print(6 * 7)") == "42\n"


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


HOG = (
    "import mmap, time\nmemory = mmap.mmap(-1, {mib} << 20)\n"
    "for at in range(0, len(memory), 4096): memory[at] = 1\ntime.sleep(100)"
)


async def test_memory_of_processes_below_the_kernel_counts(tmp_path: Path) -> None:
    child = HOG.format(mib=150)
    spawn = f"import subprocess, sys\nall = [subprocess.Popen([sys.executable, '-c', {child!r}]) for _ in range(3)]\n"
    async with Host.running(tmp_path) as host:
        await host.bind(memory_limit_bytes=400 * MIB)
        await host.run("kept = 1")
        finished = await host.outcome(spawn + "for one in all: one.wait()", timeout_seconds=60)
        assert (finished.status, finished.lost_state) == ("out_of_memory", True)
        assert finished.peak_memory_bytes
        assert finished.peak_memory_bytes > 400 * MIB
        await usable(host)


async def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    code = (
        "import os, time\ndata = bytearray(b'x') * (200 << 20)\nchildren = []\n"
        "for _ in range(4):\n    pid = os.fork()\n    if pid == 0:\n        time.sleep(2.5)\n        os._exit(0)\n"
        "    children.append(pid)\nfor pid in children: os.waitpid(pid, 0)"
    )
    async with Host.running(tmp_path) as host:
        await host.bind(memory_limit_bytes=500 * MIB)
        finished = await host.outcome(code)
        assert finished.status == "ok"
        assert finished.peak_memory_bytes
        assert 200 * MIB < finished.peak_memory_bytes < 500 * MIB


CREEP = """
import time
from pathlib import Path
used = Path('/sys/fs/cgroup/memory.current')
used = used if used.exists() else Path('/sys/fs/cgroup/memory/memory.usage_in_bytes')
hog = []
while True:
    hog.append(b'x' * (1 << 20))
    if int(used.read_text()) > 580 << 20:
        time.sleep(0.5)
"""
"""It leaves the host seconds to see that the container is nearly full."""


@pytest.mark.parametrize(
    ("code", "in_time"),
    [(CREEP, True), ("b'x' * (1000 << 20)", False)],
    ids=["the host is in time", "the system is faster"],
)
async def test_a_kernel_that_fills_the_container_is_an_outcome(tmp_path: Path, code: str, in_time: bool) -> None:
    with container_memory(600) as within:
        if within is None:
            pytest.skip("no control group can be made here")
        async with Host.running(tmp_path, within=within) as host:
            await host.bind()
            finished = await host.outcome(code, timeout_seconds=60)
            assert (finished.status, finished.lost_state) == ("out_of_memory", True)
            assert finished.message
            assert "what runs in the container used up its 600 MiB" in finished.message
            assert "container_nearly_out_of_memory" in host.log.read_text() or not in_time
            await usable(host)


async def test_too_many_open_files_are_an_error_of_the_code(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--max-open-files=256") as host:
        await host.bind()
        events = await host.run("files = []\nwhile True: files.append(open('/dev/null'))")
        (error,) = (event for event in events if isinstance(event, Error))
        assert (error.name, error.value.split("]")[0]) == ("OSError", "[Errno 24")
        assert await host.text("count = len(files); del files; print(100 < count < 224)") == "True\n"
        assert await host.text("import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))") == "(224, 256)\n"


async def test_a_file_that_grows_too_large_is_an_error_of_the_code(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--max-file-bytes=1000000") as host:
        await host.bind()
        events = await host.run("open('large', 'wb').write(bytes(2_000_000))")
        assert [event.value for event in events if isinstance(event, Error)] == ["[Errno 27] File too large"]
        assert (host.workspace / "large").stat().st_size == 1_000_000
        await usable(host)


@pytest.fixture
async def crowded(open_folder: Path) -> AsyncIterator[Host]:
    """A host whose user has few processes, and that user alone: the system counts them by user."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a host as another user")
    async with Host.running(open_folder, "--max-processes=150", user=100_000 + os.getpid()) as host:
        await host.bind()
        yield host


BOMB = """
import os, time
open('lit', 'w').close()
while True:
    try: os.fork()
    except OSError: open('full', 'w').close()
    time.sleep(0.05)
"""


async def test_a_fork_bomb_leaves_the_host_answering_and_ends_with_a_restart(crowded: Host) -> None:
    host = crowded
    assert host.user
    await host.run("kept = 1")
    before = processes_of(host.user)
    bomb = asyncio.create_task(host.run(BOMB, execution="bomb"))
    await until((host.workspace / "full").exists)
    assert len(processes_of(host.user)) > len(before) + 50
    for _ in range(10):
        async with asyncio.timeout(10):
            assert (await host.main())["current_execution"] == "bomb"
    async with asyncio.timeout(60):
        await host.call("POST", "/v1/kernels/main/restart")
    finished = (await bomb)[-1]
    assert isinstance(finished, Finished)
    assert (finished.status, finished.lost_state) == ("kernel_died", True)
    await until(lambda: len(processes_of(host.user or 0)) <= len(before) + 2)  # a kernel for the next one
    await usable(host)


def processes_of(user: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == user and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


async def test_what_is_left_below_a_kernel_ends_with_it(host: Host) -> None:
    code = (
        "import subprocess, sys\nsleep = [sys.executable, '-c', 'import time; time.sleep(1000)']\n"
        "print(subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid)"
    )
    pids = [int(pid) for pid in (await host.text(code)).split()]
    assert all(map(alive, pids))
    await host.call("POST", "/v1/kernels/main/restart")
    await until(lambda: not any(map(alive, pids)))


BURN = """
import subprocess, sys
burn = 'import time\\nwhile time.process_time() < {seconds}: pass'
child = subprocess.Popen([sys.executable, '-c', burn])
"""
UNTIL_BURNT = "while int(open(f'/proc/{child.pid}/stat').read().split()[13]) < 50: time.sleep(0.01)"
"""Ticks of the clock, of which there are a hundred in a second."""


async def check_account(host: Host) -> None:
    idle = await host.outcome("import time; time.sleep(0.5)")
    assert 0.4 <= idle.wall_seconds < 60  # it counts from the moment in which the host sees that the kernel began
    assert idle.cpu_seconds is not None
    assert idle.cpu_seconds < 0.4
    busy = await host.outcome("start = time.process_time()\nwhile time.process_time() < start + 0.5: pass")
    assert busy.cpu_seconds is not None
    assert 0.48 <= busy.cpu_seconds <= busy.wall_seconds + 0.1  # the system counts in hundredths
    ended = await host.outcome(BURN.format(seconds=0.5) + "child.wait()")
    assert ended.cpu_seconds is not None
    assert ended.cpu_seconds >= 0.48
    running = await host.outcome(BURN.format(seconds=50) + UNTIL_BURNT)
    assert running.cpu_seconds is not None
    assert 0.48 <= running.cpu_seconds < 20
    await host.run("child.kill(); child.wait()")
    large = await host.outcome("hog = bytearray(b'x' * (200 << 20)); del hog")
    small = await host.outcome("1")
    assert large.peak_memory_bytes
    assert small.peak_memory_bytes
    assert large.peak_memory_bytes > small.peak_memory_bytes + 190 * MIB
    assert (await host.outcome("print('x' * 1000)")).bytes_out == 1001


async def test_an_execution_is_accounted_for(host: Host) -> None:
    await check_account(host)


async def test_an_execution_of_a_user_without_rights_is_accounted_for(unprivileged: Host) -> None:
    await check_account(unprivileged)
