"""`…/events`: the log of a session, as JSON, as a long poll, or as a stream; `/api/search`: words in all sessions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response

from carrel_gateway.dependencies import Cursor, Gateway, GatewayOf, History, Search, Sessions, StandingOf
from carrel_gateway.history.schemas import EventList, HitList, text_document
from carrel_gateway.history.service import EventText, HistoryService, LiveText
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.web import sse
from carrel_gateway.web.replies import JsonReply

router = APIRouter(route_class=IdempotentRoute, prefix="/api/sessions/{session_id}", tags=["history"])
search_router = APIRouter(prefix="/api/search", tags=["history"])
MAX_WAIT_SECONDS = 30.0
"""Longest long poll; proxies give up on longer ones."""


@router.get(
    "/events",
    response_model=EventList,
    responses={200: {"content": {sse.MEDIA_TYPE: {}}, "description": "JSON, or a stream by Accept."}},
)
async def read_events(
    session_id: UUID,
    gateway: GatewayOf,
    history: History,
    sessions: Sessions,
    standing: StandingOf,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="Number of the last event that the caller has.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
    cursor: Cursor = None,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for news.")] = 0,
    run: Annotated[UUID | None, Query(description="End the stream when this run is over.")] = None,
    accept: Annotated[str, Header()] = "application/json",
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Read the log after an event: at most `limit` events, and fewer where they are large; an empty page is the end.

    With `Accept: text/event-stream` it goes on as a stream of committed events, in order and without a gap, with live
    provisional ones between; `Last-Event-ID` has precedence over `cursor`, and that over `after`.
    """
    after = history.place_of(cursor, session_id) if cursor else after
    streams = sse.MEDIA_TYPE in accept
    found = None if streams or wait else await history.page(session_id, after=after, limit=limit)
    if found is None:
        await sessions.get(session_id)  # one that was made with kubectl gets its log now
    if streams:
        resumed = sse.last_event_id(last_event_id)
        begin = after if resumed is None else resumed
        return event_stream(gateway, history, session_id, after=begin, run_id=run, holds=standing.holds)
    if wait:
        await history.wait(session_id, after=after, seconds=wait)
    if found is None:
        found = await history.texts(session_id, after=after, limit=limit)
    items = [text_document(event) for event in found]
    last = items[-1]["seq"] if items else after
    return JsonReply({"items": items, "last_seq": last, "next_cursor": history.cursor_after(last, session_id)})


@search_router.get("")
async def search_history(
    search: Search,
    sessions: Sessions,
    q: Annotated[str, Query(min_length=1, max_length=200, description="Words; each begins a word of the text.")],
    session_id: Annotated[UUID | None, Query(description="Only in this session.")] = None,
    kind: Annotated[Literal["message", "code"] | None, Query(description="Only messages, or only code.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Cursor = None,
) -> HitList:
    """Find messages and code by their words in all sessions that one may read, newest first."""
    if session_id is not None:
        await sessions.get(session_id)
    found = await search.search(q, session_id=session_id, kind=kind, limit=limit, cursor=cursor)
    return HitList.model_validate(found)


def event_stream(
    gateway: Gateway,
    history: HistoryService,
    session_id: UUID,
    *,
    after: int,
    run_id: UUID | None,
    holds: Callable[[], Awaitable[bool]],
    headers: dict[str, str] | None = None,
) -> Response:
    """Return the events after one as a stream, to the end of a run when one is named, else without end.

    It ends when `holds` says that the caller would not be let in any more.
    """
    chunks = encoded(history.relay(session_id, after=after), run_id)
    return sse.EventStream(chunks, gateway.closing, holds, headers)


async def encoded(
    batches: AsyncGenerator[list[EventText | LiveText], None], run_id: UUID | None
) -> AsyncGenerator[bytes, None]:
    """Yield what happens at once as one piece; nothing, now and then, when nothing happens."""
    async with aclosing(batches):
        async for batch in batches:
            piece = bytearray()
            for event in batch:
                if isinstance(event, LiveText):
                    piece += sse.encode_text(event.type, event.document)
                else:
                    piece += sse.encode(event.type, text_document(event), event_id=event.seq)
                    if run_id and event.type == "run.finished" and event.parent_id == run_id:
                        yield bytes(piece)
                        return
                if len(piece) >= sse.PIECE_BYTES:
                    yield bytes(piece)
                    piece = bytearray()
            yield bytes(piece)
