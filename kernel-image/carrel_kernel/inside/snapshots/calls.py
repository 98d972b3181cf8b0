"""What the host asks for as a user expression: its answer is data, and leaves no trace in the user's namespace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from IPython.core.getipython import get_ipython

from carrel_kernel.inside.snapshots.restore import Restoration
from carrel_kernel.inside.snapshots.take import Snapshot

SNAPSHOT_MIME: Final = "application/vnd.carrel.snapshot+json"


class Answer:
    """Data as what a user expression shows."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": "snapshot", SNAPSHOT_MIME: self._content}


def take(folder: str, workspace: str, seconds: float, max_bytes: int) -> Answer:
    """Save the variables of the running shell into a folder."""
    snapshot = Snapshot(get_ipython(), Path(folder), Path(workspace), seconds=seconds, max_bytes=max_bytes)
    return Answer(snapshot.take())


def restore(folder: str, workspace: str, described: str, seconds: float) -> Answer:
    """Restore into the running shell what is described in a file, from the blobs in a folder."""
    variables = json.loads(Path(described).read_bytes())
    return Answer(Restoration(get_ipython(), Path(folder), variables, Path(workspace), seconds=seconds).restore())
