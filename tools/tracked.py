"""Refuses files that are tracked though `.gitignore` names them; part of `make check`.

Git takes such a file, a link to an environment above all, for part of the project, and puts it in the place of whatever
a checkout has there: an ignored folder is deleted for it without a word.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent


def ignored(root: Path = ROOT) -> list[str]:
    """Return the tracked files that are to be ignored; none where this is no checkout."""
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else []


def main() -> int:
    """Print what is tracked and must not be; return 1 if there is any."""
    found = ignored()
    for path in found:
        print(f"{path}: tracked, but .gitignore names it; git rm --cached {path}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
