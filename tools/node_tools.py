"""Programs for Node.js that tests start, each pinned by a lock file with hashes and installed once into a cache.

Installed with `npm ci` from the registry that npm itself is set up with; scripts of packages are not run. Does not
update anything by itself, and knows nothing of what the programs are used for.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tools.go_tools import ToolError, cache_folder

INSTALL_SECONDS: Final = 900
FOLDER: Final = Path(__file__).resolve().parent
MAIN: Final = {"azurite": "node_modules/azurite/dist/src/blob/main.js"}
"""Program that is started, by the name of the folder that has its lock file."""


def ensure(name: str) -> list[str]:
    """Return the command that starts a program, after installing it if it is not in the cache yet.

    Two processes that ask at once install it once.

    Raises
    ------
    ToolError
        Its name is unknown, Node.js is not installed, or the installation failed.
    """
    if name not in MAIN:
        raise ToolError(f"unknown program {name!r}: must be one of {', '.join(sorted(MAIN))}")
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise ToolError(f"{name} runs on Node.js, which is not on PATH: install Node.js 20 or later with npm")
    lock = FOLDER / name / "package-lock.json"
    target = cache_folder() / "tools" / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    whole = target / "whole"
    target.mkdir(parents=True, exist_ok=True)
    with (target / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not whole.exists():
            _install(npm, lock.parent, target)
            whole.touch()
    return [node, str(target / MAIN[name])]


def _install(npm: str, source: Path, target: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, target / name)
    command = [npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=target, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"installing {source.name} took longer than {INSTALL_SECONDS} s") from error
    if done.returncode:
        raise ToolError(f"installing {source.name} failed:\n{done.stderr.strip()}")
