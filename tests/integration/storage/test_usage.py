"""The ledger of usage over both databases.

Plan: a model's call is entered once, for whoever asked, in the transaction that appends it; read models made anew and
a fork's copy of the log enter nothing; a call outside of a run is nobody's; sums tell apart what was asked, and by
filters have what fits; a call without a known price is counted as such; what is deleted leaves its entries; only who
may read the tenant sees others', and another tenant sees none; the application can change and delete no entry; too
many rows are refused.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from tests.support.people import new_team, new_user
from tests.support.servers import Postgres
from tests.support.state import new_principal

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import InvalidInput, PermissionDenied, StaleRun
from carrel_gateway.history.rebuild import rebuild
from carrel_gateway.history.service import HistoryService
from carrel_gateway.identity.rights import Role, rights_of
from carrel_gateway.runs.service import Fence, RunService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.storage.ids import new_id
from carrel_gateway.suspension.forking import Forking
from carrel_gateway.usage import service
from carrel_gateway.usage.service import Filter, UsageService, Used
from carrel_wire.log import ModelCalled, RunFinished, RunStarted

EVER = Filter(date(2000, 1, 1), date(3000, 1, 1))


def call(run_id: UUID, **named: Any) -> ModelCalled:
    given = {"model": "small", "input_tokens": 100, "output_tokens": 10, "cost": 0.001, **named}
    return ModelCalled(run_id=run_id, purpose="act", text="", **given)


async def ask(context: ProcessContext, principal: Principal, *calls: dict[str, Any]) -> UUID:
    """Have a run in a new session call models, and return the session."""
    session_id = (await SessionService(context, principal).create()).id
    runs, run_id = RunService(context, principal), new_id()
    run = await runs.start(
        session_id, kind="chat", first=[RunStarted(run_id=run_id, kind="chat", model="m")], model="m", run_id=run_id
    )
    fence = Fence(run_id=run.id, generation=run.generation)
    payloads = [call(run.id, **named) for named in calls]
    await HistoryService(context, principal).append(session_id, payloads, actor="agent", fence=fence)
    await runs.finish(session_id, fence, RunFinished(run_id=run.id, status="succeeded"))
    return session_id


def admin(of: Principal) -> Principal:
    return Principal(of.tenant_id, new_id(), Role.ADMIN, rights_of(Role.ADMIN))


def counted() -> list[float]:
    series = [("carrel_model_tokens_total", {"direction": way}) for way in ("input", "output")]
    series += [("carrel_model_cost_dollars_total", {}), ("carrel_model_unpriced_calls_total", {})]
    return [REGISTRY.get_sample_value(name, labels) or 0.0 for name, labels in series]


async def test_calls_are_entered_once_for_whoever_asked(context: ProcessContext, principal: Principal) -> None:
    before = counted()
    session_id = await ask(context, principal, {}, {"model": "large", "cost": None, "input_tokens": None})
    more = [after - first for after, first in zip(counted(), before, strict=True)]
    assert more == pytest.approx([100, 20, 0.001, 1])
    usage = UsageService(context, principal)
    today = datetime.now(UTC).date().isoformat()
    mine = {"user_id": principal.user_id, "session_id": session_id, "day": today, "calls": 1, "output_tokens": 10}
    expected = [
        Used(model="large", input_tokens=0, cost_micros=0, unpriced=1, **mine),
        Used(model="small", input_tokens=100, cost_micros=1000, unpriced=0, **mine),
    ]
    keys = ("day", "user", "session", "model")
    assert await usage.own(EVER, keys) == expected
    await rebuild(context.database, principal.tenant_id, session_id)
    source = await SessionService(context, principal).get(session_id)
    await Forking(context, principal).fork(source, title=None, snapshot=None)
    history = HistoryService(context, principal)
    await history.append(session_id, [call(new_id())], actor="agent")  # of no run that there is
    assert await usage.own(EVER, keys) == expected
    sessions = SessionService(context, principal)
    await sessions.archive(session_id)
    await sessions.delete(session_id)
    assert await usage.own(EVER, keys) == expected


async def test_a_run_that_is_another_gateways_enters_nothing(context: ProcessContext, principal: Principal) -> None:
    session_id = await ask(context, principal, {})
    (run_id,) = {
        event.payload.run_id
        for event in await HistoryService(context, principal).events(session_id)
        if isinstance(event.payload, ModelCalled)
    }
    with pytest.raises(StaleRun):
        await HistoryService(context, principal).append(
            session_id, [call(run_id)], actor="agent", fence=Fence(run_id=run_id, generation=1)
        )
    assert [one.calls for one in await UsageService(context, principal).own(EVER, ("day",))] == [1]


async def test_sums_and_filters(context: ProcessContext, principal: Principal) -> None:
    other = await new_user(context.database, principal.tenant_id)
    team = await new_team(context.database, other)
    first = await ask(context, principal, {}, {}, {"model": "large"})
    await ask(context, other, {"cost": 2.5})
    usage = UsageService(context, admin(principal))

    async def told(wanted: Filter, *by: service.Key) -> list[tuple[Any, ...]]:
        found = await usage.of_tenant(wanted, by)
        return [(one.model, one.calls, one.input_tokens, one.cost_micros) for one in found]

    assert await told(EVER) == [(None, 4, 400, 2_503_000)]
    assert await told(EVER, "model") == [("large", 1, 100, 1000), ("small", 3, 300, 2_502_000)]
    by_user = {one.user_id: one.calls for one in await usage.of_tenant(EVER, ("user",))}
    assert by_user == {principal.user_id: 3, other.user_id: 1}
    days = (EVER.since, EVER.until)
    assert await told(Filter(*days, session_id=first), "model") == [("large", 1, 100, 1000), ("small", 2, 200, 2000)]
    assert await told(Filter(*days, team_id=team)) == [(None, 1, 100, 2_500_000)]
    assert await told(Filter(*days, user_id=principal.user_id, model="large")) == [(None, 1, 100, 1000)]
    assert await told(Filter(date(2000, 1, 1), date(2000, 1, 2))) == []


async def test_whose_it_may_be(context: ProcessContext, principal: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    other = await new_user(context.database, principal.tenant_id)
    await ask(context, principal, {}, {"model": "large"})
    assert await UsageService(context, other).own(EVER, ("day",)) == []
    with pytest.raises(PermissionDenied):
        await UsageService(context, other).of_tenant(EVER, ("day",))
    stranger = await new_principal(context.database)
    assert await UsageService(context, admin(stranger)).of_tenant(EVER, ()) == []
    monkeypatch.setattr(service, "MAX_ROWS", 1)
    with pytest.raises(InvalidInput, match="fewer days"):
        await UsageService(context, principal).own(EVER, ("model",))
    assert len(await UsageService(context, principal).own(EVER, ("day",))) == 1


@pytest.mark.parametrize("settings", ["postgres"], indirect=True)
async def test_the_application_changes_no_entry(
    context: ProcessContext, principal: Principal, postgres: Postgres, postgres_database: str
) -> None:
    await ask(context, principal, {})
    for statement in ("UPDATE usage SET input_tokens = 0", "DELETE FROM usage"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            async with context.database.transaction(principal.tenant_id) as tx:
                await tx.connection.execute(
                    text(f"{statement} WHERE tenant_id = :tenant_id"), {"tenant_id": principal.tenant_id}
                )
    mine = f"SELECT input_tokens FROM usage WHERE tenant_id = '{principal.tenant_id}'"
    assert postgres.sql(mine, database=postgres_database) == "100"
