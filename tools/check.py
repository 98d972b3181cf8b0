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
        ("ruff", [str(BIN / "ruff"), "check", "."]),
        ("format", [str(BIN / "ruff"), "format", "--check", "."]),
        ("pyright", [str(BIN / "pyright")]),
        ("imports", [str(BIN / "lint-imports")]),
        ("crds", [python, "-m", "carrel_api.generate", "--check", "crds"]),
        ("docs", [str(BIN / "mkdocs"), "build", "--strict", "--site-dir", str(ROOT / "build" / "site")]),
    ]
    if CHART.exists() and shutil.which("go"):
        found.append(("helm lint", [str(go_tools.ensure("helm")), "lint", "--strict", str(CHART)]))
    return found


def main() -> int:
    """Run all checks, print one line for each, and the output of those that failed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("operator", "gateway", "kernel-image")),
    }
    failed: list[str] = []
    for name, command in checks():
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        print(f"{'FAIL' if done.returncode else 'ok':4} {name} ({time.monotonic() - began:.1f} s)", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout + done.stderr, flush=True)
    print("make check: " + (f"failed: {', '.join(failed)}" if failed else "all good"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
