"""Which tenants there are, over each database: those of all accounts and the default one, each once, however many pages
of accounts there are.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert
from tests.support.state import new_principal

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.identity import tenants
from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.identity.tables import accounts
from carrel_gateway.storage.ids import new_id


async def account_of(context: ProcessContext, *members: Principal) -> None:
    row = {
        "id": members[0].user_id,
        "tenants": [str(member.tenant_id) for member in members],
        "created_at": datetime.now(UTC),
    }
    async with context.database.login_transaction() as lookup:
        await lookup.execute(insert(accounts).values(**row))


async def test_the_tenants_are_those_of_all_accounts(context: ProcessContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "_PAGE", 2)
    before = await tenants.all_tenants(context.database)
    assert before[0] == DEFAULT_TENANT_ID
    made = [await new_principal(context.database) for _ in range(5)]
    for member in made:
        await account_of(context, member, made[0])
        made[0] = Principal(made[0].tenant_id, new_id())
    found = await tenants.all_tenants(context.database)
    assert len(found) == len(set(found))
    assert set(found) == {*before, *(member.tenant_id for member in made)}
