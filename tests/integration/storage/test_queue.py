"""Messages that wait for the end of the run that is going on, over both databases.

Plan: without `queue` a second message is refused, with it it waits, is seen to wait, and is no part of the conversation
before its run begins; runs begin in the order of their messages, however the one before ended, in the transaction that
ends it, so that there is always one going on while a message waits, also when both come at the same moment; a gateway
that dies right then leaves an ordinary run, which another one takes over; the bound holds for many at once; a key is
one message, whether it waits, goes on, is over or was withdrawn; of withdrawing and beginning at once one wins; an
archived session begins none, and nor does a message of somebody who may send none any more; a fork has none; another
tenant withdraws none.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from tests.support.people import change_user, new_team, new_user
from tests.support.state import new_principal

from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.agents.protocols import Turn
from carrel_gateway.chat.preparation import prepare
from carrel_gateway.chat.service import ChatService, StartedRun
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, KeyReused, NotFound, SessionBusy, TooMany
from carrel_gateway.history.service import HistoryService
from carrel_gateway.runs.service import MAX_QUEUED, Fence, Run, RunService, claim_expired
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.sharing.sessions import SessionSharing
from carrel_gateway.storage.ids import new_id
from carrel_gateway.suspension.forking import Forking
from carrel_wire.log import AssistantMessage, LogPayload, MessageQueued, RunFinished, RunStarted, RunStatus, UserMessage


def counted() -> dict[str, float]:
    outcomes = ("queued", "begun", "withdrawn", "refused")
    return {
        name: REGISTRY.get_sample_value("carrel_queued_messages_total", {"outcome": name}) or 0.0 for name in outcomes
    }


class _Supervisor:
    """Drives nothing: the tests write what runs do."""

    async def require_usable(self, principal: Principal, model: str) -> None:
        pass

    def launch(self, principal: Principal, run: object) -> None:
        pass


class Desk:
    """One session, and the runs in it."""

    def __init__(self, context: ProcessContext, principal: Principal, session_id: UUID) -> None:
        self.context, self.principal, self.session_id = context, principal, session_id
        self.history = HistoryService(context, principal)
        self.runs = RunService(context, principal)
        self.chat = ChatService(context, principal, cast("Any", _Supervisor()))

    async def ask(self, content: str, *, key: str | None = None, queue: bool = True) -> StartedRun:
        return await self.chat.send(self.session_id, content, key=key, queue=queue)

    async def end(self, run_id: UUID, status: RunStatus = "succeeded") -> Run | None:
        """Do what a run does when it ends, and return the run that begins with it."""
        fence = Fence(run_id, 1)
        if status == "succeeded":
            said = AssistantMessage(message_id=new_id(), content="yes", run_id=run_id)
            await self.history.append(self.session_id, [said], actor="agent", fence=fence)
        return await self.runs.finish(self.session_id, fence, RunFinished(run_id=run_id, status=status))

    async def active(self) -> UUID | None:
        run = await self.runs.active(self.session_id)
        return run.id if run else None

    async def log(self) -> list[LogPayload]:
        return [event.payload for event in await self.history.events(self.session_id)]

    async def seen(self) -> tuple[list[str], list[str]]:
        """Return what the conversation has, and what waits."""
        found = await self.history.conversation(self.session_id, limit=100)
        assert found is not None
        return [item.content for item in found.page.items], [item.content for item in found.queued]

    async def waiting(self, content: str) -> UUID:
        found = await self.history.conversation(self.session_id, limit=1)
        assert found is not None
        return next(item.id for item in found.queued if item.content == content)

    async def ends(self) -> list[tuple[UUID, str, str | None]]:
        log = await self.log()
        return [(end.run_id, end.status, end.code) for end in log if isinstance(end, RunFinished)]


@pytest.fixture
def desk(context: ProcessContext, principal: Principal, session_id: UUID) -> Desk:
    return Desk(context, principal, session_id)


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
async def test_runs_begin_in_the_order_of_their_messages(desk: Desk, status: RunStatus) -> None:
    one = await desk.ask("one")
    with pytest.raises(SessionBusy):
        await desk.ask("two", queue=False)
    two, three = await desk.ask("two"), await desk.ask("three")
    assert await desk.seen() == (["one"], ["two", "three"])
    assert (await desk.log())[two.after] == MessageQueued(
        message_id=await desk.waiting("two"), content="two", run_id=two.run_id
    )
    begun = await desk.end(one.run_id, status)
    assert begun is not None
    assert (begun.id, begun.owner, begun.generation, begun.user_id, begun.model) == (
        two.run_id,
        desk.context.gateway_id,
        1,
        desk.principal.user_id,
        (await SessionService(desk.context, desk.principal).get(desk.session_id)).model,
    )
    end, question, started = (await desk.log())[-3:]
    assert isinstance(end, RunFinished)
    assert isinstance(question, UserMessage)
    assert (question.content, question.run_id) == ("two", two.run_id)
    assert started == RunStarted(run_id=two.run_id, kind="chat", model=begun.model)
    assert (await desk.seen())[1] == ["three"]
    assert [await desk.end(run.run_id) is not None for run in (two, three)] == [True, False]
    assert await desk.active() is None
    assert [run_id for run_id, *_ in await desk.ends()] == [one.run_id, two.run_id, three.run_id]
    assert [item.content for item in await desk.history.messages(desk.session_id) if item.role == "user"] == [
        "one",
        "two",
        "three",
    ]
    assert (await desk.ask("four")).run_id == await desk.active(), "nothing keeps it waiting"


async def test_a_question_has_its_answer_before_the_next_one_is_asked(desk: Desk) -> None:
    one = await desk.ask("one")
    await desk.ask("two")
    begun = await desk.end(one.run_id)
    assert begun is not None
    prepared = await prepare(desk.context, desk.principal, begun, ModelRegistry(desk.context.settings))
    assert (prepared.run.question, prepared.run.turns) == ("two", (Turn("one", "yes"),))


async def test_an_end_and_a_message_at_the_same_moment(desk: Desk) -> None:
    going_on = (await desk.ask("first")).run_id
    for place in range(12):
        asked, _ = await asyncio.gather(desk.ask(str(place)), desk.end(going_on))
        assert await desk.active() == asked.run_id, "it waits for nothing for ever"
        assert (await desk.seen())[1] == []
        going_on = asked.run_id
    begun = [event.run_id for event in await desk.log() if isinstance(event, RunStarted)]
    assert len(begun) == len(set(begun)) == 13


async def test_a_begun_run_is_taken_over_like_any_other(desk: Desk) -> None:
    one, two = await desk.ask("one"), await desk.ask("two")
    begun = await desk.end(one.run_id)  # and its gateway is killed before it does anything with it
    assert begun is not None
    await desk.runs.hand_over(Fence(begun.id, begun.generation))
    other = replace(desk.context, gateway_id=new_id())
    taken = [(who, run) for who, run in await claim_expired(other) if run.session_id == desk.session_id]
    assert [(who, run.id, run.generation) for who, run in taken] == [(desk.principal, two.run_id, 2)]


async def test_so_many_wait_and_no_more(desk: Desk) -> None:
    one, before = await desk.ask("one"), counted()
    outcomes = await asyncio.gather(*(desk.ask(str(place)) for place in range(MAX_QUEUED + 3)), return_exceptions=True)
    refused = [error for error in outcomes if isinstance(error, BaseException)]
    assert [(type(error), getattr(error, "code", "")) for error in refused] == [(TooMany, "too_many_queued")] * 3
    assert len((await desk.seen())[1]) == MAX_QUEUED
    await desk.chat.withdraw(desk.session_id, await desk.waiting((await desk.seen())[1][0]))
    await desk.ask("there is room again")
    await desk.end(one.run_id)
    now = counted()
    assert {name: now[name] - before[name] for name in now} == {
        "queued": MAX_QUEUED + 1,
        "begun": 1,
        "withdrawn": 1,
        "refused": 3,
    }


async def test_a_key_is_one_message(desk: Desk) -> None:
    one = await desk.ask("one", key="1")
    sent = await asyncio.gather(*(desk.ask("two", key="2") for _ in range(5)))
    assert len(set(sent)) == 1
    two = sent[0]
    assert await desk.seen() == (["one"], ["two"])
    assert await desk.ask("two", key="2", queue=False) == two, "it waits already"
    for other in ("zwei", "one"):
        with pytest.raises(KeyReused):
            await desk.ask(other, key="2")
    await desk.end(one.run_id)
    assert (await desk.ask("two", key="2")).run_id == two.run_id == await desk.active()
    await desk.end(two.run_id)
    again = await desk.ask("two", key="2")
    assert (again.run_id, (await desk.chat.outcome(desk.session_id, again)).finished.status) == (
        two.run_id,
        "succeeded",
    )
    assert await desk.seen() == (["one", "yes", "two", "yes"], [])


async def test_what_is_withdrawn_never_begins(desk: Desk) -> None:
    one, two, three = [await desk.ask(text, key=text) for text in ("one", "two", "three")]
    waiting = await desk.waiting("two")
    await desk.chat.withdraw(desk.session_id, waiting)
    outcome = await desk.chat.outcome(desk.session_id, two)
    assert (outcome.finished.status, outcome.finished.code, outcome.answer) == ("cancelled", "withdrawn", None)
    assert await desk.ask("two", key="two") == two, "nor when it is sent again"
    assert await desk.seen() == (["one"], ["three"])
    begun = await desk.end(one.run_id)
    assert begun is not None
    assert begun.id == three.run_id
    question = (await desk.history.messages(desk.session_id))[-1]
    for message_id, error, code in (
        (question.id, Conflict, "not_queued"),
        (waiting, NotFound, "message_not_found"),
        (new_id(), NotFound, "message_not_found"),
    ):
        with pytest.raises(error) as refused:
            await desk.chat.withdraw(desk.session_id, message_id)
        assert refused.value.code == code
    assert await desk.end(three.run_id) is None


async def test_an_end_and_a_withdrawal_at_the_same_moment(desk: Desk) -> None:
    going_on = (await desk.ask("first")).run_id
    for place in range(8):
        asked = await desk.ask(str(place))
        message_id = await desk.waiting(str(place))
        begun, withdrawn = await asyncio.gather(
            desk.end(going_on), desk.chat.withdraw(desk.session_id, message_id), return_exceptions=True
        )
        if begun is None:
            assert withdrawn is None
            assert (asked.run_id, "cancelled", "withdrawn") in await desk.ends()
            going_on = (await desk.ask("next")).run_id
        else:
            assert isinstance(begun, Run)
            assert isinstance(withdrawn, Conflict)
            going_on = asked.run_id
        assert await desk.active() == going_on


async def test_an_archived_session_begins_none(desk: Desk) -> None:
    one, two, three = [await desk.ask(text) for text in ("one", "two", "three")]
    await SessionService(desk.context, desk.principal).archive(desk.session_id)
    assert await desk.end(one.run_id) is None
    assert (await desk.ends())[1:] == [(run.run_id, "cancelled", "archived") for run in (two, three)]
    assert await desk.active() is None
    assert await desk.seen() == (["one", "yes"], [])


async def test_nobodys_message_begins_who_may_send_none_any_more(desk: Desk) -> None:
    database, tenant_id = desk.context.database, desk.principal.tenant_id
    demoted, disabled, unshared, still = [await new_user(database, tenant_id) for _ in range(4)]
    team = await new_team(database, demoted, disabled, still)
    await SessionSharing(desk.context, desk.principal).share(desk.session_id, team, "write")
    one = await desk.ask("one")
    sent = {
        user.user_id: await ChatService(desk.context, user, cast("Any", _Supervisor())).send(
            desk.session_id, "x", queue=True
        )
        for user in (demoted, disabled, unshared, still)
    }
    await change_user(database, demoted, role="readonly")
    await change_user(database, disabled, disabled_at=datetime.now(UTC))
    begun = await desk.end(one.run_id)
    assert begun is not None
    assert (begun.id, begun.user_id) == (sent[still.user_id].run_id, still.user_id)
    assert (await desk.ends())[1:] == [
        (sent[user.user_id].run_id, "cancelled", "permission_denied") for user in (demoted, disabled, unshared)
    ]


async def test_a_fork_has_none(desk: Desk) -> None:
    await desk.ask("one")
    await desk.ask("two")
    session = await SessionService(desk.context, desk.principal).get(desk.session_id)
    fork = await Forking(desk.context, desk.principal).fork(session, title=None, snapshot=None)
    assert await Desk(desk.context, desk.principal, fork.id).seen() == (["one"], [])


async def test_another_tenant_withdraws_none(desk: Desk) -> None:
    await desk.ask("one")
    await desk.ask("two")
    stranger = Desk(desk.context, await new_principal(desk.context.database), desk.session_id)
    with pytest.raises(NotFound):
        await stranger.chat.withdraw(desk.session_id, await desk.waiting("two"))
    assert not await stranger.runs.withdraw(desk.session_id, await desk.waiting("two"))
    assert (await desk.seen())[1] == ["two"]
