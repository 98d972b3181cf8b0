"""The processes below one, with real ones.

Plan
- Children, their children, and those that left the group or lost their parent are found, once one has looked.
- CPU and memory of all count; pages that several share count once; what is gone counts nothing.
- The end: what was seen is killed, and never another process of the same id, nor what was not below.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from carrel_kernel import family as family_module
from carrel_kernel.family import Family, below

MIB = 1024**2
GONE = 2**22 + 1  # above the largest process id
SLEEP = "import time; time.sleep(100)"


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has written a line, which is over when the block ends, and its group, too."""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as it:
        try:
            yield it
        finally:
            with suppress(ProcessLookupError):
                os.killpg(it.pid, signal.SIGKILL)


def lines(it: subprocess.Popen[str], count: int) -> list[int]:
    assert it.stdout
    return [int(it.stdout.readline()) for _ in range(count)]


def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


NEST = f"""
import os, subprocess, sys, threading, time
print(subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=True).pid, flush=True)
printed = threading.Event()
def other():
    print(subprocess.Popen([sys.executable, "-c", {SLEEP!r}]).pid, flush=True)
    printed.set()
    time.sleep(100)  # a child is its thread's as long as that lives
threading.Thread(target=other).start()
printed.wait()
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.read(read, 1)
    else:
        os.wait()
    os._exit(0)
time.sleep(100)
"""


def test_all_below_are_found_and_end_with_it() -> None:
    with process(NEST) as it:
        found = lines(it, 3)
        family = Family(it.pid)
        assert family.members == [it.pid]
        family.look()
        assert set(found) < set(family.members)
        assert len(family.members) == 5  # the one between two of them, too
        it.kill()
        it.wait()
        assert all(map(alive, found))  # they have no parent now
        family.end()
        until(lambda: not any(map(alive, found)))


def test_what_was_not_seen_or_is_another_is_let_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with process(f"print(0, flush=True); {SLEEP}") as other:
        lines(other, 1)
        family = Family(GONE)
        family._seen = {other.pid: 1}  # an earlier process of that id
        family.end()
        assert other.poll() is None
        monkeypatch.setattr(family_module, "_began", lambda _: 0)
        family._seen = {other.pid: 0}
        family.end()
        assert other.poll() is None


def test_the_id_of_one_that_is_gone_has_no_children_to_kill() -> None:
    with process(NEST) as it:
        found = lines(it, 3)
        family = Family(it.pid)
        family._began += 1  # as if the id were another process's now
        family.end()
        assert family.members == [it.pid]
        assert all(map(alive, found))


BURN = "import os, time\nprint(os.getpid(), flush=True)\nwhile time.process_time() < {}: pass\n{}"


def test_cpu_of_children_counts_while_they_run_and_afterwards() -> None:
    burn = BURN.format(0.5, SLEEP)
    wait = "import subprocess, sys\n" + f"child = subprocess.Popen([sys.executable, '-c', {burn!r}])\ninput()\n"
    wait += "child.kill(); child.wait(); print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        lines(it, 1)
        family = Family(it.pid)

        def burnt() -> bool:
            family.look()
            return family.cpu_seconds() >= 0.5

        until(burnt)
        assert it.stdin
        it.stdin.write("\n")
        it.stdin.flush()
        lines(it, 1)  # it has been waited for: what it used is its parent's
        family.look()
        assert family.members == [it.pid]
        assert family.cpu_seconds() >= 0.5
        it.stdin.close()


def test_shared_memory_counts_once() -> None:
    code = (
        "import os, time\ndata = bytearray(b'x' * (100 << 20))\n"
        "for _ in range(3):\n    if os.fork() == 0:\n        os.write(1, b'%d\\n' % os.getpid()); time.sleep(100)\n"
        "own = bytearray(b'y' * (50 << 20)); os.write(1, b'%d\\n' % os.getpid()); time.sleep(100)"
    )
    with process(code) as it:
        lines(it, 4)
        assert 150 * MIB < Family(it.pid).memory_bytes() < 250 * MIB


def test_a_process_alone() -> None:
    assert Family(os.getpid()).memory_bytes() > MIB
    gone = Family(GONE)
    assert (gone.memory_bytes(), gone.cpu_seconds(), below(GONE)) == (0, None, [])
    gone.end()


def test_there_is_an_end_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family_module, "_children", lambda pid: [pid + 1, pid + 2])  # endless
    assert 512 <= len(below(1)) <= 514
