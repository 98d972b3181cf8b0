"""Whose session it is.

Plan: over each database, one's own, another person's, one that is not there and another tenant's, to read and to
change; the owner is asked for once, and remembered for so many sessions at most; what was deleted is not found.
"""

from __future__ import annotations

from uuid import UUID

import pytest
from tests.support.people import new_user
from tests.support.state import new_principal
from tests.support.tenancy import statements_of

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError
from carrel_gateway.identity.rights import ALL_RIGHTS, Right, Role
from carrel_gateway.sessions.access import SessionAccess
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.storage.ids import new_id


@pytest.fixture
async def user(context: ProcessContext, principal: Principal) -> Principal:
    return await new_user(context.database, principal.tenant_id)


async def owned(context: ProcessContext, owner: Principal) -> UUID:
    return (await SessionService(context, owner).create()).id


async def outcome(access: SessionAccess, caller: Principal, session_id: UUID) -> list[str]:
    found: list[str] = []
    for changes in (False, True):
        try:
            await access.require(caller, session_id, changes=changes)
        except CarrelError as error:
            found.append(error.code)
        else:
            found.append("")
    return found


async def test_whose_it_is(context: ProcessContext, principal: Principal, user: Principal) -> None:
    access = SessionAccess(context.database)
    stranger = await new_principal(context.database)
    own, others, strangers = [await owned(context, owner) for owner in (user, principal, stranger)]
    refused, absent = ["not_your_session"] * 2, ["session_not_found"] * 2
    for _ in range(2):
        assert await outcome(access, user, own) == ["", ""]
        assert await outcome(access, user, others) == refused
        assert await outcome(access, user, strangers) == absent
        assert await outcome(access, user, new_id()) == absent
    reader = Principal(user.tenant_id, new_id(), Role.ADMIN, ALL_RIGHTS - {Right.TENANT_ADMIN})
    assert await outcome(access, reader, own) == ["", "not_your_session"]
    # Whoever may touch all of a tenant's is told by the session itself that it is not there.
    assert await outcome(access, principal, own) == ["", ""]


async def test_a_deleted_one_is_not_found(context: ProcessContext, principal: Principal, user: Principal) -> None:
    session_id = await owned(context, principal)
    await SessionService(context, principal).delete(session_id)
    assert await outcome(SessionAccess(context.database), user, session_id) == ["session_not_found"] * 2


async def test_the_owner_is_asked_for_once(context: ProcessContext, user: Principal) -> None:
    access = SessionAccess(context.database, size=2)
    ids = [await owned(context, user) for _ in range(3)]
    with statements_of(context.database) as asked:
        for _ in range(3):
            await access.require(user, ids[0], changes=True)
        assert len(asked) == 1
        assert "owner_id" in asked[0]
        for session_id in ids:
            await access.require(user, session_id, changes=False)
        assert len(asked) == 3
        await access.require(user, ids[0], changes=False)
        assert len(asked) == 4


async def test_lists_hold_ones_own(context: ProcessContext, principal: Principal, user: Principal) -> None:
    own, others = await owned(context, user), await owned(context, principal)
    assert [session.id for session in (await SessionService(context, user).list()).items] == [own]
    assert {session.id for session in (await SessionService(context, principal).list()).items} == {own, others}
