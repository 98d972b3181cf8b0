"""One session of the product, driven over HTTP as any program would."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import httpx

READY_SECONDS = 120


class Desk:
    """A session and its kernel."""

    def __init__(self, api: httpx.Client, session_id: str) -> None:
        self.api = api
        self.id = session_id
        self.path = f"/api/sessions/{session_id}"

    @classmethod
    def create(cls, api: httpx.Client) -> Desk:
        """Make a session."""
        reply = api.post("/api/sessions", json={"title": "cluster test"})
        assert reply.status_code == 201, reply.text
        return cls(api, reply.json()["id"])

    def delete(self) -> None:
        """Delete the session; one that is gone is fine."""
        assert self.api.delete(self.path).status_code in (200, 204, 404)

    def execute(self, code: str) -> dict[str, Any]:
        """Run code and return the cell: `status`, `outputs`, …"""
        reply = self.api.post(f"{self.path}/kernel/execute", json={"code": code})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def stdout(self, code: str) -> str:
        """Run code that succeeds and return what it printed."""
        cell = self.execute(code)
        assert cell["status"] == "ok", cell
        streams = (output for output in cell["outputs"] if output["output_type"] == "stream")
        return "".join("".join(output["text"]) for output in streams if output["name"] == "stdout")

    def is_busy(self) -> bool:
        """Whether a cell is running now."""
        return self.api.get(f"{self.path}/kernel").json()["status"] == "busy"

    def json(self, code: str) -> Any:
        """Run code that prints one JSON document and return it."""
        return json.loads(self.stdout(code))

    def events(self) -> list[dict[str, Any]]:
        """Return the whole committed history."""
        found: list[dict[str, Any]] = []
        while True:
            reply = self.api.get(f"{self.path}/events", params={"after": found[-1]["seq"] if found else 0})
            assert reply.status_code == 200, reply.text
            page = reply.json()["items"]
            if not page:
                return found
            found += page


def eventually(what: str, done: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)


def digest(data: bytes) -> str:
    """Return the SHA-256 of data, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
