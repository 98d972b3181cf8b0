"""Quotas over both databases.

Plan: of two hundred executions at once exactly as many begin as there may be, counted one by one or ahead, and two
gateways never let through more; what one scope refuses is not counted in another; a day begins anew, and what was
counted on one that is over is removed; sessions that are made, forked and archived at once are never more than there
may be; whose limit it is: the tenant's, a team's members', each user's, one's own, that of the installation; a limit
holds at once where it was set, and soon elsewhere; who may set and see limits, what is set wrongly, and that it is in
the audit log; another tenant has its own.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import msgspec
import pytest
from prometheus_client import REGISTRY
from tests.support.people import new_team, new_user
from tests.support.state import new_principal

from carrel_gateway.audit.service import AuditService, Filter
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import InvalidInput, NotFound, PermissionDenied
from carrel_gateway.identity.rights import Role, rights_of
from carrel_gateway.quotas import keeper as keeper_module
from carrel_gateway.quotas.keeper import KNOWN_SECONDS, QuotaKeeper, QuotaReached
from carrel_gateway.quotas.service import QuotaService, QuotaState
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.storage.ids import new_id
from carrel_gateway.suspension.forking import Forking


@pytest.fixture
def quotas(context: ProcessContext, principal: Principal) -> QuotaService:
    return QuotaService(context, principal)


async def begin(keeper: QuotaKeeper, who: Principal, count: int) -> int:
    """Begin so many executions at once, and return how many might."""
    begun = [keeper.count_execution(who.tenant_id, who.user_id) for _ in range(count)]
    ends = await asyncio.gather(*begun, return_exceptions=True)
    assert all(end is None or isinstance(end, QuotaReached) for end in ends), ends
    return ends.count(None)


async def used(quotas: QuotaService) -> dict[str, int | None]:
    return {one.scope: one.used for one in await quotas.own()}


@pytest.mark.parametrize("limit", [0, 1, 50, 120])
async def test_of_two_hundred_at_once_as_many_begin_as_may(
    context: ProcessContext, principal: Principal, quotas: QuotaService, limit: int
) -> None:
    await quotas.put("user", None, "executions", limit)
    assert await begin(context.quotas, principal, 200) == limit
    assert await used(quotas) == {"user": limit}
    assert await begin(context.quotas, principal, 1) == 0


async def test_two_gateways_together_let_no_more_through(
    context: ProcessContext, principal: Principal, quotas: QuotaService
) -> None:
    limit = 150
    await quotas.put("tenant", None, "executions", limit)
    other = QuotaKeeper(context.database, context.settings)
    begun = await asyncio.gather(begin(context.quotas, principal, 200), begin(other, principal, 200))
    lost = 2 * limit // 50
    assert limit - lost <= sum(begun) <= limit
    assert await used(quotas) == {"tenant": limit}


async def test_what_one_refuses_is_not_counted_elsewhere(
    context: ProcessContext, principal: Principal, quotas: QuotaService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await quotas.put("tenant", None, "executions", 40)
    await quotas.put("user", principal.user_id, "executions", 3)
    labels = {"resource": "executions", "scope": "user"}
    before = REGISTRY.get_sample_value("carrel_quota_reached_total", labels) or 0
    assert await begin(context.quotas, principal, 10) == 3
    assert REGISTRY.get_sample_value("carrel_quota_reached_total", labels) == before + 7
    assert await used(quotas) == {"tenant": 3, "user": 3}
    for day in ("2020-01-01", "2099-01-01"):
        monkeypatch.setattr(keeper_module, "today", lambda day=day: day)
        assert await begin(context.quotas, principal, 10) == 3
    assert await quotas.sweep() == 2  # of the tenant and of the user, in 2020
    assert await used(quotas) == {"tenant": 3, "user": 3}


async def test_sessions_at_once_are_never_more(
    context: ProcessContext, principal: Principal, quotas: QuotaService
) -> None:
    sessions = SessionService(context, principal)
    await quotas.put("user", None, "sessions", 5)
    made = await asyncio.gather(*(sessions.create() for _ in range(20)), return_exceptions=True)
    there = [one for one in made if not isinstance(one, BaseException)]
    assert len(there) == 5
    refused = next(one for one in made if isinstance(one, QuotaReached))
    assert (refused.status, refused.retry_after_seconds, refused.detail["reason"]) == (429, 60, "quota")
    assert "you may have 5 sessions" in refused.message
    with pytest.raises(QuotaReached):
        await Forking(context, principal).fork(there[0], title=None, snapshot=None)
    await sessions.archive(there[1].id)
    await Forking(context, principal).fork(there[0], title=None, snapshot=None)
    with pytest.raises(QuotaReached):
        await sessions.create()
    assert await used(quotas) == {"user": 5}
    await sessions.delete(there[0].id)
    await sessions.create()


async def test_whose_limit_it_is(context: ProcessContext, principal: Principal, quotas: QuotaService) -> None:
    mate, third = [await new_user(context.database, principal.tenant_id) for _ in range(2)]
    team = await new_team(context.database, principal, mate)
    await quotas.put("user", None, "sessions", 2)
    await quotas.put("user", mate.user_id, "sessions", 4)
    await quotas.put("team", team, "sessions", 5)
    await quotas.put("tenant", None, "sessions", 6)

    async def make(who: Principal, count: int) -> int:
        made = [SessionService(context, who).create() for _ in range(count)]
        return sum(not isinstance(one, BaseException) for one in await asyncio.gather(*made, return_exceptions=True))

    assert await make(principal, 4) == 2
    assert await make(mate, 5) == 3  # the team's, before their own
    assert await make(third, 5) == 1  # the tenant's, before that of each
    assert await QuotaService(context, mate).own() == [
        QuotaState("tenant", None, "sessions", 6, 6),
        QuotaState("team", team, "sessions", 5, 5),
        QuotaState("user", mate.user_id, "sessions", 4, 3),
    ]
    listed = {(one.scope, one.scope_id): (one.limit, one.used) for one in await quotas.list()}
    assert listed == {
        ("tenant", None): (6, 6),
        ("team", team): (5, 5),
        ("user", None): (2, None),
        ("user", mate.user_id): (4, 3),
    }
    stranger = await new_principal(context.database)
    assert await make(stranger, 3) == 3
    assert await QuotaService(context, stranger).list() == []


async def test_members_of_a_team_share_its_executions(
    context: ProcessContext, principal: Principal, quotas: QuotaService
) -> None:
    mate, third = [await new_user(context.database, principal.tenant_id) for _ in range(2)]
    await quotas.put("team", await new_team(context.database, principal, mate), "executions", 4)
    assert await begin(context.quotas, principal, 3) == 3
    assert await begin(context.quotas, mate, 3) == 1
    assert await begin(context.quotas, third, 3) == 3


async def test_a_limit_is_known_at_once_here_and_soon_elsewhere(
    context: ProcessContext, principal: Principal, quotas: QuotaService
) -> None:
    now = 0.0
    other = QuotaKeeper(context.database, context.settings, clock=lambda: now)
    assert await begin(other, principal, 2) == 2
    await quotas.put("tenant", None, "executions", 1)
    assert await begin(context.quotas, principal, 3) == 1
    assert await begin(other, principal, 2) == 2
    now = KNOWN_SECONDS
    assert await begin(other, principal, 2) == 0
    await quotas.put("tenant", None, "executions", None)
    assert await begin(context.quotas, principal, 3) == 3


async def test_the_installation_has_one_for_whom_there_is_no_other(
    context: ProcessContext, principal: Principal, quotas: QuotaService
) -> None:
    settings = context.settings.model_copy(update={"max_concurrent_sessions": 1})
    context = replace(context, settings=settings, quotas=QuotaKeeper(context.database, settings))
    sessions = SessionService(context, principal)
    await sessions.create()
    with pytest.raises(QuotaReached):
        await sessions.create()
    assert await QuotaService(context, principal).own() == [QuotaState("user", principal.user_id, "sessions", 1, 1)]
    await quotas.put("user", principal.user_id, "sessions", 2)
    await sessions.create()
    with pytest.raises(QuotaReached):
        await sessions.create()


async def test_who_sets_and_sees_them(context: ProcessContext, principal: Principal, quotas: QuotaService) -> None:
    user = QuotaService(context, await new_user(context.database, principal.tenant_id))
    reader = QuotaService(context, replace(principal, rights=rights_of(Role.USER)))
    for who in (user, reader):
        with pytest.raises(PermissionDenied):
            await who.put("tenant", None, "sessions", 1)
        with pytest.raises(PermissionDenied):
            await who.list()
    await quotas.put("user", principal.user_id, "executions", 7)
    await quotas.put("user", principal.user_id, "executions", 9)
    assert await quotas.list() == [QuotaState("user", principal.user_id, "executions", 9, 0)]
    assert await quotas.put("user", principal.user_id, "executions", None) is None
    told = (await AuditService(context, principal).list(Filter(action="quota.set"))).items[::-1]
    assert [(one.target, msgspec.json.decode(one.detail)["limit"]) for one in told] == [
        (str(principal.user_id), limit) for limit in (7, 9, None)
    ]


@pytest.mark.parametrize(
    ("scope", "scope_id", "limit", "error", "word"),
    [
        ("team", None, 1, InvalidInput, "must be named"),
        ("tenant", new_id(), 1, InvalidInput, "nothing for the tenant"),
        ("team", new_id(), 1, NotFound, "no such team"),
        ("user", new_id(), 1, NotFound, "no such user"),
        ("user", None, None, NotFound, "no such limit"),
    ],
)
async def test_what_is_set_wrongly(
    quotas: QuotaService, scope: str, scope_id: UUID | None, limit: int | None, error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        await quotas.put(scope, scope_id, "sessions", limit)  # pyright: ignore[reportArgumentType]  all of them are scopes
    assert await quotas.list() == []
