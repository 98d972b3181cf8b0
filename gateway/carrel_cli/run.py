"""`carrel run`: one question about some files, from the upload to the artifacts on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from rich.console import Console

from carrel_cli.errors import Usage
from carrel_cli.show import RunPrinter, line
from carrel_client import Client, Session

TITLE_CHARACTERS: Final = 80


def check_data(paths: Sequence[Path]) -> None:
    """Refuse what cannot be uploaded, before anything is started.

    Raises
    ------
    Usage
        A path is not there, or is no file.
    """
    for path in paths:
        if not path.exists():
            raise Usage(f"{path}: no such file")
        if not path.is_file():
            raise Usage(f"{path}: not a file")
    names = [path.name for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise Usage(f"{name}: two data files have this name; rename one, since code finds them by it")


def check_out(folder: Path) -> None:
    """Refuse a folder that files cannot be written to, before anything is asked.

    Raises
    ------
    Usage
        It is no folder, or may not be written.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise Usage(f"{folder}: {there} is not a folder; choose another with --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Usage(f"{folder}: no files may be written there; choose another with --out")


def ask(
    client: Client, question: str, paths: Sequence[Path], *, model: str | None, out: Path, console: Console
) -> bool:
    """Ask in a new session, show what comes, and save the files that were made; return whether the run succeeded."""
    session = client.create_session(title=" ".join(question.split())[:TITLE_CHARACTERS], model=model)
    if paths:
        client.upload(session.id, paths)
    printer = RunPrinter(console)
    try:
        for event in client.stream_chat(session.id, question):
            printer.take(event)
    except KeyboardInterrupt:
        client.cancel(session.id)
        raise
    save_artifacts(client, printer, out, console)
    return _say_end(session, printer, console)


def save_artifacts(client: Client, printer: RunPrinter, out: Path, console: Console) -> None:
    """Write the run's files below `out`, replacing those of an earlier run, and print their paths."""
    if not printer.artifacts:
        return
    console.print()
    for name, payload in sorted(printer.artifacts.items()):
        target = out / safe_path(name)
        client.download(payload["artifact_id"], target)
        console.print(line(f"  Saved {target}", "green"), soft_wrap=True)


def safe_path(name: str) -> Path:
    """Return the name as a path that stays below where it is put, whatever a server says."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in {"", "/", ".", ".."}]
    return Path(*(part.replace(":", "_") for part in parts)) if parts else Path("artifact")


def _say_end(session: Session, printer: RunPrinter, console: Console) -> bool:
    finished = printer.finished or {}
    console.print()
    if finished.get("status") == "succeeded":
        console.print(line(f"  Session {session.id}", "dim"))
        return True
    reason = finished.get("message") or finished.get("code") or "no reason was given"
    ended = {"failed": "failed", "cancelled": "was cancelled"}.get(finished.get("status", ""), "did not end")
    console.print(line(f"  The run {ended}: {reason}", "red"))
    console.print(line(f"  Session {session.id}", "dim"))
    return False
