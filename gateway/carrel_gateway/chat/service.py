"""Sending messages and following what comes of them. The run itself is the supervisor's and the loop's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

from carrel_gateway.chat.supervisor import RunSupervisor
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, KeyReused, NotFound, SessionBusy
from carrel_gateway.history.service import HistoryService, StoredEvent
from carrel_gateway.runs.service import Beginning, RunService
from carrel_gateway.sessions.service import Session, SessionService
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import (
    ArtifactStored,
    AssistantMessage,
    LogPayload,
    MessageQueued,
    RunFinished,
    RunStarted,
    UserMessage,
)

_TRIES: Final = 100
"""A message that may wait comes in between two runs so often at most; each time a run began and ended meanwhile."""


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run, and the number of the last event before it."""

    run_id: UUID
    after: int


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended."""

    finished: RunFinished
    answer: AssistantMessage | None
    artifacts: tuple[ArtifactStored, ...]
    last_seq: int


class ChatService:
    """Conversations of one caller."""

    def __init__(self, context: ProcessContext, principal: Principal, supervisor: RunSupervisor) -> None:
        self._principal = principal
        self._supervisor = supervisor
        self._sessions = SessionService(context, principal)
        self._history = HistoryService(context, principal)
        self._runs = RunService(context, principal)

    async def send(self, session_id: UUID, content: str, *, key: str | None = None, queue: bool = False) -> StartedRun:
        """Store the message and start its run; both are committed when this returns.

        Parameters
        ----------
        key
            The caller's name for the message: sent again, it is the same run, whose end may have come already.
        queue
            While a run is going on, have the message wait for its end; that it waits is committed when this returns.

        Raises
        ------
        NotFound
            There is no such session.
        Conflict
            The session is archived.
        SessionBusy
            A run is going on; the error names it.
        TooMany
            So many messages wait already.
        InvalidInput
            The session's model cannot be used, such as for want of a key.
        KeyReused
            Another message was sent under the key.
        """
        run_id = uuid5(session_id, key) if key else new_id()
        if key and (known := await self._known(session_id, run_id, content)):
            return known
        session = await self._usable(session_id)
        question = UserMessage(message_id=new_id(), content=content, run_id=run_id)
        started = RunStarted(run_id=run_id, kind="chat", model=session.model)
        for attempt in range(_TRIES):
            try:
                return await self._start(session, run_id, [question, started])
            except SessionBusy:
                if key and (known := await self._known(session_id, run_id, content)):  # the same one, just now
                    return known
                if not queue or attempt + 1 == _TRIES:
                    raise
            waiting = MessageQueued(message_id=question.message_id, content=content, run_id=run_id)
            queued = await self._runs.enqueue(session_id, waiting, model=session.model)
            if queued is not None:
                return StartedRun(run_id=run_id, after=queued.seq - 1)
            # The run that kept it waiting is over: it can start, or whatever started meanwhile is waited for.
        raise AssertionError("the loop returns or raises")

    async def _known(self, session_id: UUID, run_id: UUID, content: str) -> StartedRun | None:
        message = await self._runs.queued(session_id, run_id)
        if message is None:  # looked for second: what waits becomes a question, and not the other way around
            message = await self._history.question_of(session_id, run_id)
        if message is None:
            return None
        if message.content != content:
            raise KeyReused("this idempotency key was used for another message; make a new key for each")
        return StartedRun(run_id=run_id, after=message.seq - 1)

    async def replace(self, session_id: UUID, message_id: UUID, content: str | None) -> StartedRun:
        """Have a question answered that was edited, or once more; what was said since leaves the conversation.

        Parameters
        ----------
        content
            The question as it is now; none to have the message's answer made anew, or the answer itself.

        Raises
        ------
        NotFound
            There is no such session or message.
        Conflict
            The session is archived, or the message was replaced already.
        SessionBusy
            A run is going on; the error names it.
        InvalidInput
            An answer cannot be edited, or the session's model cannot be used.
        """
        session, run_id = await self._usable(session_id), new_id()

        async def first(tx: Transaction) -> list[LogPayload]:
            moved = await self._history.plan_move(tx, session_id, message_id, edits=content is not None)
            started = RunStarted(run_id=run_id, kind="chat", model=session.model)
            if content is None:
                return [moved, started]
            return [moved, UserMessage(message_id=new_id(), content=content, run_id=run_id), started]

        return await self._start(session, run_id, first)

    async def _usable(self, session_id: UUID) -> Session:
        session = await self._sessions.get(session_id)
        if session.status == "archived":
            raise Conflict("the session is archived and takes no more messages; open a new one", code="archived")
        await self._supervisor.require_usable(self._principal, session.model)
        return session

    async def _start(self, session: Session, run_id: UUID, first: Sequence[LogPayload] | Beginning) -> StartedRun:
        run = await self._runs.start(session.id, kind="chat", first=first, model=session.model, run_id=run_id)
        self._supervisor.launch(self._principal, run)
        return StartedRun(run_id=run.id, after=session.last_seq)

    async def outcome(self, session_id: UUID, run: StartedRun) -> RunOutcome:
        """Wait for the end of a run, and return it. Going away does not stop the run."""
        answer: AssistantMessage | None = None
        artifacts: list[ArtifactStored] = []
        async with aclosing(self._history.follow(session_id, after=run.after)) as events:
            async for event in events:
                if not isinstance(event, StoredEvent):
                    continue
                match event.payload:
                    case AssistantMessage(run_id=run.run_id) as message:
                        answer = message
                    case ArtifactStored(run_id=run.run_id) as artifact:
                        artifacts.append(artifact)
                    case RunFinished(run_id=run.run_id) as finished:
                        return RunOutcome(finished, answer, tuple(artifacts), event.seq)
                    case _:
                        pass
        raise NotFound("the session was deleted while the run was going on", code="session_not_found")

    async def resume_point(self, session_id: UUID, after: int) -> UUID | None:
        """Return the run whose end a stream that is taken up again goes to; none when there is none ahead."""
        active = await self._runs.active(session_id)
        if active is not None:
            return active.id
        last: UUID | None = None
        while page := await self._history.events(session_id, after=after, limit=500):
            for event in page:
                after = event.seq
                if isinstance(event.payload, RunFinished):
                    last = event.payload.run_id
        return last

    async def withdraw(self, session_id: UUID, message_id: UUID) -> None:
        """Have a message that waits for its turn wait no longer: it is never answered.

        Raises
        ------
        NotFound
            There is no such session or message.
        Conflict
            It does not wait: its run began.
        """
        await self._sessions.get(session_id)
        if await self._runs.withdraw(session_id, message_id):
            return
        if await self._history.message(session_id, message_id) is None:
            raise NotFound("no such message waits in this session", code="message_not_found")
        raise Conflict("this message does not wait any more: its run began; cancel that", code="not_queued")

    async def cancel(self, session_id: UUID, run_id: UUID | None = None) -> UUID | None:
        """Ask the run that is going on to stop; it is over at the latest when its kernel has been interrupted.

        Messages that wait go on waiting: the next one begins with the end of the run.

        Parameters
        ----------
        run_id
            The run that is meant: when it is over already, the one that began with its end goes on.
        """
        await self._sessions.get(session_id)
        asked = await self._runs.request_cancel(session_id, run_id)
        if asked is not None:
            await self._supervisor.announce_cancel(asked)
        return asked
