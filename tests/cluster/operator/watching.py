"""All that happens to the objects of one kind meanwhile, as the API server tells it: nothing in between is missed."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster.operator.sessions import eventually
from tests.cluster.provider.base import Cluster


class History:
    """Versions of objects in the order in which they came about."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        """`ADDED`, `MODIFIED` or `DELETED`, and the object."""
        self.began = threading.Event()

    def read(self, lines: Iterator[str]) -> None:
        """Take what a watch prints: one JSON document in each line."""
        for line in lines:
            event = json.loads(line)
            self.events.append((event["type"], event["object"]))
            self.began.set()

    def most_at_once(self) -> int:
        """Return how many objects there were at most that were not being deleted."""
        there: set[str] = set()
        most = 0
        for kind, found in self.events:
            uid = found["metadata"]["uid"]
            gone = kind == "DELETED" or "deletionTimestamp" in found["metadata"]
            there = there - {uid} if gone else there | {uid}
            most = max(most, len(there))
        return most

    def latest(self, name: str) -> dict[str, Any] | None:
        """Return the object of a name as it is now, if it is there."""
        kind, found = next(
            (event for event in reversed(self.events) if event[1]["metadata"]["name"] == name), ("DELETED", None)
        )
        return None if kind == "DELETED" else found

    def present(self) -> list[dict[str, Any]]:
        """Return the objects that are there, but for those that are being deleted."""
        last = {found["metadata"]["uid"]: (kind, found) for kind, found in list(self.events)}
        return [
            found for kind, found in last.values() if kind != "DELETED" and "deletionTimestamp" not in found["metadata"]
        ]

    def of(self, uid: str) -> list[dict[str, Any]]:
        """Return the versions of one object."""
        return [found for _, found in self.events if found["metadata"]["uid"] == uid]


@contextmanager
def watch(cluster: Cluster, *what: str) -> Iterator[History]:
    """Watch what `kubectl get` would show, from the objects that are there; one at least must be, or come."""
    history = History()
    command = cluster.command("get", *what, "--watch", "--output-watch-events", "--output=json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=history.read, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            eventually("the watch has begun", history.began.is_set)
            yield history
        finally:
            process.terminate()
            reader.join(10)
