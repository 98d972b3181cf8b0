"""Attack 34: one tenant's large outputs, pages, messages and uploads do not hold the event loop up for the others.

Every step of the loop is measured in CPU time of its thread, so that a slow machine fails nothing; the bound is fifty
milliseconds, whichever database and object store there is. A step that is longer is found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import msgspec
import pytest
from tests.support.handles import measured
from tests.support.state import chunks_of

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.history.service import HistoryService
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import CellFinished, CellOutputs, UserMessage

BOUND_SECONDS = 0.05
MEBIBYTE = "x" * 1024 * 1024


@pytest.fixture(params=["sqlite", "postgres", "s3"])
def settings(request: pytest.FixtureRequest, make_settings: Callable[..., Settings]) -> Settings:
    """Settings over each database, and over an object store that is asked over the network."""
    if request.param == "s3":
        return make_settings(**request.getfixturevalue("s3"))
    return make_settings(database_url=request.getfixturevalue("postgres_url") if request.param == "postgres" else None)


async def test_large_outputs_pages_and_uploads_give_way(
    context: ProcessContext, principal: Principal, session_id: UUID
) -> None:
    history, files = HistoryService(context, principal), ArtifactService(context, principal)

    async def run(n: int) -> None:
        execution = new_id()
        for part in range(4):
            outputs = [{"output_type": "stream", "name": "stdout", "text": MEBIBYTE}]
            said = CellOutputs(execution_id=execution, last_n=part, outputs=outputs)
            await history.append(session_id, [said], actor="kernel")
        await history.append(
            session_id, [CellFinished(execution_id=execution, status="ok", code=str(n))], actor="kernel"
        )
        await history.append(session_id, [UserMessage(message_id=new_id(), content=MEBIBYTE)], actor="user")

    async def upload(n: int) -> None:
        chunks = chunks_of(*[MEBIBYTE.encode()] * 16)
        await files.store(
            session_id, name=f"{n}.bin", category="data", content_type=None, chunks=chunks, max_bytes=2**30
        )

    with measured() as longest:
        await asyncio.gather(*(run(n) for n in range(3)), *(upload(n) for n in range(2)))
        after = 0
        while page := await history.events(session_id, after=after):
            after = page[-1].seq
        await history.messages(session_id)
        _, chunks = await files.open(session_id, "0.bin", "data")
        read = [len(chunk) async for chunk in chunks]
    assert sum(read) == 16 * len(MEBIBYTE)
    assert after >= 3 * 6
    assert longest.steps > 50
    assert longest.seconds < BOUND_SECONDS, longest


async def test_a_step_that_holds_the_loop_up_is_found() -> None:
    large = msgspec.json.encode([{"a": n, "b": str(n)} for n in range(300_000)])
    with measured() as longest:
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(lambda: [msgspec.json.decode(large) for _ in range(20)])
        await asyncio.sleep(0.01)
    assert longest.seconds > BOUND_SECONDS
