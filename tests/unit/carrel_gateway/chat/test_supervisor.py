"""Driving runs: leases, cancelling, taking over, handing over. Real SQLite, bus and loop; a scripted model; no kernel.

Plan: an answer; a failure of every kind ends the run with a reason; cancel while the model is silent; a silent owner's
run is taken over from its log, and the old owner stops without a trace; a handed-over run is taken over at once; what
waits is driven when its turn comes, after an end of every kind, and handed over when that is the process's own end; the
questions that went before.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from tests.support.local import settings_for
from tests.support.scripted_model import ScriptedModel

from carrel_gateway.agents.protocols import Turn
from carrel_gateway.chat.preparation import turns_before
from carrel_gateway.chat.service import ChatService
from carrel_gateway.chat.supervisor import CANCEL_CHANNEL, RunSupervisor
from carrel_gateway.context import Principal
from carrel_gateway.errors import ModelFailed, SessionBusy, StaleRun
from carrel_gateway.history.service import HistoryService, Message
from carrel_gateway.identity.service import DEFAULT_TENANT_ID, DEFAULT_USER_ID
from carrel_gateway.opening import open_context
from carrel_gateway.runs.repository import Run
from carrel_gateway.runs.service import RunService
from carrel_gateway.sessions.service import SessionService

PRINCIPAL = Principal(tenant_id=DEFAULT_TENANT_ID, user_id=DEFAULT_USER_ID)
LEASE_SECONDS = 0.6
DEADLINE_SECONDS = 30


class Models:
    """One model for every name."""

    def __init__(self, model) -> None:
        self.model = model

    def require(self, _: str, *, has_key: bool) -> None:
        assert not has_key

    def client(self, _: str, *, api_key: str | None):
        assert api_key is None
        return self.model


class SilentModel:
    """Says nothing until it is told to."""

    name = "test/silent"

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def stream(self, _view):
        self.asked.set()
        await asyncio.Event().wait()
        yield None


@pytest.fixture
async def context(tmp_path):
    opened = await open_context(settings_for(tmp_path, run_lease_seconds=LEASE_SECONDS))
    yield opened
    await opened.aclose()


@pytest.fixture
async def supervised(context):
    made = []

    async def make(model):
        supervisor = RunSupervisor(context, Models(model))
        made.append(supervisor)
        await supervisor.start()
        return supervisor

    yield make
    for supervisor in made:
        await supervisor.aclose()


async def opened_session(context) -> UUID:
    return (await SessionService(context, PRINCIPAL).create(title="t")).id


async def events(context, session_id):
    return await HistoryService(context, PRINCIPAL).events(session_id, limit=500)


async def ended(context, session_id):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = [event.payload for event in await events(context, session_id) if event.type == "run.finished"]
        if found:
            return found[0]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def seen(context, session_id, kind):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while kind not in [event.type for event in await events(context, session_id)]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_answer(context, supervised):
    model = ScriptedModel(["<answer>It is 42.</answer>"])
    chat = ChatService(context, PRINCIPAL, await supervised(model))
    session_id = await opened_session(context)
    started = await chat.send(session_id, "What is it?")
    outcome = await chat.outcome(session_id, started)
    assert (outcome.finished.status, outcome.answer.content) == ("succeeded", "It is 42.")
    assert model.views[0].question == "What is it?"
    second = ScriptedModel(["<answer>Yes.</answer>"])
    again = ChatService(context, PRINCIPAL, await supervised(second))
    await again.outcome(session_id, await again.send(session_id, "Really?"))
    assert second.views[0].turns == (Turn("What is it?", "It is 42."),)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ModelFailed("the provider says no"), "model_failed", "the provider says no"),
        (RuntimeError("secret detail"), "internal", "something went wrong here; the server's log has it"),
    ],
)
async def test_failures_end_the_run_with_a_reason(context, supervised, error, code, message):
    chat = ChatService(context, PRINCIPAL, await supervised(ScriptedModel([error])))
    session_id = await opened_session(context)
    outcome = await chat.outcome(session_id, await chat.send(session_id, "?"))
    assert (outcome.finished.status, outcome.finished.code, outcome.finished.message) == ("failed", code, message)
    assert outcome.answer is None


async def test_second_message_while_one_is_going_on(context, supervised):
    model = SilentModel()
    chat = ChatService(context, PRINCIPAL, await supervised(model))
    session_id = await opened_session(context)
    started = await chat.send(session_id, "?")
    with pytest.raises(SessionBusy) as refused:
        await chat.send(session_id, "??")
    assert refused.value.detail == {"run_id": str(started.run_id)}


async def test_cancel_while_the_model_is_silent(context, supervised):
    model = SilentModel()
    chat = ChatService(context, PRINCIPAL, await supervised(model))
    session_id = await opened_session(context)
    started = await chat.send(session_id, "?")
    await asyncio.wait_for(model.asked.wait(), DEADLINE_SECONDS)
    assert await chat.cancel(session_id) == started.run_id
    end = await ended(context, session_id)
    assert (end.status, end.code) == ("cancelled", "cancelled")
    assert await chat.cancel(session_id) is None


async def ends_of(context, session_id, count):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        ends = [event.payload for event in await events(context, session_id) if event.type == "run.finished"]
        if len(ends) == count:
            return ends
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(("reply", "status"), [("<answer>Yes.</answer>", "succeeded"), (RuntimeError("x"), "failed")])
async def test_what_waits_is_driven_when_its_turn_comes(context, supervised, reply, status):
    go_on = asyncio.Event()

    class Slow(ScriptedModel):
        async def stream(self, view):
            await go_on.wait()
            async for chunk in super().stream(view):
                yield chunk

    model = Slow([reply])
    chat = ChatService(context, PRINCIPAL, await supervised(model))
    session_id = await opened_session(context)
    sent = [await chat.send(session_id, text, queue=True) for text in ("1", "2", "3")]
    go_on.set()
    ends = await ends_of(context, session_id, 3)
    assert [(end.run_id, end.status) for end in ends] == [(run.run_id, status) for run in sent]
    assert [view.question for view in model.views] == ["1", "2", "3"]


async def test_cancel_ends_the_run_that_goes_on_and_the_next_has_its_turn(context, supervised):
    model = SilentModel()
    chat = ChatService(context, PRINCIPAL, await supervised(model))
    session_id = await opened_session(context)
    first, second = [await chat.send(session_id, text, queue=True) for text in ("1", "2")]
    for run in (first, second):
        await asyncio.wait_for(model.asked.wait(), DEADLINE_SECONDS)
        model.asked.clear()
        assert await chat.cancel(session_id, UUID(int=7)) is None
        assert await chat.cancel(session_id, run.run_id) == run.run_id
    assert [end.status for end in await ends_of(context, session_id, 2)] == ["cancelled", "cancelled"]


async def test_what_begins_as_the_process_ends_is_handed_over(context, supervised, monkeypatch):
    finish, finishing = RunService.finish, asyncio.Event()

    async def late(*arguments):
        finishing.set()
        with suppress(asyncio.CancelledError):  # the process ends, and the last commit is on its way
            await asyncio.Event().wait()
        return await finish(*arguments)

    first = await supervised(ScriptedModel(["<answer>Yes.</answer>"]))
    chat = ChatService(context, PRINCIPAL, first)
    session_id = await opened_session(context)
    with monkeypatch.context() as patch:
        patch.setattr(RunService, "finish", late)
        await chat.send(session_id, "1")
        waiting = await chat.send(session_id, "2", queue=True)
        await asyncio.wait_for(finishing.wait(), DEADLINE_SECONDS)
        await first.aclose()
    second = RunSupervisor(context, Models(ScriptedModel(["<answer>Here.</answer>"])))
    await second._claim()
    assert list(second._driven) == [waiting.run_id]
    ends = await ends_of(context, session_id, 2)
    await second.aclose()
    assert [end.status for end in ends] == ["succeeded", "succeeded"]


async def test_lost_news_are_no_failure_and_cancels_are_heard_after(context, supervised):
    session_id = await opened_session(context)
    model = SilentModel()
    supervisor = await supervised(model)
    await asyncio.sleep(0)
    with capture_logs() as logged:
        context.bus._readers.lose_all("cut")
        started = await ChatService(context, PRINCIPAL, supervisor).send(session_id, "q")
        await model.asked.wait()
        await context.bus.publish(CANCEL_CHANNEL, started.run_id.bytes)
        assert (await ended(context, session_id)).status == "cancelled"
    assert [line for line in logged if line["log_level"] == "error"] == []


async def test_cancel_reaches_the_process_that_drives(context, supervised):
    model = SilentModel()
    driving = await supervised(model)
    other = await supervised(ScriptedModel([]))
    session_id = await opened_session(context)
    await ChatService(context, PRINCIPAL, driving).send(session_id, "?")
    await asyncio.wait_for(model.asked.wait(), DEADLINE_SECONDS)
    await ChatService(context, PRINCIPAL, other).cancel(session_id)
    assert (await ended(context, session_id)).status == "cancelled"


async def test_silent_owner_is_replaced_and_leaves_no_trace(context, supervised, monkeypatch):
    model = SilentModel()
    silent = await supervised(model)
    session_id = await opened_session(context)
    with monkeypatch.context() as patch:
        # a process that is stopped (SIGSTOP) renews nothing and claims nothing
        patch.setattr("carrel_gateway.chat.supervisor.RunService.renew", lambda *_: asyncio.Event().wait())
        for task in silent._background:
            task.cancel()
        await ChatService(context, PRINCIPAL, silent).send(session_id, "?")
        await asyncio.wait_for(model.asked.wait(), DEADLINE_SECONDS)
        await asyncio.sleep(0)
        taker = RunSupervisor(context, Models(ScriptedModel(["<answer>Taken over.</answer>"])))
        deadline = time.monotonic() + DEADLINE_SECONDS
        await taker._claim()
        while not taker._driven:  # looked at before anything else runs: the run may be over a moment later
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
            await taker._claim()
    end = await ended(context, session_id)
    await taker.aclose()
    assert end.status == "succeeded"
    kinds = [event.type for event in await events(context, session_id)]
    assert kinds.count("run.taken_over") == 1
    assert kinds[-1] == "run.finished"
    (old,) = silent._driven.values()
    with pytest.raises(StaleRun):
        await HistoryService(context, PRINCIPAL).append(session_id, [end], actor="agent", fence=old.fence)


async def test_handed_over_run_is_taken_over_at_once(context, supervised):
    model = SilentModel()
    first = await supervised(model)
    session_id = await opened_session(context)
    await ChatService(context, PRINCIPAL, first).send(session_id, "?")
    await asyncio.wait_for(model.asked.wait(), DEADLINE_SECONDS)
    await first.aclose()
    second = RunSupervisor(context, Models(ScriptedModel(["<answer>Still here.</answer>"])))
    await second._claim()
    assert len(second._driven) == 1
    end = await ended(context, session_id)
    await second.aclose()
    assert end.status == "succeeded"


async def test_lease_is_held_while_the_model_thinks(context, supervised):
    model = SilentModel()
    first = await supervised(model)
    await supervised(ScriptedModel([]))
    session_id = await opened_session(context)
    await ChatService(context, PRINCIPAL, first).send(session_id, "?")
    await asyncio.sleep(3 * LEASE_SECONDS)  # longer than the lease: that nobody takes it over is the point
    assert "run.taken_over" not in [event.type for event in await events(context, session_id)]
    assert len(first._driven) == 1


async def test_lease_is_held_while_what_a_dead_gateway_left_is_found_out(context, supervised, monkeypatch):
    async def slow(_self, _session_id):
        await asyncio.sleep(3 * LEASE_SECONDS)  # a kernel host that starts on another node

    monkeypatch.setattr("carrel_gateway.chat.supervisor.ExecutionService.recover", slow)
    dead = RunSupervisor(context, Models(None))
    monkeypatch.setattr(dead, "launch", lambda *_: None)  # it died right after the commit
    session_id = await opened_session(context)
    await ChatService(context, PRINCIPAL, dead).send(session_id, "?")
    await supervised(ScriptedModel(["<answer>One.</answer>"]))
    await supervised(ScriptedModel(["<answer>Two.</answer>"]))
    assert (await ended(context, session_id)).status == "succeeded"
    assert [event.type for event in await events(context, session_id)].count("run.taken_over") == 1


def message(role, content, run_id):
    return Message(UUID(int=1), 1, role, content, run_id, [], datetime.now(UTC))


def run_of(run_id):
    now = datetime.now(UTC)
    return Run(run_id, UUID(int=9), UUID(int=8), "chat", None, "running", UUID(int=7), 1, now, False, now)


def test_questions_that_were_not_answered_are_no_turns():
    first, second, third = (UUID(int=number) for number in (1, 2, 3))
    conversation = [
        message("user", "a", first),
        message("assistant", "A", first),
        message("user", "b", second),
        message("user", "c", third),
    ]
    assert turns_before(conversation, run_of(third)) == (Turn("a", "A"),)
    assert turns_before(conversation, run_of(first)) == ()
