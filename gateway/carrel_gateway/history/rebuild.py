"""Makes the read models of sessions anew from their logs: an administrator's command.

    python -m carrel_gateway.history.rebuild [--tenant TENANT_ID] SESSION_ID...

The log is the truth; messages and cells follow from it. This is for a database whose read models were damaged or
changed by hand. It changes no event, and sessions may be in use meanwhile; the embedded database must not be.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from uuid import UUID

from carrel_gateway.errors import CarrelError, NotFound
from carrel_gateway.history import projections, repository
from carrel_gateway.history.events import StoredEvent
from carrel_gateway.history.service import PAGE, PAGE_BYTES
from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.settings import Settings
from carrel_gateway.storage.database import Database, Transaction


async def rebuild(database: Database, tenant_id: UUID, session_id: UUID) -> None:
    """Make messages and cells of a session anew, in one transaction.

    Raises
    ------
    NotFound
        The tenant has no such session.
    """
    async with database.transaction(tenant_id) as tx:
        if not await repository.lock_session(tx, session_id):
            raise NotFound(f"there is no session {session_id}", code="session_not_found")
        await projections.rebuild(tx, session_id, _log(tx, session_id))


async def _log(tx: Transaction, session_id: UUID) -> AsyncIterator[StoredEvent]:
    after = 0
    while page := await tx.run(
        repository.tail(tx.dialect, tx.tenant_id, session_id, after=after, limit=PAGE, size=PAGE_BYTES)
    ):
        for event in await repository.decode(session_id, page):
            yield event
        after = page[-1].seq


async def _rebuild_all(tenant_id: UUID, session_ids: list[UUID]) -> None:
    database = await Database.connect(Settings())
    try:
        for session_id in session_ids:
            await rebuild(database, tenant_id, session_id)
            sys.stdout.write(f"{session_id}: messages and cells are those of the log\n")
    finally:
        await database.aclose()


def main() -> int:
    """Rebuild the sessions that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Make messages and cells of sessions anew from their logs.")
    parser.add_argument("--tenant", type=UUID, default=DEFAULT_TENANT_ID, help="whose sessions they are")
    parser.add_argument("session_id", type=UUID, nargs="+")
    arguments = parser.parse_args()
    try:
        asyncio.run(_rebuild_all(arguments.tenant, arguments.session_id))
    except CarrelError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
