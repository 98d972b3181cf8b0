"""`…/chat`, `…/chat/stream`, `…/cancel`, `…/messages`, and `WS /ws/chat/{id}`."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response, WebSocket, status
from fastapi.responses import StreamingResponse

from carrel_gateway.chat.schemas import (
    CancelOut,
    ChatIn,
    ChatOut,
    MessageIn,
    MessageList,
    ProducedArtifact,
    message_document,
    queued_document,
)
from carrel_gateway.chat.service import RunOutcome
from carrel_gateway.chat.socket import ChatSocket
from carrel_gateway.dependencies import (
    Chat,
    Cursor,
    Gateway,
    GatewayOf,
    History,
    IdempotencyKey,
    Offset,
    Sessions,
    Standing,
    StandingOf,
)
from carrel_gateway.errors import CarrelError, InvalidInput
from carrel_gateway.history.routes import event_stream
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.identity.presented import bearer, from_subprotocols
from carrel_gateway.web import sse
from carrel_gateway.web.replies import JsonReply

router = APIRouter(route_class=IdempotentRoute, prefix="/api/sessions/{session_id}", tags=["chat"])
sockets = APIRouter()
RUN_HEADER = "Carrel-Run-Id"
Queue = Annotated[bool, Query(description="While a run is going on, have the message wait for its end.")]


@router.post("/chat")
async def chat(
    session_id: UUID, body: ChatIn, service: Chat, idempotency_key: IdempotencyKey = None, queue: Queue = False
) -> ChatOut:
    """Send a message and wait for the end of its run. Going away does not stop the run.

    With `Idempotency-Key`, asking again waits for the same run. With `queue=true` a message that comes while another
    run is going on waits for its turn; at most ten do.
    """
    started = await service.send(session_id, body.message, key=idempotency_key, queue=queue)
    return _reply(await service.outcome(session_id, started))


def _reply(outcome: RunOutcome) -> ChatOut:
    finished = outcome.finished
    return ChatOut.model_validate(
        {
            "run_id": finished.run_id,
            "status": finished.status,
            "answer": outcome.answer.content if outcome.answer else None,
            "code": finished.code,
            "message": finished.message,
            "artifacts": [
                ProducedArtifact(id=item.artifact_id, name=item.name, content_type=item.content_type, size=item.size)
                for item in outcome.artifacts
            ],
            "last_seq": outcome.last_seq,
        }
    )


@router.post(
    "/chat/stream",
    response_class=StreamingResponse,
    responses={
        200: {"content": {sse.MEDIA_TYPE: {}}},
        204: {"description": "With `Last-Event-ID`: there is nothing more to come."},
    },
)
async def chat_stream(
    session_id: UUID,
    gateway: GatewayOf,
    service: Chat,
    history: History,
    sessions: Sessions,
    standing: StandingOf,
    body: ChatIn | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
    idempotency_key: IdempotencyKey = None,
    queue: Queue = False,
) -> Response:
    """Send a message and follow its run as server-sent events, to `run.finished`.

    With `Last-Event-ID` nothing is sent: the stream goes on after that event, to the end of the run that is going on
    or, when none is, of the last one. With `Idempotency-Key`, asking again follows the same run from its beginning.
    With `queue=true` a message that comes while another run is going on waits for its turn: the stream begins with its
    `message.queued`, and has the events of the runs before it. One that was cut goes on at `…/events?run=`.
    """
    resumed = sse.last_event_id(last_event_id)
    if resumed is None:
        if body is None:
            raise InvalidInput(
                'send {"message": "…"}, or the header Last-Event-ID to go on with a run', code="message_required"
            )
        started = await service.send(session_id, body.message, key=idempotency_key, queue=queue)
        return event_stream(
            gateway,
            history,
            session_id,
            after=started.after,
            run_id=started.run_id,
            headers={RUN_HEADER: str(started.run_id)},
            holds=standing.holds,
        )
    await sessions.get(session_id)
    run_id = await service.resume_point(session_id, resumed)
    if run_id is None:
        return Response(status_code=status.HTTP_204_NO_CONTENT)  # tells an EventSource not to come back
    headers = {RUN_HEADER: str(run_id)}
    return event_stream(
        gateway, history, session_id, after=resumed, run_id=run_id, headers=headers, holds=standing.holds
    )


@router.post("/cancel", status_code=status.HTTP_202_ACCEPTED)
async def cancel(
    session_id: UUID,
    service: Chat,
    run: Annotated[UUID | None, Query(description="Only this run, and none that has begun since.")] = None,
) -> CancelOut:
    """Ask the run that is going on to stop. Its end comes as `run.finished`, and messages that wait have their turn."""
    return CancelOut(run_id=await service.cancel(session_id, run))


@router.get("/messages", response_model=MessageList)
async def list_messages(
    session_id: UUID,
    sessions: Sessions,
    history: History,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before_id: UUID | None = None,
    offset: Offset = 0,
    cursor: Cursor = None,
) -> JsonReply:
    """List the last messages of the conversation, in order, and those that wait for their turn."""
    found = await history.conversation(session_id, limit=limit, before_id=before_id, offset=offset, cursor=cursor)
    if found is None:
        await sessions.get(session_id)  # one that was made with kubectl gets its log now
        return JsonReply({"items": [], "next_cursor": None, "queued": []})
    items = [message_document(message) for message in found.page.items]
    queued = [queued_document(message) for message in found.queued]
    return JsonReply({"items": items, "next_cursor": found.page.next_cursor, "queued": queued})


@router.delete("/messages/{message_id}", status_code=status.HTTP_204_NO_CONTENT)
async def withdraw_message(session_id: UUID, message_id: UUID, service: Chat) -> None:
    """Withdraw a message that waits for its turn: it is never answered. One whose run began is not withdrawn."""
    await service.withdraw(session_id, message_id)


@router.put(
    "/messages/{message_id}",
    response_model=ChatOut,
    responses={200: {"content": {sse.MEDIA_TYPE: {}}, "description": "JSON, or the run's events by Accept."}},
)
async def replace_message(
    session_id: UUID,
    message_id: UUID,
    gateway: GatewayOf,
    service: Chat,
    history: History,
    standing: StandingOf,
    body: MessageIn | None = None,
    accept: Annotated[str, Header()] = "application/json",
) -> Response:
    """Edit a question and have it answered, or, without `content`, have the answer to it made anew.

    What followed leaves the conversation and stays in the log; the kernel keeps what its cells did (`stale_seq` of the
    session). Answers when the run is over, or with its events by Accept, as `…/chat` and `…/chat/stream` do.
    """
    started = await service.replace(session_id, message_id, body.content if body else None)
    if sse.MEDIA_TYPE in accept:
        return event_stream(
            gateway,
            history,
            session_id,
            after=started.after,
            run_id=started.run_id,
            headers={RUN_HEADER: str(started.run_id)},
            holds=standing.holds,
        )
    return JsonReply(_reply(await service.outcome(session_id, started)).model_dump())


@sockets.websocket("/ws/chat/{session_id}")
async def chat_socket(socket: WebSocket, session_id: UUID, after: int | None = None) -> None:
    """The conversation over one WebSocket; a ticket comes as subprotocol, or a key as header, never in the address."""
    gateway: Gateway = socket.app.state.gateway
    ticket, answer = from_subprotocols(socket.headers.get("sec-websocket-protocol"))
    standing = Standing(socket, presented=bearer(socket.headers.get("authorization")), ticket=ticket)
    try:
        caller = await standing.enter()
    except CarrelError as error:
        await socket.close(code=4000 + error.status, reason=error.code)
        return
    await socket.accept(subprotocol=answer)
    await ChatSocket(
        socket,
        gateway.context,
        caller,
        gateway.supervisor,
        gateway.access,
        gateway.rates,
        session_id,
        standing.now,
    ).serve(after)
