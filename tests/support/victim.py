"""A gateway process that executes one cell and is hit at one step of it; run as `python -m tests.support.victim`.

Arguments: data folder, session, execution, victim (`gateway`, `host`, `kernel`), step, `durable` or `plain`, code. It
prints one line of JSON for each thing that a caller of the gateway would know: `began`, `struck`, `acknowledged`.

Steps, in the order of an execution: `intended` (the intent is committed, the code not sent), `sent` (the host has it),
`started`, `output` (part of the output came), `finished` (the end came, not committed), `committed` (committed, not
acknowledged), `acknowledged` (the host's spool is released).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import structlog
from tests.support.desk import PRINCIPAL
from tests.support.local import settings_for

from carrel_gateway.errors import CarrelError
from carrel_gateway.execution.ledger import Ledger
from carrel_gateway.execution.service import ExecutionService
from carrel_gateway.executors.local import HostRecord
from carrel_gateway.kernels.acks import Acks
from carrel_gateway.kernels.connection import HostConnection
from carrel_gateway.opening import open_context
from carrel_wire.events import ExecutionEvent, Finished, Started, Stdout
from carrel_wire.host import ExecuteRequest

STEPS = ("intended", "sent", "started", "output", "finished", "committed", "acknowledged")


def say(what: str, **more: Any) -> None:
    print(json.dumps({"what": what, **more}), flush=True)


class Striker:
    """Kills the victim, once, when the step is reached."""

    def __init__(self, data_dir: Path, session_id: UUID, victim: str, step: str) -> None:
        self._record = data_dir / "hosts" / f"{session_id}.json"
        self._victim = victim
        self._step = step
        self._struck = False

    async def at(self, step: str, connection: HostConnection | None) -> None:
        if step != self._step or self._struck:
            return
        self._struck = True
        pid = os.getpid()
        if self._victim == "host":
            pid = msgspec.json.decode(self._record.read_bytes(), type=HostRecord).pid
        elif self._victim == "kernel":
            assert connection
            kernel = (await connection.state()).kernels[0].pid
            assert kernel
            pid = kernel
        say("struck", step=step, victim=self._victim)
        os.kill(pid, signal.SIGKILL)


def install(striker: Striker, struck_id: UUID, connection_of: Callable[[], HostConnection | None]) -> None:
    """Put the striker between the steps of an execution."""
    execute, intend, finish, flush = HostConnection.execute, Ledger.intend, Ledger.finish, Acks.flush

    async def struck_execute(
        self: HostConnection, execution_id: UUID, request: ExecuteRequest, *, kernel: str = "main"
    ) -> AsyncGenerator[ExecutionEvent, None]:
        stream = execute(self, execution_id, request, kernel=kernel)
        first = asyncio.ensure_future(anext(aiter(stream)))
        try:
            await _until_taken(self, execution_id, first)
            await striker.at("sent", self)
        except CarrelError:  # the host is gone already: what the request itself met is what counts
            pass
        yield await first
        async for event in stream:
            yield event

    async def struck_intend(self: Ledger) -> None:
        await intend(self)
        await striker.at("intended", connection_of())

    async def struck_finish(self: Ledger, outputs: list[Any], finished: Finished, **more: bool) -> None:
        await striker.at("finished", connection_of())
        await finish(self, outputs, finished, **more)
        await striker.at("committed", connection_of())

    async def struck_flush(self: Acks) -> None:
        is_told = struck_id in self._waiting  # pyright: ignore[reportPrivateUsage]
        await flush(self)
        if is_told:
            await striker.at("acknowledged", connection_of())

    HostConnection.execute = struck_execute  # pyright: ignore[reportAttributeAccessIssue]
    Ledger.intend = struck_intend
    Ledger.finish = struck_finish
    Acks.flush = struck_flush


async def _until_taken(connection: HostConnection, execution_id: UUID, first: asyncio.Future[ExecutionEvent]) -> None:
    """Wait until the host has the request, or has answered it: one whose kernel has just died may refuse it."""
    async with asyncio.timeout(30):
        while not first.done():
            if str(execution_id) in {item.id for item in (await connection.state()).unacknowledged}:
                return
            await asyncio.sleep(0.005)


async def main(arguments: list[str]) -> None:
    data_dir, session_id, execution_id = Path(arguments[0]), UUID(arguments[1]), UUID(arguments[2])
    victim, step, kind, code = arguments[3:]
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for what a caller knows
    context = await open_context(settings_for(data_dir))
    service = ExecutionService(context, PRINCIPAL)
    [_ async for _ in service.execute(session_id, "None", silent=True)]  # the host is there before it is hit
    striker = Striker(data_dir, session_id, victim, step)
    install(striker, execution_id, lambda: context.kernels.held(session_id))
    say("began")
    try:
        async for event in service.execute(session_id, code, execution_id=execution_id, durable=kind == "durable"):
            if isinstance(event, Started):
                await striker.at("started", context.kernels.held(session_id))
            elif isinstance(event, Stdout):
                await striker.at("output", context.kernels.held(session_id))
            elif isinstance(event, Finished):
                say("acknowledged", status=event.status)
    except CarrelError as error:
        say("refused", code=error.code, message=error.message)
    await context.kernels.in_flight.wait(session_id, seconds=60)
    if held := context.kernels.held(session_id):
        await held.acknowledge()
    say("done")
    os._exit(0)  # without closing: the host must be found again by whoever comes next


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
