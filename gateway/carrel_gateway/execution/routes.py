"""`…/kernel`: the session's kernel, and code that runs in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Annotated, Any
from uuid import UUID, uuid5

import msgspec
from fastapi import APIRouter, Header, Response

from carrel_gateway.dependencies import Executions, IdempotencyKey, Standing, StandingOf
from carrel_gateway.errors import CarrelError, Conflict, InvalidInput, KeyReused, NotYet, Unavailable
from carrel_gateway.execution.schemas import CompleteIn, ExecuteIn, ExecutionOut, ProducedFile
from carrel_gateway.execution.service import ExecutionService
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.kernels.outputs import fold, output_of
from carrel_gateway.storage.ids import new_id
from carrel_gateway.web import sse
from carrel_gateway.web.replies import JsonReply
from carrel_gateway.web.watched import WatchedStream
from carrel_wire.events import Artifact, ExecutionEvent, Finished, encode_event

router = APIRouter(route_class=IdempotentRoute, prefix="/api/sessions/{session_id}/kernel", tags=["kernel"])
NDJSON = "application/x-ndjson"


@router.get("")
async def kernel_state(session_id: UUID, executions: Executions) -> JsonReply:
    """Return whether the session has a kernel, what it does, and what it uses."""
    return JsonReply(msgspec.to_builtins(await executions.state(session_id)))


@router.get("/variables")
async def kernel_variables(session_id: UUID, executions: Executions) -> JsonReply:
    """List the variables of the kernel by name, tables with their first rows."""
    return JsonReply(msgspec.to_builtins(await executions.variables(session_id)))


@router.post(
    "/execute",
    response_model=ExecutionOut,
    responses={200: {"content": {NDJSON: {}, sse.MEDIA_TYPE: {}}, "description": "JSON, or events by Accept."}},
)
async def execute(
    session_id: UUID,
    body: ExecuteIn,
    executions: Executions,
    standing: StandingOf,
    accept: Annotated[str, Header()] = "application/json",
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Run code in the session's kernel, which is started when there is none.

    The event `finished`, and the JSON answer, come when all of it is committed. When the kernel takes long to be there,
    the JSON answer is 202 and nothing has run; a stream says `waking` and goes on. When the key or login is not in
    force any more, the stream ends with a problem, and the code runs on. With `Idempotency-Key`, or an `execution_id`
    of the caller's, asking again never runs the code again.
    """
    if body.silent and (body.execution_id or idempotency_key):
        raise InvalidInput(
            "a silent execution leaves no trace to find it by; leave `silent` or the id out", code="silent_with_id"
        )
    execution_id = body.execution_id or (uuid5(session_id, idempotency_key) if idempotency_key else new_id())
    durable = bool(body.execution_id or idempotency_key)
    events = executions.execute(
        session_id,
        body.code,
        execution_id=execution_id,
        timeout=body.timeout_seconds,
        durable=durable,
        silent=body.silent,
    )
    if idempotency_key:
        events = _of_key(events)
    # What is known already is told from the history, without a kernel.
    known = durable and await executions.is_known(execution_id)
    if NDJSON in accept or sse.MEDIA_TYPE in accept:
        waking = None if known else await _waking(executions, session_id)
        if NDJSON in accept:
            return await _stream(events, standing, NDJSON, encode_event, _problem_line, waking)
        return await _stream(events, standing, sse.MEDIA_TYPE, _sse_encoder(execution_id), _problem_event, waking)
    if not known:
        await executions.awake(session_id)
    return JsonReply((await _collect(events, execution_id)).model_dump())


@router.post("/interrupt")
async def interrupt(session_id: UUID, executions: Executions) -> JsonReply:
    """Stop the cell that is running; the kernel and its variables stay, if the cell gives way."""
    return JsonReply(msgspec.to_builtins(await executions.interrupt(session_id)))


@router.post("/restart")
async def restart(session_id: UUID, executions: Executions) -> JsonReply:
    """Replace the kernel process; files stay, variables go."""
    return JsonReply(msgspec.to_builtins(await executions.restart(session_id)))


