"""The history of sessions: append to the log, read it, follow it.

Anyone may append. The numbers of a session's events are gapless, because the append's transaction takes them from the
session's row. The events of a run are guarded by its fence. What is committed is announced on the bus; followers read
the log wherever the bus has left a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound, StaleRun
from carrel_gateway.history import branching, metrics, outlines, projections, repository
from carrel_gateway.history.events import (
    Actor,
    Cell,
    EventText,
    Fence,
    LiveEvent,
    Message,
    QueuedMessage,
    StoredEvent,
    encode_payload,
    event_id_of,
    parent_id_of,
)
from carrel_gateway.history.news import LiveText, encode_gone, encode_live, encode_news, sort_out
from carrel_gateway.storage.bus import BusOverflow, Reader
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.dialect import NewEvents
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.paging import Cursors, Number, Page
from carrel_gateway.storage.steps import Steps
from carrel_wire.log import ArtifactStored, CellFinished, HeadMoved, LogPayload, type_of

__all__ = [
    "Actor",
    "Appended",
    "Cell",
    "Conversation",
    "EventText",
    "Fence",
    "HistoryService",
    "LiveEvent",
    "LiveText",
    "Message",
    "QueuedMessage",
    "StoredEvent",
]

PAGE: Final = 500
PAGE_BYTES: Final = 4 * 1024 * 1024
"""A page has one event at least, and no further one when it has so much: outputs are committed by the mebibyte."""
NEWS_BYTES: Final = 64 * 1024
"""Larger events are read from the log by whoever wants them."""
LOOK_SECONDS: Final = 15.0
"""Followers look into the log so often, in case that the bus has lost something without knowing."""
LOOK_SECONDS_WITHOUT_BUS: Final = 1.0
_MESSAGES: Final = Cursors[int]("messages", Number)
_EVENTS: Final = Cursors[int]("events", Number)

T = TypeVar("T")


class Conversation(NamedTuple):
    """A page of the conversation, and on the first one the messages that wait for their turn."""

    page: Page[Message]
    queued: list[QueuedMessage]


class Appended(NamedTuple):
    """What an append has stored, and how it is announced when it is committed."""

    events: list[StoredEvent]
    news: bytes


class HistoryService:
    """The history of one tenant's sessions."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._bus = context.bus
        self._tenant_id = principal.tenant_id

    # ------------------------------------------------------------------ write

    async def append(
        self,
        session_id: UUID,
        payloads: Sequence[LogPayload],
        *,
        actor: Actor,
        fence: Fence | None = None,
        tx: Transaction | None = None,
    ) -> list[StoredEvent]:
        """Append events, in order, with the read models; all of it is committed or nothing.

        Parameters
        ----------
        fence
            Append only while the run goes on under this generation.
        tx
            Transaction to append in; without one it is committed when this returns.

        Raises
        ------
        NotFound
            There is no such session.
        StaleRun
            The run is over, or another gateway's.
        """
        if not payloads:
            return []

        def begin() -> Steps[Appended]:
            return self.appending(session_id, payloads, actor=actor, fence=fence)

        if tx is None:
            appended = await self._database.run(self._tenant_id, begin)
            await self.announce(session_id, appended)
            return appended.events
        within = await tx.run(begin())
        tx.after_commit(lambda: self.announce(session_id, within))
        return within.events

    def appending(
        self, session_id: UUID, payloads: Sequence[LogPayload], *, actor: Actor, fence: Fence | None = None
    ) -> Steps[Appended]:
        """Return the steps of an append, for steps of the caller's own; what they return is announced after the commit.

        Raises
        ------
        NotFound
            There is no such session.
        StaleRun
            The run is over, or another gateway's.
        """
        dialect = self._database.dialect
        new = _new_events(self._tenant_id, session_id, payloads, actor, fence)
        last = yield from dialect.append(new)
        if last is None:
            if not (yield from repository.has_session(self._tenant_id, session_id)):
                raise _no_session()
            raise _stale()
        stored = _stored(new, payloads, last)
        yield from projections.project(dialect.name, self._tenant_id, stored)
        return Appended(stored, encode_news(stored, new.payloads, limit_bytes=NEWS_BYTES))

    async def announce(self, session_id: UUID, appended: Appended) -> None:
        """Tell followers of what is committed."""
        metrics.appended(appended.events)
        await self._bus.publish(self._channel(session_id), appended.news)

    async def adopt(self, tx: Transaction, events: Sequence[StoredEvent]) -> None:
        """Insert events with the numbers, actors and times that they have, and the read models: a fork's beginning.

        The caller gives the session its last number.
        """
        if events:
            await repository.insert_events(tx, events)
            await tx.run(projections.project(tx.dialect.name, tx.tenant_id, events))

    async def plan_move(self, tx: Transaction, session_id: UUID, message_id: UUID, *, edits: bool) -> HeadMoved:
        """Return the event that takes a question and what follows, or an answer, out of the conversation.

        Raises
        ------
        NotFound
            The session has no such message.
        Conflict
            It was replaced already, or is an answer without a question.
        InvalidInput
            It is an answer, and those cannot be edited.
        """
        return await branching.plan_move(tx, session_id, message_id, edits=edits)

    async def hold(self, tx: Transaction, session_id: UUID, fence: Fence | None = None) -> None:
        """Lock what an append would lock, in the same order, for a transaction that reads before it appends.

        Raises
        ------
        NotFound
            There is no such session.
        StaleRun
            The run is over, or another gateway's.
        """
        if fence is not None and not await repository.lock_run(tx, fence):
            raise _stale()
        if not await repository.lock_session(tx, session_id):
            raise _no_session()

    async def publish_live(self, session_id: UUID, event: LiveEvent) -> None:
        """Show followers something that is not stored; it may be lost."""
        await self._bus.publish(self._channel(session_id), encode_live(event))

    async def publish_gone(self, session_id: UUID) -> None:
        """Tell followers that the session is deleted."""
        await self._bus.publish(self._channel(session_id), encode_gone())

    # ------------------------------------------------------------------ read

    async def events(self, session_id: UUID, *, after: int = 0, limit: int = PAGE) -> list[StoredEvent]:
        """Return the committed events after a number, in order; none of a session that is not the tenant's.

        A page ends when it has `limit` events or `PAGE_BYTES`; one that is empty is the end of the log.
        """
        return await repository.decode(session_id, await self.texts(session_id, after=after, limit=limit))

    async def read(self, tx: Transaction, session_id: UUID, *, after: int, limit: int = PAGE) -> list[StoredEvent]:
        """Return such a page within a transaction."""
        return await repository.decode(session_id, await tx.run(self._tail(session_id, after, limit)))

    async def texts(self, session_id: UUID, *, after: int = 0, limit: int = PAGE) -> list[EventText]:
        """Return such a page with the payloads as they are stored, for whoever passes them on."""
        return await self._read(lambda: self._tail(session_id, after, limit))

    async def page(self, session_id: UUID, *, after: int, limit: int) -> list[EventText] | None:
        """Return what `texts` does; None when the tenant has no such session."""
        dialect, tenant_id = self._database.dialect, self._tenant_id
        return await self._read(
            lambda: repository.page(dialect, tenant_id, session_id, after=after, limit=limit, size=PAGE_BYTES)
        )

    def _tail(self, session_id: UUID, after: int, limit: int) -> Steps[list[EventText]]:
        dialect, tenant_id = self._database.dialect, self._tenant_id
        return repository.tail(dialect, tenant_id, session_id, after=after, limit=limit, size=PAGE_BYTES)

    async def outline(self, session_id: UUID, types: Sequence[type[LogPayload]], *, after: int) -> list[EventText]:
        """Return such a page of the events of some types, and of outputs without their payloads."""
        names = [str(kind.__struct_config__.tag) for kind in types]
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            return await outlines.outline(tx, session_id, names, after=after, limit=PAGE, size=PAGE_BYTES)

    async def outputs(self, session_id: UUID, execution_id: UUID, *, first: int, last: int) -> list[dict[str, Any]]:
        """Return the parts of a cell's outputs that are in a part of the log."""
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            return await outlines.outputs(tx, session_id, execution_id, first=first, last=last)

    async def ending(self, session_id: UUID, execution_id: UUID) -> tuple[list[ArtifactStored], CellFinished] | None:
        """Return the files that a cell made and its end; none while it goes on."""
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            found = [event.payload for event in await outlines.ending(tx, session_id, execution_id)]
        end = next((payload for payload in found if isinstance(payload, CellFinished)), None)
        return ([payload for payload in found if isinstance(payload, ArtifactStored)], end) if end else None

    async def latest(self, session_id: UUID, *types: type[LogPayload], after: int) -> LogPayload | None:
        """Return the last payload of one of these types after a number."""
        names = [str(kind.__struct_config__.tag) for kind in types]
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            found = await repository.latest(tx, session_id, names, after=after)
        return found.payload if found else None

    async def wait(self, session_id: UUID, *, after: int, seconds: float) -> bool:
        """Return as soon as there are events after a number, or with false when the time is over."""
        try:
            async with asyncio.timeout(seconds):
                async with aclosing(self.relay(session_id, after=after)) as batches:
                    async for batch in batches:
                        if any(isinstance(event, EventText) for event in batch):
                            return True
        except TimeoutError:
            pass
        return False

    async def follow(self, session_id: UUID, *, after: int) -> AsyncGenerator[StoredEvent | LiveText, None]:
        """Yield the events after a number, in order and without a gap, and live ones between; waits for more.

        Ends by itself only when the session is deleted.

        Raises
        ------
        NotFound
            There is no such session.
        """
        async with aclosing(self.relay(session_id, after=after)) as batches:
            async for batch in batches:
                texts = [event for event in batch if isinstance(event, EventText)]
                decoded = iter(await repository.decode(session_id, texts))
                for event in batch:
                    yield next(decoded) if isinstance(event, EventText) else event

    async def relay(self, session_id: UUID, *, after: int) -> AsyncGenerator[list[EventText | LiveText], None]:
        """Yield the same in batches, as much as there is at once, for whoever passes the events on as they are.

        Yields an empty batch now and then when nothing happens, so that the caller sees time go by.
        """
        await self._require(session_id)
        seen, behind = after, True
        async with self._bus.subscribe(self._channel(session_id)) as bus:
            while True:
                if behind:
                    texts = await self.texts(session_id, after=seen)
                    if not texts and not await self._exists(session_id):
                        return  # deleted, and the news of it was lost
                    seen, behind = texts[-1].seq if texts else seen, _may_be_full(texts)
                    yield list[EventText | LiveText](texts)
                else:
                    news = await self._news(bus)
                    sorted_out = sort_out(news, seen)
                    seen, behind = sorted_out.seen, sorted_out.behind or not news
                    if sorted_out.events:
                        yield sorted_out.events
                    if sorted_out.gone:
                        return

    async def messages(self, session_id: UUID, *, limit: int = 100, before_id: UUID | None = None) -> list[Message]:
        """Return the last messages, or the last before one, in the order of the conversation."""
        return (await self.message_page(session_id, limit=limit, before_id=before_id)).items

    async def message_page(
        self,
        session_id: UUID,
        *,
        limit: int,
        before_id: UUID | None = None,
        offset: int = 0,
        cursor: str | None = None,
    ) -> Page[Message]:
        """Return what `conversation` does; an empty page of a session that is not the tenant's."""
        found = await self.conversation(session_id, limit=limit, before_id=before_id, offset=offset, cursor=cursor)
        return found.page if found else Page([])

    async def conversation(
        self,
        session_id: UUID,
        *,
        limit: int,
        before_id: UUID | None = None,
        offset: int = 0,
        cursor: str | None = None,
    ) -> Conversation | None:
        """Return a page of what `messages` returns; the next page has those before it.

        None when the tenant has no such session.

        Raises
        ------
        InvalidInput
            The cursor is not one that a page of this session's messages had.
        """
        before = _MESSAGES.read(cursor, session_id) if cursor else None
        first = not (before_id or cursor or offset)

        def steps() -> Steps[tuple[list[Message], list[QueuedMessage]] | None]:
            found = yield from repository.conversation(
                self._tenant_id, session_id, limit=limit + 1, before_id=before_id, before_seq=before, offset=offset
            )
            if found is None:
                return None
            last, waits = found
            return last, (yield from repository.waiting(self._tenant_id, session_id)) if waits and first else []

        found = await self._read(steps)
        if found is None:
            return None
        last, queued = found
        page = _MESSAGES.page(last, limit, lambda oldest: oldest.seq, session_id)
        return Conversation(Page(page.items[::-1], page.next_cursor), queued)

    async def message(self, session_id: UUID, message_id: UUID) -> Message | None:
        """Return a message, also one that was replaced; none when the session has no such one."""
        return await self._read(lambda: repository.message(self._tenant_id, session_id, message_id))

    async def question_of(self, session_id: UUID, run_id: UUID) -> Message | None:
        """Return the message that a run answers; none when there is no such run."""
        return await self._read(lambda: repository.question_of(self._tenant_id, session_id, run_id))

    def place_of(self, cursor: str, session_id: UUID) -> int:
        """Return the number of the event that a page of the session's log ended with.

        Raises
        ------
        InvalidInput
            The cursor is not one that a page of this session's log had.
        """
        return _EVENTS.read(cursor, session_id)

    def cursor_after(self, seq: int, session_id: UUID) -> str:
        """Return the cursor of the page after an event."""
        return _EVENTS.write(seq, session_id)

    async def cells(self, session_id: UUID, *, execution_id: UUID | None = None) -> list[Cell]:
        """Return the cells in the order in which they began, or one of them, with their outputs."""
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            return await repository.cells_of(tx, session_id, execution_id=execution_id)

    async def has_cells(self, session_id: UUID) -> bool:
        """Return whether code was ever run in the session."""
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            return await repository.has_cells(tx, session_id)

    # ------------------------------------------------------------------ helpers

    async def _require(self, session_id: UUID) -> None:
        if not await self._exists(session_id):
            raise _no_session()

    async def _exists(self, session_id: UUID) -> bool:
        return await self._read(lambda: repository.has_session(self._tenant_id, session_id))

    async def _read(self, begin: Callable[[], Steps[T]]) -> T:
        return await self._database.run(self._tenant_id, begin, write=False)

    async def _news(self, bus: Reader) -> list[bytes]:
        """Return what the bus says; nothing when it is time to look into the log."""
        seconds = LOOK_SECONDS if self._bus.healthy else LOOK_SECONDS_WITHOUT_BUS
        try:
            async with asyncio.timeout(seconds):
                return await bus.take()
        except (TimeoutError, BusOverflow):
            return []

    def _channel(self, session_id: UUID) -> str:
        return _channel_of(self._tenant_id, session_id)


