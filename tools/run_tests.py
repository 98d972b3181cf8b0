"""Every test that belongs to every change: `make test`.

Units and integration tests run on all cores, tests of the cluster one after the other on one shared cluster. Both are
run even when the first failed. Arguments go on to pytest.

Bytecode is kept, whatever the environment says: tests start hundreds of interpreters, and compiling is more than half
of what the start of a gateway takes without it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PYTEST: Final = [sys.executable, "-m", "pytest", "-m", "not soak", "-p", "no:cacheprovider", "-q"]


def main(arguments: list[str]) -> int:
    """Run both parts and return the exit code of the first that failed."""
    workers = str(min(os.cpu_count() or 1, 8))
    # The quick ones last and in this order: else a file with one long test is begun when all others are done.
    spread = ["-n", workers, "--dist", "loadfile", "--no-loadscope-reorder"]
    parts = [
        [*PYTEST, "tests/integration", "tests/unit", "tests/chart", *spread],
        [*PYTEST, "tests/cluster"],
    ]
    keeping = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    codes = [subprocess.run([*part, *arguments], cwd=ROOT, env=keeping).returncode for part in parts]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
