"""Every test that belongs to every change: `make test`.

Units and integration tests run on all cores. Tests of the cluster run beside them, one after the other on one shared
cluster, because they mostly wait; what they print is shown when both are through. They go first where both want a
processor, because they take longest. Both are run to their end even when one fails. Ctrl-C ends both, and so does
SIGTERM, after the clean-up of the tests that run then. Arguments go on to pytest.

Bytecode is kept, whatever the environment says: tests start hundreds of interpreters, and compiling is more than half
of what the start of a gateway takes without it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PYTEST: Final = [sys.executable, "-m", "pytest", "-m", "not soak", "-p", "no:cacheprovider", "-q"]


def main(arguments: list[str]) -> int:
    """Run both parts and return the exit code of the first that failed."""
    workers = str(min(os.cpu_count() or 1, 8))
    # The quick ones last and in this order: else a file with one long test is begun when all others are done.
    spread = ["-n", workers, "--dist", "loadfile", "--no-loadscope-reorder"]
    return beside(
        [*PYTEST, "tests/integration", "tests/unit", "tests/chart", *spread, *arguments],
        [*PYTEST, "tests/cluster", *arguments],
    )


def beside(first: list[str], second: list[str]) -> int:
    """Run two commands at the same time, show what the second printed after the first, and return a code as `main`.

    The first has what the second leaves of the processors.
    """
    keeping = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    running: list[subprocess.Popen[bytes]] = []

    def end(*_: object) -> None:
        for one in running:
            one.send_signal(signal.SIGINT)

    def wait(*_: object) -> None:
        """Do nothing: a terminal sends it to both itself."""

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, wait)
    with tempfile.TemporaryFile() as printed:
        running.append(subprocess.Popen(["nice", "-n", "5", *first], cwd=ROOT, env=keeping))
        running.append(subprocess.Popen(second, cwd=ROOT, env=keeping, stdout=printed, stderr=subprocess.STDOUT))
        codes = [one.wait() for one in running]
        printed.seek(0)
        sys.stdout.flush()
        shutil.copyfileobj(printed, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