@lru_cache(maxsize=10_000)
def _channel_of(tenant_id: UUID, session_id: UUID) -> str:
    """With the tenant, so that what is shown live cannot cross over either."""
    return f"session:{tenant_id}:{session_id}"


def _new_events(
    tenant_id: UUID, session_id: UUID, payloads: Sequence[LogPayload], actor: Actor, fence: Fence | None
) -> NewEvents:
    return NewEvents(
        tenant_id=tenant_id,
        session_id=session_id,
        actor=actor,
        created_at=datetime.now(UTC),
        ids=[event_id_of(payload) or new_id() for payload in payloads],
        parent_ids=[parent_id_of(payload) for payload in payloads],
        types=[type_of(payload) for payload in payloads],
        payloads=[encode_payload(payload) for payload in payloads],
        run_id=fence.run_id if fence else None,
        generation=fence.generation if fence else None,
    )


def _stored(new: NewEvents, payloads: Sequence[LogPayload], last: int) -> list[StoredEvent]:
    columns = zip(new.ids, new.parent_ids, new.types, payloads, strict=True)
    return [
        StoredEvent(new.session_id, seq, own, parent, kind, new.actor, payload, new.created_at)
        for seq, (own, parent, kind, payload) in enumerate(columns, last - len(new.ids) + 1)
    ]


def _may_be_full(texts: Sequence[EventText]) -> bool:
    """Return whether more events may follow those of a page; a character has at most four bytes."""
    return len(texts) == PAGE or 4 * sum(len(event.payload) for event in texts) >= PAGE_BYTES


def _no_session() -> NotFound:
    return NotFound("there is no such session", code="session_not_found")


def _stale() -> StaleRun:
    return StaleRun("the run is over, or another gateway has taken it over")
