"""Reads the audit log of an API server: who wrote what, from a mark on. It writes nothing and starts nothing.

The log has one JSON document in each line (audit.k8s.io/v1, `Event`). When it is full the API server renames it to
`<stem>-<time>.log` and begins anew; a mark holds over that, until the file it was set in is removed. A line is there
when the request is over, give or take a moment: who wants the last one waits for it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class AuditLost(Exception):
    """The file that a mark was set in is no longer there: more was written since than the API server keeps."""


@dataclass(frozen=True)
class Mark:
    """A place in the log."""

    inode: int
    offset: int


@dataclass(frozen=True)
class Write:
    """One request that changed something, or was to."""

    user: str
    """As Kubernetes spells it: `system:serviceaccount:<namespace>:<name>` for a service account."""
    verb: str
    resource: str
    """Plural, with its subresource: `pods`, `pods/binding`, `agentsessions/status`."""
    namespace: str
    name: str
    """Empty where the server made the name up and did not note it."""
    code: int
    """HTTP status of the answer."""
    source: str
    """Address that the request came from: of replicas under one account it tells which one wrote."""
    received: datetime
    completed: datetime

    @property
    def accepted(self) -> bool:
        """Whether it was carried out."""
        return self.code < 400


class AuditLog:
    """The log of one API server."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mark(self) -> Mark:
        """Return the present end."""
        found = self.path.stat()
        return Mark(found.st_ino, found.st_size)

    def since(self, mark: Mark) -> Iterator[Write]:
        """Return what was written after the mark, whole lines only, in the order of the log.

        Raises
        ------
        AuditLost
            The mark's file is gone.
        """
        # Full files carry their time in the name, so they sort by it; the present one comes last.
        files = [*sorted(self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}")), self.path]
        inodes = [path.stat().st_ino for path in files]
        if mark.inode not in inodes:
            raise AuditLost(f"{self.path} has been filled more than once since the mark was set")
        first = inodes.index(mark.inode)
        for index, path in enumerate(files[first:]):
            yield from _writes(path, mark.offset if index == 0 else 0)


def _writes(path: Path, offset: int) -> Iterator[Write]:
    with path.open("rb") as log:
        log.seek(offset, os.SEEK_SET)
        for line in log:
            if line.endswith(b"\n"):  # another one is being written
                written = parse(orjson.loads(line))
                if written is not None:
                    yield written


def parse(event: dict[str, Any]) -> Write | None:
    """Return the write of one event; none where it is no write, or a dry run."""
    if event["stage"] != "ResponseComplete" or event["verb"] not in WRITES or "dryRun=All" in event["requestURI"]:
        return None
    reference = event.get("objectRef", {})
    subresource = reference.get("subresource")
    return Write(
        user=event["user"]["username"],
        verb=event["verb"],
        resource="/".join(filter(None, (reference.get("resource", ""), subresource))),
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        source=next(iter(event.get("sourceIPs", [])), ""),
        received=datetime.fromisoformat(event["requestReceivedTimestamp"]),
        completed=datetime.fromisoformat(event["stageTimestamp"]),
    )


def service_account(namespace: str, name: str) -> str:
    """Return the name of a service account as a user."""
    return f"system:serviceaccount:{namespace}:{name}"


def tally(writes: Iterable[Write]) -> Counter[tuple[str, str]]:
    """Return how many writes there were of each verb and resource."""
    return Counter((write.verb, write.resource) for write in writes)
