"""HEAD over both databases: edited questions and answers that are made anew.

Plan: an edited question replaces itself and what follows, an answer made anew only the answers; messages and the next
run's context are those of the branch, the log keeps everything; refusals change nothing; a run that is going on is
busy, and of two edits at once one wins; the kernel is stale when it has run what is left behind, until it is a new
one; a fork has the same branch; read models made anew are the same; the search finds the branch alone.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import select

from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.agents.protocols import Turn
from carrel_gateway.chat.preparation import prepare
from carrel_gateway.chat.service import ChatService, StartedRun
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, InvalidInput, NotFound, SessionBusy
from carrel_gateway.history.rebuild import rebuild
from carrel_gateway.history.search import SearchService
from carrel_gateway.history.service import HistoryService, Message
from carrel_gateway.history.tables import cells, messages
from carrel_gateway.runs.service import Fence, RunService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.storage.ids import new_id
from carrel_gateway.suspension.forking import Forking
from carrel_wire.log import AssistantMessage, CellFinished, HeadMoved, KernelChanged, RunFinished


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

    async def answer(self, run: StartedRun, text: str, *, code: str | None = None) -> None:
        """Do what a run does, to its end."""
        fence = Fence(run.run_id, 1)
        if code:
            cell = CellFinished(execution_id=new_id(), status="ok", code=code, run_id=run.run_id)
            await self.history.append(self.session_id, [cell], actor="kernel", fence=fence)
        said = AssistantMessage(message_id=new_id(), content=text, run_id=run.run_id)
        await self.history.append(self.session_id, [said], actor="agent", fence=fence)
        await self.runs.finish(self.session_id, fence, RunFinished(run_id=run.run_id, status="succeeded"))

    async def ask(self, question: str, answer: str, *, code: str | None = None) -> None:
        await self.answer(await self.chat.send(self.session_id, question), answer, code=code)

    async def said(self) -> list[Message]:
        return await self.history.messages(self.session_id)

    async def texts(self) -> list[str]:
        return [item.content for item in await self.said()]

    async def stale_seq(self) -> int | None:
        return (await SessionService(self.context, self.principal).get(self.session_id)).stale_seq

    async def moves(self) -> list[HeadMoved]:
        log = await self.history.events(self.session_id)
        return [event.payload for event in log if isinstance(event.payload, HeadMoved)]


@pytest.fixture
def desk(context: ProcessContext, principal: Principal, session_id: UUID) -> Desk:
    return Desk(context, principal, session_id)


async def test_an_edited_question_replaces_what_follows(desk: Desk) -> None:
    await desk.ask("one", "1")
    await desk.ask("two", "2")
    await desk.ask("three", "3")
    before = await desk.history.events(desk.session_id)
    two = (await desk.said())[2]
    run = await desk.chat.replace(desk.session_id, two.id, "zwei")
    assert await desk.texts() == ["one", "1", "zwei"]
    await desk.answer(run, "II")
    said = await desk.said()
    assert [item.content for item in said] == ["one", "1", "zwei", "II"]
    assert two.id not in [item.id for item in said]
    (moved,) = await desk.moves()
    assert (moved.message_id, moved.head, moved.reason, moved.kernel_stale) == (two.id, two.seq - 1, "edit", False)
    assert (await desk.history.events(desk.session_id))[: len(before)] == before, "the log only grows"


async def test_an_answer_is_made_anew(desk: Desk) -> None:
    await desk.ask("one", "1")
    await desk.ask("two", "2")
    question, answer = (await desk.said())[2:]
    await desk.answer(await desk.chat.replace(desk.session_id, answer.id, None), "II")
    assert await desk.texts() == ["one", "1", "two", "II"]
    await desk.answer(await desk.chat.replace(desk.session_id, question.id, None), "ii")
    said = await desk.said()
    assert [item.content for item in said] == ["one", "1", "two", "ii"]
    assert said[2].id == question.id
    assert [moved.head for moved in await desk.moves()] == [question.seq, question.seq]


async def test_the_model_sees_the_branch_alone(desk: Desk) -> None:
    models = ModelRegistry(desk.context.settings)
    await desk.ask("one", "1")
    await desk.ask("two", "2")
    await desk.ask("three", "3")
    for content, question in (("zwei", "zwei"), (None, "zwei")):
        last = [item for item in await desk.said() if item.role == "user"][1]
        started = await desk.chat.replace(desk.session_id, last.id, content)
        run = await desk.runs.active(desk.session_id)
        assert run is not None
        prepared = await prepare(desk.context, desk.principal, run, models)
        assert prepared.run.question == question
        assert prepared.run.turns == (Turn("one", "1"),)
        await desk.answer(started, "II")
    await models.aclose()


async def test_refusals_change_nothing(desk: Desk, context: ProcessContext, principal: Principal) -> None:
    await desk.ask("one", "1")
    question, answer = await desk.said()
    await desk.answer(await desk.chat.replace(desk.session_id, question.id, "uno"), "I")
    log = await desk.history.events(desk.session_id)
    other = (await SessionService(context, principal).create()).id
    with pytest.raises(NotFound):
        await desk.chat.replace(desk.session_id, new_id(), "x")
    with pytest.raises(NotFound):
        await desk.chat.replace(other, question.id, "x")
    for replaced in (question, answer):
        with pytest.raises(Conflict, match="replaced already"):
            await desk.chat.replace(desk.session_id, replaced.id, None)
    with pytest.raises(InvalidInput):
        await desk.chat.replace(desk.session_id, (await desk.said())[1].id, "my own answer")
    running = await desk.chat.send(desk.session_id, "two")
    with pytest.raises(SessionBusy) as busy:
        await desk.chat.replace(desk.session_id, (await desk.said())[0].id, "x")
    assert busy.value.detail["run_id"] == str(running.run_id)
    await desk.answer(running, "2")
    assert (await desk.history.events(desk.session_id))[: len(log)] == log
    assert await desk.texts() == ["uno", "I", "two", "2"]
    await SessionService(context, principal).archive(desk.session_id)
    with pytest.raises(Conflict, match="archived"):
        await desk.chat.replace(desk.session_id, (await desk.said())[0].id, "x")


async def test_of_edits_at_once_one_wins(desk: Desk) -> None:
    await desk.ask("one", "1")
    (question, _) = await desk.said()
    edits = [desk.chat.replace(desk.session_id, question.id, f"edit {place}") for place in range(6)]
    outcomes = await asyncio.gather(*edits, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["SessionBusy"] * 5 + ["StartedRun"]
    assert len(await desk.moves()) == 1
    assert len(await desk.texts()) == 1


async def test_the_kernel_is_stale_until_it_is_a_new_one(desk: Desk) -> None:
    await desk.ask("one", "1", code="a = 1")
    question = (await desk.said())[0]
    assert await desk.stale_seq() is None
    run = await desk.chat.replace(desk.session_id, question.id, "uno")
    (moved,) = await desk.moves()
    assert moved.kernel_stale
    stale = await desk.stale_seq()
    assert stale == (await desk.history.events(desk.session_id, after=run.after))[0].seq
    await desk.answer(run, "I")
    restarted = KernelChanged(reason="restarted", lost_state=True)
    await desk.history.append(desk.session_id, [restarted], actor="kernel")
    assert await desk.stale_seq() is None
    await desk.ask("two", "2", code="b = 1")
    await desk.history.append(desk.session_id, [restarted], actor="kernel")
    await desk.answer(await desk.chat.replace(desk.session_id, (await desk.said())[-1].id, None), "II")
    assert not (await desk.moves())[-1].kernel_stale, "the kernel that had run it was restarted since"


async def test_a_fork_has_the_branch(desk: Desk) -> None:
    await desk.ask("one", "1", code="a = 1")
    await desk.ask("two", "2")
    await desk.answer(await desk.chat.replace(desk.session_id, (await desk.said())[0].id, "uno"), "I")
    sessions = SessionService(desk.context, desk.principal)
    source = await sessions.get(desk.session_id)
    fork = await Forking(desk.context, desk.principal).fork(source, title=None, snapshot=None)
    copy = Desk(desk.context, desk.principal, fork.id)
    assert await copy.texts() == ["uno", "I"]
    assert await copy.stale_seq() == source.stale_seq
    await copy.answer(await copy.chat.replace(fork.id, (await copy.said())[0].id, "un"), "i")
    assert await copy.texts() == ["un", "i"]
    assert await desk.texts() == ["uno", "I"]


async def test_read_models_and_search_follow_head(desk: Desk) -> None:
    await desk.ask("needle one", "1", code="needle = 1")
    await desk.ask("two", "needle 2")
    await desk.answer(
        await desk.chat.replace(desk.session_id, (await desk.said())[0].id, "needle uno"), "I", code="needle = 2"
    )
    await desk.answer(await desk.chat.replace(desk.session_id, (await desk.said())[1].id, None), "i", code="x")
    search = SearchService(desk.context, desk.principal)
    assert [hit.snippet.text for hit in (await search.search("needle")).items] == ["needle uno"]

    async def rows() -> list[list[object]]:
        found: list[list[object]] = []
        async with desk.context.database.transaction(desk.principal.tenant_id, write=False) as tx:
            for table in (messages, cells):
                query = select(table).where(table.c.tenant_id == desk.principal.tenant_id).order_by(table.c.seq)
                found.append([tuple(row) for row in await tx.connection.execute(query)])
        return found

    made, stale = await rows(), await desk.stale_seq()
    await rebuild(desk.context.database, desk.principal.tenant_id, desk.session_id)
    assert await rows() == made
    assert await desk.stale_seq() == stale
