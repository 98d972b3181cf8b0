"""Writes the audit log within the transactions of what it tells of, reads it, and finds what was done to it.

An entry that cannot be written undoes what it would have told of. Those of one tenant wait for each other until the
end of the transaction, so it is recorded last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

from carrel_gateway.audit import repository
from carrel_gateway.audit.actions import Action
from carrel_gateway.audit.chain import Entry, Head, Verifier, digest_of
from carrel_gateway.audit.metrics import ENTRIES
from carrel_gateway.audit.repository import Filter
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import InvalidInput
from carrel_gateway.identity.rights import Right
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.paging import Page

__all__ = ["Action", "AuditService", "Entry", "Filter", "Head", "Verdict", "instant"]

_MAX_TARGET: Final = 500

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look along the whole log found."""

    valid: bool
    entries: int
    """How many are as they were written, from the first on."""
    digest: str
    """Of the last of them."""
    problem: str | None
    """The first thing that is wrong."""


def instant(time: datetime) -> str:
    """Return a time as entries have it, which sorts as times do."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class AuditService:
    """The audit log of one tenant."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._principal = principal

    async def record(self, tx: Transaction, action: Action, target: object, /, **detail: Any) -> None:
        """Write that the principal did something; the last thing in its transaction.

        Parameters
        ----------
        target
            Id of what it was done to.
        detail
            What else is worth knowing: plain values, and never a secret or what people write to each other.
        """
        head = await repository.take_head(tx)
        credential = self._principal.credential_id
        unsigned = Entry(
            seq=head.seq + 1,
            at=instant(datetime.now(UTC)),
            actor=str(self._principal.user_id),
            credential=str(credential) if credential else None,
            action=action.value,
            target=str(target)[:_MAX_TARGET].replace("\0", "\ufffd"),
            detail=msgspec.json.encode(detail, order="deterministic").decode(),
            digest="",
        )
        entry = replace(unsigned, digest=digest_of(tx.tenant_id, unsigned, head.digest))
        await repository.add(tx, entry)

        async def tell() -> None:
            ENTRIES.labels(action.group).inc()
            # Logs are shipped elsewhere: a head that nobody who has the database can change.
            _log.info("audited", tenant=str(tx.tenant_id), seq=entry.seq, action=entry.action, digest=entry.digest)

        tx.after_commit(tell)

    async def list(self, wanted: Filter, *, limit: int = 50, cursor: str | None = None) -> Page[Entry]:
        """Return a page of entries, newest first.

        Raises
        ------
        PermissionDenied
            Without the right to read the tenant's.
        InvalidInput
            The cursor is not one that a page had.
        """
        self._principal.require(Right.TENANT_READ)
        before = _read(cursor) if cursor else None
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            found = await repository.page(tx, wanted, before=before, limit=limit + 1)
        items = found[:limit]
        return Page(items, str(items[-1].seq) if len(found) > limit else None)

    async def export(self, wanted: Filter) -> AsyncIterator[list[Entry]]:
        """Record that entries are taken out, and return an iterator of them, oldest first, some at a time.

        Raises
        ------
        PermissionDenied
            Without the right to read the tenant's.
        """
        self._principal.require(Right.TENANT_READ)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            named = {name: getattr(wanted, name) for name in Filter.__slots__}
            await self.record(
                tx,
                Action.AUDIT_EXPORTED,
                self._principal.tenant_id,
                **{name: value for name, value in named.items() if value is not None},
            )
        return self._entries(wanted)

    async def _entries(self, wanted: Filter) -> AsyncIterator[list[Entry]]:
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            async for entries in repository.in_order(tx, wanted):
                yield entries

    async def verify(self, known: Head | None = None) -> Verdict:
        """Go along the whole log.

        Parameters
        ----------
        known
            A head that was noted earlier, elsewhere: finds that the database's own was set back with the log.

        Raises
        ------
        PermissionDenied
            Without the right to read the tenant's.
        """
        self._principal.require(Right.TENANT_READ)
        verifier = Verifier(self._principal.tenant_id, known)
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            kept, last = await repository.kept(tx)  # first: entries that are added meanwhile come after it
            async for entries in repository.in_order(tx):
                if not all(verifier.add(entry) for entry in entries if entry.seq <= kept.seq):
                    break
        verifier.end(kept, last)
        return Verdict(
            valid=verifier.problem is None,
            entries=verifier.head.seq,
            digest=verifier.head.digest,
            problem=verifier.problem,
        )


def _read(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise InvalidInput("this cursor is not one that a list returned; start again without it", code="invalid_cursor")
    return int(cursor)
