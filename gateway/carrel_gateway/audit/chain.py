"""The chain of hashes of an audit log: what is hashed, and what is wrong with entries that do not follow. Pure.

An entry's digest is the SHA-256 of the digest before it and of its own content: so an entry that is changed, removed,
moved or put in breaks the chain there. That the last ones were cut off shows only against a head that was kept
elsewhere; the database keeps one, which cannot go back, and whoever wants more notes one now and then.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec

GENESIS: Final = "0" * 64
"""Stands where the digest of an entry before the first one would."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, as it is stored."""

    seq: int
    at: str
    """RFC 3339, UTC, microseconds."""
    actor: str
    """Id of the user."""
    credential: str | None
    """Id of the key or login that was presented; none for work of the gateway itself."""
    action: str
    target: str
    detail: str
    """JSON."""
    digest: str


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry that there is, or was at some time."""

    seq: int
    digest: str


def digest_of(tenant_id: UUID, entry: Entry, previous: str) -> str:
    """Return what the digest of an entry must be: SHA-256 of a JSON list, in lower-case hexadecimal."""
    content = [
        previous,
        str(tenant_id),
        entry.seq,
        entry.at,
        entry.actor,
        entry.credential,
        entry.action,
        entry.target,
        entry.detail,
    ]
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


class Verifier:
    """Goes along a log from its beginning; stops at the first thing that is wrong."""

    def __init__(self, tenant_id: UUID, known: Head | None = None) -> None:
        self._tenant_id = tenant_id
        self._known = known
        self.head = Head(0, GENESIS)
        self.problem: str | None = None

    def add(self, entry: Entry) -> bool:
        """Look at the next entry; false once something is wrong."""
        if self.problem is None:
            self.problem = self._wrong_with(entry)
        if self.problem is None:
            self.head = Head(entry.seq, entry.digest)
        return self.problem is None

    def end(self, kept: Head, last: int) -> None:
        """Compare the end with the head that the database keeps, the last entry there, and what was noted."""
        if self.problem is not None:
            return
        if kept != self.head:
            self.problem = f"the log ends with entry {self.head.seq}, but entry {kept.seq} had been written"
        elif last > kept.seq:
            self.problem = f"entry {kept.seq + 1} was put in"
        elif self._known is not None and self._known.seq > self.head.seq:
            self.problem = f"the log ends with entry {self.head.seq}, but entry {self._known.seq} is known"

    def _wrong_with(self, entry: Entry) -> str | None:
        expected = self.head.seq + 1
        if entry.seq != expected:
            return f"entry {expected} is not there"
        if digest_of(self._tenant_id, entry, self.head.digest) != entry.digest:
            return f"entry {expected} is not what was written"
        if self._known is not None and self._known.seq == entry.seq and self._known.digest != entry.digest:
            return f"entry {expected} is not the one that is known"
        return None
