"""Files over both databases and both object stores: versions, reading, lists, deletion, limits, other tenants."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from tests.support.state import chunks_of, collected, new_principal

from carrel_gateway.artifacts.service import Artifact, ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import InvalidInput, NotFound, TooLarge
from carrel_gateway.history.service import HistoryService
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import ArtifactStored, FileCategory, FileDeleted

LARGE = 9 * 1024 * 1024
"""More than is written at once."""


@pytest.fixture(params=[("sqlite", "local"), ("postgres", "local"), ("sqlite", "s3")], ids="-".join)
def settings(request: pytest.FixtureRequest, make_settings: Any) -> Settings:
    database, objects = request.param
    named = request.getfixturevalue("s3") if objects == "s3" else {}
    if database == "postgres":
        named = {**named, "database_url": request.getfixturevalue("postgres_url")}
    return make_settings(**named)


async def store(
    artifacts: ArtifactService, session_id: UUID, name: str, data: bytes, category: FileCategory = "data"
) -> Artifact:
    return await artifacts.store(session_id, name=name, category=category, content_type=None, chunks=chunks_of(data))


async def test_a_stored_file_can_be_read(
    artifacts: ArtifactService, session_id: UUID, context: ProcessContext, principal: Principal
) -> None:
    artifact = await artifacts.store(
        session_id,
        name="größe.csv",
        category="data",
        content_type="text/csv; charset=utf-8",
        chunks=chunks_of(b"a,b\n", b"", b"1,2\n"),
    )
    assert (artifact.version, artifact.size, artifact.content_type) == (1, 8, "text/csv")
    assert artifact.sha256 == hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    found, chunks = await artifacts.open(session_id, "größe.csv", "data")
    assert found == artifact == await artifacts.get(artifact.id)
    assert await collected(chunks) == b"a,b\n1,2\n"
    (event,) = await HistoryService(context, principal).events(session_id, after=1)
    assert event.payload == ArtifactStored(
        artifact_id=artifact.id,
        name="größe.csv",
        version=1,
        size=8,
        content_type="text/csv",
        sha256=artifact.sha256,
        category="data",
    )


async def test_empty_and_large_files(artifacts: ArtifactService, session_id: UUID) -> None:
    assert (await store(artifacts, session_id, "empty", b"")).size == 0
    _, chunks = await artifacts.open(session_id, "empty", "data")
    assert await collected(chunks) == b""
    data = bytes(range(256)) * (LARGE // 256)
    parts = [data[at : at + 300_000] for at in range(0, len(data), 300_000)]
    large = await artifacts.store(
        session_id, name="large", category="data", content_type=None, chunks=chunks_of(*parts)
    )
    assert (large.size, large.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    _, chunks = await artifacts.open(session_id, "large", "data")
    assert hashlib.sha256(await collected(chunks)).hexdigest() == large.sha256


async def test_every_write_of_a_name_is_a_new_version(artifacts: ArtifactService, session_id: UUID) -> None:
    stored = await asyncio.gather(*(store(artifacts, session_id, "a", str(place).encode()) for place in range(8)))
    assert sorted(artifact.version for artifact in stored) == list(range(1, 9))
    newest = max(stored, key=lambda artifact: artifact.version)
    found, chunks = await artifacts.open(session_id, "a", "data")
    assert found == newest
    assert hashlib.sha256(await collected(chunks)).hexdigest() == newest.sha256
    oldest = min(stored, key=lambda artifact: artifact.version)
    assert hashlib.sha256(await collected(await artifacts.read(oldest))).hexdigest() == oldest.sha256


async def test_lists_have_the_newest_of_every_name(artifacts: ArtifactService, session_id: UUID) -> None:
    for name in ("b", "a", "b"):
        await store(artifacts, session_id, name, b"x")
    for name in ("plots/one.png", "plots/two.png", "Plots/x", "pl%ts/y"):
        await store(artifacts, session_id, name, b"x", "artifacts")
    assert [(item.name, item.version) for item in await artifacts.list(session_id, category="data")] == [
        ("a", 1),
        ("b", 2),
    ]
    plots = await artifacts.list(session_id, category="artifacts", prefix="plots/")
    assert [item.name for item in plots] == ["plots/one.png", "plots/two.png"]
    assert plots[0].content_type == "image/png"
    assert [item.name for item in await artifacts.list(session_id, prefix="pl%")] == ["pl%ts/y"]
    assert len(await artifacts.list(session_id)) == 6


async def test_deletion_takes_all_versions_and_keeps_their_numbers(
    artifacts: ArtifactService, session_id: UUID, context: ProcessContext, principal: Principal
) -> None:
    first = await store(artifacts, session_id, "a", b"1")
    second = await store(artifacts, session_id, "a", b"2")
    assert await artifacts.delete(session_id, "a", "data") == second
    for read in (artifacts.get(first.id), artifacts.get(second.id), artifacts.open(session_id, "a", "data")):
        with pytest.raises(NotFound):
            await read
    with pytest.raises(NotFound):
        await artifacts.read(first)
    with pytest.raises(NotFound):
        await artifacts.delete(session_id, "a", "data")
    assert await artifacts.list(session_id) == []
    last = (await HistoryService(context, principal).events(session_id))[-1]
    assert last.payload == FileDeleted(artifact_id=second.id, name="a", category="data")
    assert await context.objects.delete_prefix(f"{principal.tenant_id}/{session_id}") == 0
    assert (await store(artifacts, session_id, "a", b"3")).version == 3


async def test_what_is_refused_leaves_nothing(
    artifacts: ArtifactService, session_id: UUID, context: ProcessContext, principal: Principal
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1_000_000

    class BrokenError(Exception):
        pass

    async def broken(size: int) -> AsyncIterator[bytes]:
        yield b"x" * size
        raise BrokenError

    named: dict[str, Any] = {"name": "a", "category": "data", "content_type": None}
    for limit in (10, LARGE + 1_000_000):
        with pytest.raises(TooLarge):
            await artifacts.store(session_id, **named, chunks=endless(), max_bytes=limit)
    for size in (10, LARGE):
        with pytest.raises(BrokenError):
            await artifacts.store(session_id, **named, chunks=broken(size))
    with pytest.raises(InvalidInput):
        await store(artifacts, session_id, "../a", b"x")
    with pytest.raises(NotFound):
        await store(artifacts, new_id(), "a", b"x")
    assert await artifacts.list(session_id) == []
    assert await context.objects.delete_prefix(str(principal.tenant_id)) == 0
    assert (await store(artifacts, session_id, "a", b"x" * 10)).version == 1


async def test_another_tenant_finds_no_file(
    artifacts: ArtifactService, session_id: UUID, context: ProcessContext
) -> None:
    artifact = await store(artifacts, session_id, "a", b"secret")
    stranger = ArtifactService(context, await new_principal(context.database))
    assert await stranger.list(session_id) == []
    for read in (stranger.get(artifact.id), stranger.open(session_id, "a", "data")):
        with pytest.raises(NotFound):
            await read
    with pytest.raises(NotFound):
        await stranger.read(artifact)  # its key begins with the reader's own tenant
    with pytest.raises(NotFound):
        await stranger.delete(session_id, "a", "data")
    with pytest.raises(NotFound):
        await store(stranger, session_id, "a", b"mine")
    assert await stranger.sweep() == 0
    assert await collected(await artifacts.read(artifact)) == b"secret"
