"""Uploads on their way into a kernel's workspace, while others upload and delete the same name.

Plan
- The bytes of one version are held back while a newer one comes to the workspace, or the file is deleted: the workspace
  has the newer one in the end, or none.
- Many uploads of one name at once: what the session has as the newest is what code reads, whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.support.desk import Desk
from tests.support.local import text_of

from carrel_gateway.artifacts.service import Artifact, ArtifactService
from carrel_gateway.execution.placement import place

READ = "import os\nprint(open('data/f').read() if os.path.exists('data/f') else 'none')"


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def store(desk: Desk, *parts: bytes) -> Artifact:
    artifacts = ArtifactService(desk.context, desk.principal)
    return await artifacts.store(desk.session_id, name="f", category="data", content_type=None, chunks=chunks(*parts))


class Late(ArtifactService):
    """Gives the first part of one version, and the rest when a newer one, or a deletion, has come and gone."""

    def __init__(self, desk: Desk, late: Artifact, *, deleted: bool) -> None:
        super().__init__(desk.context, desk.principal)
        self.desk = desk
        self.late = late
        self.deleted = deleted

    async def read(self, artifact: Artifact) -> AsyncIterator[bytes]:
        content = await super().read(artifact)
        return self._halting(content) if artifact.id == self.late.id else content

    async def _halting(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        data = b"".join([chunk async for chunk in content])
        yield data[:1000]
        desk = self.desk
        if self.deleted:
            await ArtifactService(desk.context, desk.principal).delete(desk.session_id, "f", "data")
            await desk.executions.remove_file(desk.session_id, self.late)
        else:
            await desk.executions.place_file(desk.session_id, await store(desk, b"newer"))
        yield data[1000:]


@pytest.mark.parametrize(
    ("deleted", "there"), [(False, "newer\n"), (True, "none\n")], ids=["a newer one", "a deletion"]
)
async def test_a_version_that_comes_late_is_not_the_last_word(desk: Desk, deleted: bool, there: str):
    await desk.run("pass")
    late = await store(desk, b"late " * 100_000)
    connection = desk.context.kernels.held(desk.session_id)
    assert connection
    await place(Late(desk, late, deleted=deleted), desk.session_id, "f", connection)
    assert text_of(await desk.run(READ)) == there


async def test_of_many_uploads_at_once_code_reads_the_newest(desk: Desk):
    await desk.run("pass")

    async def upload(number: int) -> Artifact:
        artifact = await store(desk, *[b"%d" % number] * 50)
        await desk.executions.place_file(desk.session_id, artifact)
        return artifact

    stored = await asyncio.gather(*(upload(number) for number in range(8)))
    newest = max(range(8), key=lambda number: stored[number].version)
    assert text_of(await desk.run(READ)) == f"{newest}" * 50 + "\n"
