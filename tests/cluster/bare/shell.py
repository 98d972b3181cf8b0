"""Running programs and writing files for the bare-host cluster, with errors that name the command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class ClusterError(Exception):
    """A cluster cannot be made, found or used; the message says why."""


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Return what a program wrote to its standard output.

    Raises
    ------
    ClusterError
        It is not there or ended with another status than 0.
    """
    words = [str(part) for part in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=env)
    except OSError as error:
        raise ClusterError(f"{words[0]} cannot be started: {error.strerror}") from error
    if done.returncode:
        raise ClusterError(f"{' '.join(words)}\n{done.stderr.strip()}")
    return done.stdout


def succeeds(*command: str | Path, timeout: float = 20) -> bool:
    """Tell whether a program ends with status 0 within `timeout` seconds."""
    words = [str(part) for part in command]
    try:
        return subprocess.run(words, capture_output=True, timeout=timeout).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def lines_of(*command: str | Path) -> list[str]:
    """Return the lines that a program prints; none where it fails."""
    words = [str(part) for part in command]
    try:
        return subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    except OSError:
        return []


def write(path: Path, content: str | dict[str, Any]) -> Path:
    """Write text, or a document as JSON, readable by root only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path
