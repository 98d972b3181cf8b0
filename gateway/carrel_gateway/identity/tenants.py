"""Which tenants there are, for work that is done for all of them: known from the accounts, which have no tenant."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import select

from carrel_gateway.context import Principal
from carrel_gateway.identity.service import DEFAULT_TENANT_ID, DEFAULT_USER_ID
from carrel_gateway.identity.tables import accounts
from carrel_gateway.storage.database import Database

_PAGE: Final = 1000


async def all_tenants(database: Database) -> list[UUID]:
    """Return the ids of all tenants, the default one first; each other one has somebody who founded it.

    Raises
    ------
    DatabaseAway
        They cannot be had.
    """
    found = {DEFAULT_TENANT_ID: None}
    after = UUID(int=0)
    while True:
        query = select(accounts.c.id, accounts.c.tenants).where(accounts.c.id > after).order_by(accounts.c.id)
        async with database.login_transaction() as lookup:
            rows = (await lookup.execute(query.limit(_PAGE))).all()
        for account_id, tenants in rows:
            found.update(dict.fromkeys(UUID(tenant) for tenant in tenants))
            after = account_id
        if len(rows) < _PAGE:
            return list(found)


def worker_of(tenant_id: UUID) -> Principal:
    """Return whom the gateway itself works as in a tenant: nobody in person, with all rights."""
    return Principal(tenant_id, DEFAULT_USER_ID)
