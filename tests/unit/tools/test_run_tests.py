"""Two test runs beside each other.

Plan: what the second prints comes whole after all of the first, also when it printed before; a failure of either is
one; both keep bytecode; SIGTERM interrupts both, and they clean up.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tools.run_tests import ROOT

RUN = """
import sys
from tools.run_tests import beside
sys.exit(beside(*([sys.executable, "-c", one] for one in sys.argv[1:])))
"""


def start(first: str, second: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, first, second]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_the_second_is_shown_after_the_first(tmp_path: Path) -> None:
    seen = str(tmp_path / "printed")
    first = (
        f"import pathlib, time\nprint('one', flush=True)\nwhile not pathlib.Path({seen!r}).exists(): time.sleep(0.01)\n"
        "print('three')"
    )
    second = f"import pathlib\nprint('two', flush=True)\npathlib.Path({seen!r}).touch()"
    with start(first, second) as run:
        assert run.communicate() == ("one\nthree\ntwo\n", None)
    assert run.returncode == 0


@pytest.mark.parametrize(("codes", "expected"), [((0, 0), 0), ((0, 3), 3), ((1, 0), 1), ((1, 3), 1)])
def test_a_failure_of_either_is_one(codes: tuple[int, int], expected: int) -> None:
    with start(*(f"raise SystemExit({code})" for code in codes)) as run:
        assert run.wait() == expected


def test_both_keep_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    with start(*["import sys; print(sys.dont_write_bytecode)"] * 2) as run:
        assert run.communicate()[0] == "False\nFalse\n"


def test_a_signal_interrupts_both_and_they_clean_up(tmp_path: Path) -> None:
    waiting = (
        "import pathlib, sys, time\ntry:\n  pathlib.Path({!r}).touch()\n  time.sleep(60)\n"
        "except KeyboardInterrupt:\n  print('cleaned up')\n  sys.exit(2)"
    )
    begun = [tmp_path / "first", tmp_path / "second"]
    with start(*(waiting.format(str(one)) for one in begun)) as run:
        while not all(one.exists() for one in begun):
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(signal.SIGTERM)
        assert run.communicate()[0] == "cleaned up\n" * 2
    assert run.returncode == 2
