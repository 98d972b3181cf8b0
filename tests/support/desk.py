"""A gateway opened in the process, and one session of it, for tests of its insides."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import msgspec
from tests.support.local import LEFT_ALIVE, settings_for, until

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError
from carrel_gateway.execution.service import ExecutionService
from carrel_gateway.executors.local import HostRecord, LocalExecutor
from carrel_gateway.history.service import HistoryService
from carrel_gateway.identity.service import DEFAULT_TENANT_ID, DEFAULT_USER_ID
from carrel_gateway.opening import open_context
from carrel_gateway.settings import Settings
from carrel_wire.events import ExecutionEvent

PRINCIPAL = Principal(tenant_id=DEFAULT_TENANT_ID, user_id=DEFAULT_USER_ID)


@dataclass
class Desk:
    """One session of one open gateway."""

    context: ProcessContext
    session_id: UUID

    @property
    def principal(self) -> Principal:
        return PRINCIPAL

    @property
    def settings(self) -> Settings:
        return self.context.settings

    @property
    def executions(self) -> ExecutionService:
        return ExecutionService(self.context, PRINCIPAL)

    @property
    def history(self) -> HistoryService:
        return HistoryService(self.context, PRINCIPAL)

    @property
    def workspace(self) -> Path:
        return self.settings.data_dir / "workspaces" / str(self.session_id)

    async def run(self, code: str, **more: object) -> list[ExecutionEvent]:
        return [event async for event in self.executions.execute(self.session_id, code, **more)]  # pyright: ignore[reportArgumentType]


async def lose_host(desk: Desk, *, workspace: bool = False) -> None:
    """Kill the host as a node does that loses power, and with it the workspace where a pod goes too."""
    path = desk.settings.data_dir / "hosts" / f"{desk.session_id}.json"
    record = msgspec.json.decode(await asyncio.to_thread(path.read_bytes), type=HostRecord)
    os.killpg(record.pid, signal.SIGKILL)
    held = desk.context.kernels.held(desk.session_id)
    assert held

    async def gone() -> bool:
        """Also for the connections that are kept open: what is sent on one of them may have arrived."""
        with suppress(CarrelError):
            return not await held.state()
        return await desk.context.executor.find(await desk.executions.ref(desk.session_id)) is None

    await until(gone)
    if workspace:
        await asyncio.to_thread(shutil.rmtree, desk.workspace)


@asynccontextmanager
async def opened(data_dir: Path, *, last: bool = False) -> AsyncIterator[ProcessContext]:
    """Open a gateway, and leave its hosts alive unless it is the last one."""
    context = await open_context(settings_for(data_dir))
    try:
        yield context
    finally:
        await context.kernels.aclose()
        if last:
            await context.executor.aclose()
        elif isinstance(context.executor, LocalExecutor):
            LEFT_ALIVE.extend(host.process for host in context.executor._children.values())
        await context.objects.aclose()
        await context.bus.aclose()
        await context.database.aclose()
