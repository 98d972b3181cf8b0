"""Routes of executions: run at most once, read on, acknowledge.

An event stream is NDJSON. A caller that goes away cancels nothing; one that reads slowly slows only itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Final

import structlog
from aiohttp import web

from carrel_kernel.errors import BadRequest, EventsReleased, HostError
from carrel_kernel.executions import Execution
from carrel_kernel.keys import SUPERVISOR
from carrel_kernel.replies import body_of, reply
from carrel_wire.host import ACKNOWLEDGED_HEADER, AckRequest, ExecuteRequest, decode_acknowledged

HEADERS_SECONDS: Final = 0.05
"""So long the headers of a stream wait for its first events: each packet costs both sides as much as all in it."""

_log = structlog.get_logger(__name__)


async def execute(request: web.Request) -> web.StreamResponse:
    """`PUT /v1/kernels/{kernel}/executions/{execution}`."""
    wanted = await body_of(request, ExecuteRequest)
    kernel = request.match_info["kernel"]
    acknowledged = _acknowledge(request, kernel)
    execution = request.app[SUPERVISOR].execute(kernel, request.match_info["execution"], wanted)
    return await _stream(request, execution, execution.spool.released, acknowledged)


async def events(request: web.Request) -> web.StreamResponse:
    """`GET …/events?after=N`."""
    text = request.query.get("after", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadRequest("`after` is the number of the last event that was read, 0 for none")
    after = int(text)
    execution = request.app[SUPERVISOR].execution(request.match_info["kernel"], request.match_info["execution"])
    if after < execution.spool.released:
        raise EventsReleased("the events were acknowledged", released=execution.spool.released)
    if after > execution.spool.last_n:
        raise BadRequest(f"there are events up to {execution.spool.last_n}")
    return await _stream(request, execution, after)


async def ack(request: web.Request) -> web.Response:
    """`POST …/ack`."""
    wanted = await body_of(request, AckRequest)
    supervisor = request.app[SUPERVISOR]
    kernel, execution = request.match_info["kernel"], request.match_info["execution"]
    if not supervisor.executions.knows(execution):
        supervisor.execution(kernel, execution)
    return reply(supervisor.executions.ack(execution, kernel, wanted.n))


def _acknowledge(request: web.Request, kernel: str) -> dict[str, str]:
    """Free what the request says is stored elsewhere, and return the header that says so."""
    value = request.headers.get(ACKNOWLEDGED_HEADER)
    if value is None:
        return {}
    try:
        numbers = decode_acknowledged(value)
    except ValueError as error:
        raise BadRequest(f"the header {ACKNOWLEDGED_HEADER} is wrong: {error}") from error
    for execution, n in numbers.items():
        try:
            request.app[SUPERVISOR].executions.ack(execution, kernel, n)
        except HostError as error:  # it is no fault of the code that comes with it
            _log.info("execution_not_acknowledged", execution=execution, code=error.code)
    return {ACKNOWLEDGED_HEADER: value}


class _WithEvents(web.StreamResponse):
    """Its headers go out with its first events."""

    _send_headers_immediately = False


async def _stream(
    request: web.Request, execution: Execution, after: int, headers: Mapping[str, str] = MappingProxyType({})
) -> web.StreamResponse:
    supervisor = request.app[SUPERVISOR]
    kind = _WithEvents if await execution.wait(after, HEADERS_SECONDS) else web.StreamResponse
    response = kind(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store", **headers})
    supervisor.connections += 1
    try:
        await response.prepare(request)
        async with aclosing(execution.read(after)) as chunks:
            async for chunk, last in chunks:
                await (response.write_eof(chunk) if last else response.write(chunk))
        await response.write_eof()
    except EventsReleased:
        # The status line is out: only a cut connection tells the reader that this is not the end.
        if request.transport:
            request.transport.abort()
    except ConnectionError:
        pass  # the reader went away; it reads on when it wants
    finally:
        supervisor.connections -= 1
    return response
