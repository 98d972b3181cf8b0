"""Resolves all lock files anew: `make lock`.

Locks hold for Python 3.11 to 3.13 and carry hashes, never addresses. `dev.txt` is resolved first; the locks of the
images take their versions from it, so one test run speaks for all of them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
UV: Final = ROOT / ".venv" / "bin" / "uv"
OPTIONS: Final = (
    "--universal",
    "--python-version",
    "3.11",
    "--generate-hashes",
    "--no-annotate",
    "--no-header",
    "--quiet",
)


def main() -> int:
    """Write every lock file under `requirements/`."""
    folder = ROOT / "requirements"
    dev = folder / "dev.txt"
    compile_ = (str(UV), "pip", "compile", *OPTIONS)
    subprocess.run(
        [*compile_, "pyproject.toml", "--all-extras", "--group", "dev", "-o", str(dev)], cwd=ROOT, check=True
    )
    for source in sorted(folder.glob("*.in")):
        target = source.with_suffix(".txt")
        subprocess.run([*compile_, str(source), "-c", str(dev), "-o", str(target)], cwd=ROOT, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
