"""Reaping, as process 1 must: ended orphans are taken, and not the kernels, whose exit codes others wait for.

Runs in a process of its own, because it takes whatever ended children there are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import carrel_kernel

SCRIPT = """
import os, subprocess, sys
from carrel_kernel.process import reap

def ends_with(code):
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its code is still there
    return process

orphans = [ends_with(3), ends_with(4)]
running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
reap({running.pid})
kernel = ends_with(5)
reap({running.pid, kernel.pid})
for process in orphans:
    try:
        os.waitpid(process.pid, 0)
    except ChildProcessError:
        process.returncode = 0
        print("taken")
running.communicate(b"\\n")
print(kernel.wait(), running.returncode)
reap(set())
"""


def test_orphans_are_taken_and_kernels_are_not() -> None:
    root = Path(carrel_kernel.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root)},
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["taken", "taken", "5", "0"]
