"""`…/events`: the log of a session, as JSON, as a long poll, or as a stream; `/api/search`: words in all sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from carrel_gateway import metrics
from carrel_gateway.dependencies import Cursor, Gateway, GatewayOf, History, Search, Sessions, StandingOf
from carrel_gateway.history.schemas import EventList, HitList, event_document, live_document, text_document
from carrel_gateway.history.service import HistoryService, StoredEvent
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
) -> StreamingResponse:
    """Return the events after one as a stream, to the end of a run when one is named, else without end.

    It ends when `holds` says that the caller would not be let in any more.
    """
    body = sse.with_pings(_encoded(history, session_id, after=after, run_id=run_id), gateway.closing, holds)
    return StreamingResponse(_counted(body), media_type=sse.MEDIA_TYPE, headers={**sse.HEADERS, **(headers or {})})


async def _encoded(
    history: HistoryService, session_id: UUID, *, after: int, run_id: UUID | None
) -> AsyncIterator[bytes]:
    async with aclosing(history.follow(session_id, after=after)) as events:
        async for event in events:
            if not isinstance(event, StoredEvent):
                yield sse.encode(event.type, live_document(event))
                continue
            yield sse.encode(event.type, event_document(event), event_id=event.seq)
            if run_id and event.type == "run.finished" and getattr(event.payload, "run_id", None) == run_id:
                return


async def _counted(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    with metrics.streams.track_inprogress():
        async for chunk in body:
            yield chunk
