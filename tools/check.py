"""Everything that is checked without running the product: `make check`.

Runs every check, also after one failed, and ends with 1 if any did. Tests are `make test`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tools import go_tools

ROOT: Final = Path(__file__).resolve().parent.parent
BIN: Final = ROOT / ".venv" / "bin"
CHART: Final = ROOT / "charts" / "carrel"


def checks() -> list[tuple[str, list[str]]]:
    """Return the name and command of each check."""
    python = str(BIN / "python")
    found = [
        ("tracked", [python, "-m", "tools.tracked"]),
        # Without its cache: that keeps how a file's imports were sorted before a module they name was there.
        ("ruff", [str(BIN / "ruff"), "check", "--no-cache", "."]),
        ("format", [str(BIN / "ruff"), "format", "--check", "."]),
        ("pyright", [str(BIN / "pyright")]),
        ("imports", [str(BIN / "lint-imports")]),
        ("crds", [python, "-m", "carrel_api.generate", "--check", "crds"]),
        ("docs", [str(BIN / "mkdocs"), "build", "--strict", "--site-dir", str(ROOT / "build" / "site")]),
    ]
    if CHART.exists() and shutil.which("go"):
        found.append(("helm lint", ["helm", "lint", "--strict", str(CHART)]))
    return found


def outcome(command: list[str], environment: dict[str, str]) -> tuple[bool, str]:
    """Return whether a check passed, and what it wrote; a program of `tools.go_tools` is built if need be."""
    program = command[0]
    try:
        if program in go_tools.TOOLS:
            program = str(go_tools.ensure(program))
    except go_tools.ToolError as error:
        return False, str(error)
    done = subprocess.run([program, *command[1:]], cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def main() -> int:
    """Run all checks, print one line for each, and the output of those that failed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("operator", "gateway", "kernel-image")),
    }
    failed: list[str] = []
    for name, command in checks():
        began = time.monotonic()
        passed, written = outcome(command, environment)
        print(f"{'ok' if passed else 'FAIL':4} {name} ({time.monotonic() - began:.1f} s)", flush=True)
        if not passed:
            failed.append(name)
            print(written, flush=True)
    print("make check: " + (f"failed: {', '.join(failed)}" if failed else "all good"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
