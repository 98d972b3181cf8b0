"""Keys and tickets.

Plan: over each database, a key is shown once, works, is listed without what it is, and is of no use once revoked; none
is given more, or longer, than its maker has at this moment: not by scopes, not by leaving them out, not through a
service account, nor later when its maker has less, not by a key that was revoked meanwhile; whose keys one may see and
revoke; how many there may be. A ticket lets in once, within its time, with the rights of the credential that it was
made with; of many that try at once one gets in. The first key is made once, whoever starts at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from tests.support.people import change_key, change_user, new_key, new_user
from tests.support.state import new_principal, open_state

from carrel_gateway.audit.service import AuditService, Filter
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.credentials import service as credentials
from carrel_gateway.credentials.first import make_first_key
from carrel_gateway.credentials.service import CredentialService
from carrel_gateway.errors import CarrelError, Unauthenticated
from carrel_gateway.identity.authenticator import Authenticator
from carrel_gateway.identity.rights import ALL_RIGHTS, Right, Role, rights_of
from carrel_gateway.identity.service import default_principal
from carrel_gateway.identity.tables import one_time_tokens, users
from carrel_gateway.people.service import UserService
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id

DAY = timedelta(days=1)


@pytest.fixture
async def authenticator(context: ProcessContext) -> AsyncIterator[Authenticator]:
    made = Authenticator(context, None)
    yield made
    await made.aclose()


@pytest.fixture
async def user(context: ProcessContext, principal: Principal) -> Principal:
    return await new_user(context.database, principal.tenant_id)


async def code_of(work: object) -> str:
    with pytest.raises(CarrelError) as caught:
        await work  # pyright: ignore[reportGeneralTypeIssues]
    return caught.value.code


async def test_from_its_making_to_its_end(
    context: ProcessContext, user: Principal, authenticator: Authenticator
) -> None:
    service = CredentialService(context, user)
    made = await service.make_key("ci", scopes=[Right.SESSIONS_READ], expires_at=datetime.now(UTC) + DAY)
    caller = await authenticator.authenticate(made.key)
    assert (caller.user_id, caller.rights) == (user.user_id, {Right.SESSIONS_READ})
    (listed,) = (await service.keys()).items
    assert listed == made.row
    assert made.key.endswith(listed.hint)
    assert made.key not in repr(listed)
    for _ in range(2):
        await service.revoke_key(made.row.id)
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(made.key)
    assert (await service.keys()).items[0].revoked_at is not None


async def test_pages(context: ProcessContext, user: Principal) -> None:
    service = CredentialService(context, user)
    ids = [(await service.make_key(f"key {number}")).row.id for number in range(5)]
    first = await service.keys(limit=3)
    second = await service.keys(limit=3, cursor=first.next_cursor)
    assert [key.id for key in (*first.items, *second.items)] == ids[::-1]
    assert second.next_cursor is None
    assert await code_of(service.keys(cursor="x")) == "invalid_cursor"


async def test_nobody_gives_more_than_they_have(
    context: ProcessContext, user: Principal, authenticator: Authenticator
) -> None:
    owner = CredentialService(context, user)
    assert await code_of(owner.make_key("x", scopes=[Right.TENANT_ADMIN])) == "scopes_too_wide"
    ends = datetime.now(UTC) + DAY
    narrow = await owner.make_key("x", scopes=[Right.KEYS_WRITE, Right.SESSIONS_READ], expires_at=ends)
    caller = await authenticator.authenticate(narrow.key)
    service = CredentialService(context, caller)
    assert await code_of(service.make_key("x", scopes=[Right.SESSIONS_WRITE])) == "scopes_too_wide"
    for expires_at in (None, ends + DAY):
        child = await service.make_key("x", expires_at=expires_at)
        assert child.row.scopes == ["keys:write", "sessions:read"]
        assert child.row.expires_at == narrow.row.expires_at
    sooner = await service.make_key("x", expires_at=ends - timedelta(hours=1))
    assert sooner.row.expires_at == ends - timedelta(hours=1)
    assert await code_of(service.make_key("x", expires_at=datetime.now(UTC))) == "expired"
    # What was verified a moment ago may not stand any more.
    await change_user(context.database, user, role=Role.READONLY.value)
    assert await code_of(service.make_key("x", scopes=[Right.KEYS_WRITE])) == "scopes_too_wide"
    await owner.revoke_key(narrow.row.id)
    assert await code_of(service.make_key("x")) == "revoked"
    assert await code_of(service.make_ticket()) == "revoked"


async def test_keys_of_service_accounts(
    context: ProcessContext, principal: Principal, user: Principal, authenticator: Authenticator
) -> None:
    service_user = await new_user(context.database, principal.tenant_id, Role.ADMIN)
    await change_user(context.database, service_user, kind="service")
    assert await code_of(CredentialService(context, user).make_key("x", user_id=service_user.user_id)) == (
        "permission_denied"
    )
    whole = CredentialService(context, principal)
    assert await code_of(whole.make_key("x", user_id=user.user_id)) == "permission_denied"
    assert await code_of(whole.make_key("x", user_id=new_id())) == "user_not_found"
    made = await whole.make_key("x", user_id=service_user.user_id)
    assert (await authenticator.authenticate(made.key)).rights == ALL_RIGHTS
    held = {Right.PEOPLE_ADMIN, Right.KEYS_WRITE}
    key, _ = await new_key(context.database, principal, scopes=sorted(held))
    narrow = CredentialService(context, await authenticator.authenticate(key))
    made = await narrow.make_key("x", user_id=service_user.user_id)
    assert (await authenticator.authenticate(made.key)).rights == held
    assert {key.id for key in (await narrow.keys(service_user.user_id)).items} >= {made.row.id}


async def test_a_key_of_a_service_account_may_no_more_than_its_maker(
    context: ProcessContext, principal: Principal, authenticator: Authenticator
) -> None:
    """By whichever keys it was made, and from the moment on at which that changes, also where it is known."""
    admin = await new_user(context.database, principal.tenant_id, Role.ADMIN)
    people = UserService(context, principal)
    account, other = [await people.add_service(name, Role.ADMIN) for name in ("one", "other")]
    made = [await CredentialService(context, admin).make_key("x", user_id=account.id)]
    for user_id in (account.id, other.id):  # each by the one before
        by = CredentialService(context, await authenticator.authenticate(made[-1].key))
        made.append(await by.make_key("x", user_id=user_id))
    assert [key.row.maker_id for key in made] == [admin.user_id] * 3
    kept = await CredentialService(context, principal).make_key("x", user_id=account.id)
    callers = [await authenticator.authenticate(key.key) for key in made]

    async def rights() -> list[frozenset[Right]]:
        for _ in range(100):  # the news of it take a turn or two
            found = [(await authenticator.authenticate(key.key)).rights for key in made]
            if found != before:
                return found
            await asyncio.sleep(0.01)
        return found

    before = [caller.rights for caller in callers]
    assert before == [ALL_RIGHTS] * 3
    await people.change(admin.user_id, role=Role.READONLY)
    for caller in callers:
        assert await code_of(UserService(context, caller).add_service("x", Role.ADMIN)) == "permission_denied"
        assert (await authenticator.again(caller)).rights == rights_of(Role.READONLY)
    before = await rights()
    assert before == [rights_of(Role.READONLY)] * 3
    await people.change(admin.user_id, role=Role.ADMIN)
    assert await rights() == [ALL_RIGHTS] * 3
    await people.change(admin.user_id, disabled=True)
    for caller in callers:
        assert await code_of(authenticator.again(caller)) == "disabled"
        assert await code_of(UserService(context, caller).add_service("x", Role.USER)) == "disabled"
    assert (await authenticator.authenticate(kept.key)).rights == ALL_RIGHTS, "another's, of the same account"
    # One whose maker is not there any more is good for nothing.
    await change_key(context.database, principal, kept.row.id, maker_id=new_id())
    assert await code_of(authenticator.again(await authenticator.authenticate(kept.key))) == "disabled"
    await change_key(context.database, principal, kept.row.id, maker_id=admin.user_id)
    assert await code_of(authenticator.again(await authenticator.authenticate(kept.key))) == "disabled"


async def test_a_key_of_a_service_account_behind_which_nobody_is_known_may_no_more_than_a_user(
    context: ProcessContext, principal: Principal, authenticator: Authenticator
) -> None:
    """From before there were makers, or as the audit log has them: a service account. It also makes no other ones."""
    people = UserService(context, principal)
    account, other = [await people.add_service(name, Role.ADMIN) for name in ("one", "other")]
    low = await people.add_service("low", Role.READONLY)
    for maker_id in (None, account.id, other.id):
        of_account = Principal(principal.tenant_id, account.id)
        old, key_id = await new_key(context.database, of_account, maker_id=maker_id)
        caller = await authenticator.authenticate(old)
        assert (caller.role, caller.rights) == (Role.ADMIN, rights_of(Role.USER))
        assert (await authenticator.again(caller)).rights == rights_of(Role.USER)
        assert await code_of(UserService(context, caller).add_service("x", Role.READONLY)) == "permission_denied"
        theirs = CredentialService(context, caller)
        assert await code_of(theirs.make_key("x", scopes=[Right.TENANT_ADMIN])) == "scopes_too_wide"
        assert await code_of(theirs.make_key("x", user_id=other.id)) == "permission_denied"
        more = await theirs.make_key("x")
        assert more.row.maker_id is None
        assert (await authenticator.authenticate(more.key)).rights == rights_of(Role.USER)
        # It is as every other key when somebody is known to stand behind it.
        await change_key(context.database, principal, key_id, maker_id=principal.user_id)
        assert (await authenticator.again(caller)).rights == ALL_RIGHTS
    old, _ = await new_key(context.database, Principal(principal.tenant_id, low.id))
    assert (await authenticator.authenticate(old)).rights == rights_of(Role.READONLY)
    own, _ = await new_key(context.database, principal)
    assert (await authenticator.authenticate(own)).rights == ALL_RIGHTS, "an old one of a person's"


async def test_administrators_see_and_revoke_the_keys_of_service_accounts(
    context: ProcessContext, principal: Principal, user: Principal, authenticator: Authenticator
) -> None:
    account = await UserService(context, principal).add_service("x", Role.USER)
    service = CredentialService(context, principal)
    await service.make_key("of one's own")
    made = [await service.make_key(str(number), user_id=account.id) for number in range(3)]
    await authenticator.authenticate(made[0].key)
    await authenticator.note_used()
    page = await service.service_keys(limit=2)
    listed = [*page.items, *(await service.service_keys(limit=2, cursor=page.next_cursor)).items]
    assert [(key.name, key.maker_id, key.used_at is not None) for key in listed] == [
        ("2", principal.user_id, False),
        ("1", principal.user_id, False),
        ("0", principal.user_id, True),
    ]
    theirs = CredentialService(context, user)
    assert await code_of(theirs.service_keys()) == "permission_denied"
    assert await code_of(theirs.revoke_all(account.id)) == "permission_denied"
    stranger = CredentialService(context, await new_principal(context.database))
    assert ((await stranger.service_keys()).items, await stranger.revoke_all(account.id)) == ([], 0)
    assert await service.revoke_all(account.id) == 3
    for key in made:
        assert await code_of(authenticator.authenticate(key.key)) == "revoked"
    assert (await service.keys()).items[0].revoked_at is None
    told = await AuditService(context, principal).list(Filter(action="key.all-revoked"))
    assert [(entry.target, entry.detail) for entry in told.items] == [(str(account.id), '{"keys":3}')]


async def test_whose_keys_one_may_see_and_revoke(
    context: ProcessContext, principal: Principal, user: Principal
) -> None:
    other = await new_user(context.database, principal.tenant_id)
    made = await CredentialService(context, user).make_key("x")
    service = CredentialService(context, other)
    assert (await service.keys()).items == []
    assert await code_of(service.keys(user.user_id)) == "permission_denied"
    assert await code_of(service.revoke_key(made.row.id)) == "permission_denied"
    assert await code_of(service.revoke_key(new_id())) == "key_not_found"
    await CredentialService(context, principal).revoke_key(made.row.id)
    assert (await CredentialService(context, principal).keys(user.user_id)).items[0].revoked_at is not None


async def test_all_keys_but_the_one_in_use_are_revoked(
    context: ProcessContext, principal: Principal, user: Principal, authenticator: Authenticator
) -> None:
    service = CredentialService(context, user)
    kept, *gone = [await service.make_key(str(number)) for number in range(3)]
    foreign = await CredentialService(context, principal).make_key("x")
    caller = await authenticator.authenticate(kept.key)
    for made in gone:
        await authenticator.authenticate(made.key)  # known, and so to be forgotten
    with_kept = CredentialService(context, caller)
    assert await with_kept.revoke_all() == 2
    for made in gone:
        assert await code_of(authenticator.authenticate(made.key)) == "revoked"
    for made in (kept, foreign):
        await authenticator.authenticate(made.key)
    assert await with_kept.revoke_all() == 0
    told = await AuditService(context, principal).list(Filter(action="key.all-revoked"))
    assert [(entry.target, entry.credential, entry.detail) for entry in told.items] == [
        (str(user.user_id), str(kept.row.id), '{"keys":2}')
    ]
    narrow = Principal(user.tenant_id, user.user_id, rights=user.rights - {Right.KEYS_WRITE})
    assert await code_of(CredentialService(context, narrow).revoke_all()) == "permission_denied"


async def test_at_most_so_many(context: ProcessContext, user: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "MOST_KEYS", 2)
    service = CredentialService(context, user)
    done = await asyncio.gather(*(service.make_key(str(number)) for number in range(4)), return_exceptions=True)
    refused = [error for error in done if isinstance(error, CarrelError)]
    assert [error.code for error in refused] == ["too_many_keys"] * 2
    _, key_id = await new_key(context.database, user, revoked_at=datetime.now(UTC))
    await change_key(context.database, user, (await service.keys()).items[-1].id, expires_at=datetime.now(UTC) - DAY)
    assert key_id
    await service.make_key("there is room again")


async def test_a_ticket_lets_in_once(context: ProcessContext, user: Principal, authenticator: Authenticator) -> None:
    key, key_id = await new_key(context.database, user, scopes=[Right.SESSIONS_READ])
    caller = await authenticator.authenticate(key)
    service = CredentialService(context, caller)
    ticket = await service.make_ticket()
    left = ticket.expires_at - datetime.now(UTC)
    assert timedelta(seconds=20) < left <= timedelta(seconds=31)
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(ticket.ticket)
    done = await asyncio.gather(*(authenticator.admit_ticket(ticket.ticket) for _ in range(8)), return_exceptions=True)
    assert [who for who in done if isinstance(who, Principal)] == [caller]
    assert {error.code for error in done if isinstance(error, CarrelError)} == {"wrong_ticket"}
    # One that was made before the key was revoked is of no use after it.
    late = await service.make_ticket()
    await change_key(context.database, user, key_id, revoked_at=datetime.now(UTC))
    assert await code_of(authenticator.admit_ticket(late.ticket)) == "revoked"
    assert await code_of(authenticator.again(caller)) == "revoked"
    assert await code_of(authenticator.admit_ticket(key)) == "wrong_ticket"


async def test_a_ticket_has_its_time(context: ProcessContext, user: Principal, authenticator: Authenticator) -> None:
    key, _ = await new_key(context.database, user)
    ticket = await CredentialService(context, await authenticator.authenticate(key)).make_ticket()
    async with context.database.transaction(user.tenant_id) as tx:
        await tx.connection.execute(
            update(one_time_tokens)
            .where(one_time_tokens.c.tenant_id == user.tenant_id)
            .values(expires_at=datetime.now(UTC) - timedelta(milliseconds=1))
        )
    assert await code_of(authenticator.admit_ticket(ticket.ticket)) == "wrong_ticket"


async def test_a_ticket_of_the_installations_key(context: ProcessContext, authenticator: Authenticator) -> None:
    ticket = await CredentialService(context, default_principal()).make_ticket()
    assert await authenticator.admit_ticket(ticket.ticket) == default_principal()
    assert await authenticator.again(default_principal()) == default_principal()


async def test_rights_grow_and_shrink_with_the_role(
    context: ProcessContext, user: Principal, authenticator: Authenticator
) -> None:
    key, _ = await new_key(context.database, user)
    caller = await authenticator.authenticate(key)
    await change_user(context.database, user, role=Role.READONLY.value)
    assert (await authenticator.again(caller)).rights == rights_of(Role.READONLY)
    async with context.database.transaction(user.tenant_id) as tx:
        await tx.connection.execute(
            update(users)
            .where(users.c.tenant_id == user.tenant_id, users.c.id == user.user_id)
            .values(disabled_at=datetime.now(UTC))
        )
    assert await code_of(authenticator.again(caller)) == "disabled"
    assert await code_of(authenticator.again(replace(caller, credential_id=new_id()))) == "wrong_key"


async def test_the_first_key_is_made_once(make_settings: Callable[..., Settings], postgres_url: str) -> None:
    settings = make_settings(database_url=postgres_url)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_state(settings)) for _ in range(3)]
        made = await asyncio.gather(*map(make_first_key, opened))
        (key,) = [key for key in made if key]
        gate = Authenticator(opened[0], None)
        stack.push_async_callback(gate.aclose)
        caller = await gate.authenticate(key)
        assert (caller.user_id, caller.rights) == (default_principal().user_id, ALL_RIGHTS)
        assert caller.credential_id is not None
        await CredentialService(opened[0], caller).revoke_key(caller.credential_id)
        assert await make_first_key(opened[1]) is None