@router.post("/reset")
async def reset(session_id: UUID, executions: Executions) -> JsonReply:
    """Give the session a kernel and a workspace as new, with the uploaded files in it."""
    return JsonReply(msgspec.to_builtins(await executions.reset(session_id)))


@router.post("/complete")
async def complete(session_id: UUID, body: CompleteIn, executions: Executions) -> JsonReply:
    """Return what the code at the cursor could be completed to."""
    return JsonReply(msgspec.to_builtins(await executions.complete(session_id, body.code, body.cursor_pos)))


async def _of_key(events: AsyncGenerator[ExecutionEvent, None]) -> AsyncGenerator[ExecutionEvent, None]:
    """Yield the events of an execution that a key names; other code under it is the key's misuse."""
    try:
        async with aclosing(events):
            async for event in events:
                yield event
    except Conflict as error:
        if error.code == "execution_id_taken":
            raise KeyReused("this Idempotency-Key was used for other code; make a new key for each request") from error
        raise


async def _waking(executions: ExecutionService, session_id: UUID) -> AsyncIterator[NotYet] | None:
    """Return what says again and again that the kernel is not there yet, until it is; none when it is there in time."""
    try:
        await executions.awake(session_id)
    except NotYet as notice:
        return _until_awake(executions, session_id, notice)
    return None


async def _until_awake(executions: ExecutionService, session_id: UUID, notice: NotYet) -> AsyncIterator[NotYet]:
    yield notice
    while True:
        try:
            await executions.awake(session_id)
        except NotYet as again:
            yield again
        else:
            return


async def _collect(events: AsyncGenerator[ExecutionEvent, None], execution_id: UUID) -> ExecutionOut:
    outputs: list[dict[str, Any]] = []
    files: list[ProducedFile] = []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Artifact):
                files.append(ProducedFile(path=event.path, size=event.size, sha256=event.sha256))
            elif isinstance(event, Finished):
                return ExecutionOut(
                    execution_id=execution_id,
                    status=event.status,
                    execution_count=event.execution_count,
                    outputs=fold(outputs),
                    artifacts=files,
                    wall_seconds=event.wall_seconds,
                    cpu_seconds=event.cpu_seconds,
                    peak_memory_bytes=event.peak_memory_bytes,
                    message=event.message,
                    lost_state=event.lost_state,
                )
            elif (output := output_of(event)) is not None:
                outputs.append(output)
    raise Unavailable(
        "the outcome of the execution is not known yet; it will be in the history", code="outcome_pending"
    )


async def _stream(
    events: AsyncGenerator[ExecutionEvent, None],
    standing: Standing,
    media_type: str,
    encode: Callable[[ExecutionEvent], bytes],
    encode_problem: Callable[[CarrelError], bytes],
    waking: AsyncIterator[NotYet] | None = None,
) -> WatchedStream:
    # What fails before the first event is an ordinary problem with its own status.
    first = None if waking else await anext(aiter(events), None)

    async def refusal() -> bytes | None:
        error = await standing.refusal()
        return None if error is None else encode_problem(error)

    async def body() -> AsyncGenerator[bytes, None]:
        try:
            if waking:
                async for notice in waking:
                    yield encode_problem(notice)
            if first is not None:
                yield encode(first)
            async with aclosing(events):
                async for event in events:
                    yield encode(event)
        except CarrelError as error:
            yield encode_problem(error)

    return WatchedStream(body(), refusal, media_type=media_type, headers=sse.HEADERS)


def _sse_encoder(execution_id: UUID) -> Callable[[ExecutionEvent], bytes]:
    def encode(event: ExecutionEvent) -> bytes:
        document = msgspec.to_builtins(event)
        return sse.encode(document["type"], document, event_id=f"{execution_id}.{event.n}")

    return encode


def _problem(error: CarrelError) -> dict[str, Any]:
    if isinstance(error, NotYet):
        return {
            "type": error.code,
            "detail": "the session's kernel is being made ready; the code runs when it is there",
        }
    return {**error.detail, "type": "problem", "code": error.code, "detail": error.message}


def _problem_line(error: CarrelError) -> bytes:
    return msgspec.json.encode(_problem(error)) + b"\n"


def _problem_event(error: CarrelError) -> bytes:
    document = _problem(error)
    return sse.encode(document["type"], document)
