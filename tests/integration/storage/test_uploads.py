"""Uploads in parts, over both databases: nothing that was acknowledged is lost, nothing half-done shows or stays.

Plan: parts go on where they were cut, also when their source fails; a wrong offset, too much and too many are refused;
of two that send or finish at once one wins. The process "dies" before and after each step: the offset never says more
than is stored, and a whole upload becomes one version exactly once. The sweep removes what is abandoned, what ended and
parts that came late, and finishes what is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.support.state import chunks_of, collected

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, InvalidInput, NotFound, TooLarge, TooMany
from carrel_gateway.storage.database import DatabaseAway
from carrel_gateway.uploads import service as service_module
from carrel_gateway.uploads.service import Upload, UploadService

PART = 1000


class Death(BaseException):
    """The process ends here."""


@pytest.fixture
def uploads(context: ProcessContext, principal: Principal, monkeypatch: pytest.MonkeyPatch) -> UploadService:
    monkeypatch.setattr(service_module, "PART_BYTES", PART)
    return UploadService(context, principal)


async def begin(uploads: UploadService, session_id: UUID, length: int = 4) -> Upload:
    return await uploads.begin(session_id, name="a.csv", content_type=None, length=length)


async def send(uploads: UploadService, upload: Upload, offset: int, *parts: bytes) -> Upload:
    return await uploads.append(upload.session_id, upload.id, offset, chunks_of(*parts))


async def again(uploads: UploadService, upload: Upload) -> Upload:
    return await uploads.get(upload.session_id, upload.id)


async def content(artifacts: ArtifactService, session_id: UUID) -> tuple[int, bytes]:
    """Return the version and the bytes of the file."""
    artifact, chunks = await artifacts.open(session_id, "a.csv", "data")
    return artifact.version, await collected(chunks)


async def objects_of(context: ProcessContext, upload: Upload, principal: Principal) -> int:
    """Remove what is stored of an upload, and return how much that was."""
    return await context.objects.delete_prefix(f"{principal.tenant_id}/{upload.session_id}/uploads/{upload.id}")


def dying(call: Any, *, after: bool) -> Any:
    async def die(*arguments: Any, **named: Any) -> None:
        if after:
            await call(*arguments, **named)
        raise Death

    return die


async def test_parts_become_a_file(
    uploads: UploadService, artifacts: ArtifactService, session_id: UUID, context: ProcessContext, principal: Principal
) -> None:
    data = bytes(range(256)) * 20
    upload = await begin(uploads, session_id, len(data))
    assert (await send(uploads, upload, 0, data[:10])).received == 10
    assert (await send(uploads, upload, 10, data[10:2500], data[2500:4000])).received == 4000
    assert await artifacts.list(session_id) == []
    upload = await send(uploads, upload, 4000, data[4000:])
    artifact = await uploads.finish(upload)
    assert artifact
    assert (artifact.size, artifact.content_type) == (len(data), "text/csv")
    assert await content(artifacts, session_id) == (1, data)
    upload = await again(uploads, upload)
    assert (upload.state, upload.artifact_id) == ("done", artifact.id)
    assert await uploads.finish(upload) is None
    assert await objects_of(context, upload, principal) == 0


async def test_a_source_that_fails_leaves_what_it_brought(uploads: UploadService, session_id: UUID) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield b"x" * (PART + 10)
        yield b"y" * 5
        raise KeyError("source")

    upload = await begin(uploads, session_id, 3 * PART)
    with pytest.raises(KeyError, match="source"):
        await uploads.append(session_id, upload.id, 0, cut())
    assert (await again(uploads, upload)).received == PART + 15


async def test_what_is_refused(
    uploads: UploadService, session_id: UUID, monkeypatch: pytest.MonkeyPatch, context: ProcessContext
) -> None:
    upload = await begin(uploads, session_id)
    with pytest.raises(Conflict, match="goes on at byte 0"):
        await send(uploads, upload, 1, b"x")
    with pytest.raises(TooLarge):
        await send(uploads, upload, 0, b"12345")
    assert (await again(uploads, upload)).received == 0
    for name in ("../a", "a/b", ""):
        with pytest.raises(InvalidInput):
            await uploads.begin(session_id, name=name, content_type=None, length=1)
    with pytest.raises(TooLarge):
        await begin(uploads, session_id, context.settings.upload_max_bytes + 1)
    monkeypatch.setattr(service_module, "MAX_OPEN", 2)
    await begin(uploads, session_id)
    with pytest.raises(TooMany):
        await begin(uploads, session_id)
    await uploads.give_up(session_id, upload.id)
    small = await begin(uploads, session_id)
    monkeypatch.setattr(service_module, "MAX_PARTS", 2)
    for place in range(2):
        await send(uploads, small, place, b"x")
    with pytest.raises(InvalidInput, match="more than 2 parts"):
        await send(uploads, small, 2, b"x")


async def test_of_many_that_send_the_same_part_one_wins(uploads: UploadService, session_id: UUID) -> None:
    upload = await begin(uploads, session_id, 100)
    outcomes = await asyncio.gather(
        *(send(uploads, upload, 0, str(place).encode()) for place in range(6)), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict"] * 5 + ["Upload"]
    assert (await again(uploads, upload)).received == 1


async def test_of_many_that_finish_one_does(
    uploads: UploadService, artifacts: ArtifactService, session_id: UUID
) -> None:
    upload = await send(uploads, await begin(uploads, session_id), 0, b"data")
    outcomes = await asyncio.gather(*(uploads.finish(upload) for _ in range(5)))
    assert len([outcome for outcome in outcomes if outcome]) == 1
    assert await content(artifacts, session_id) == (1, b"data")


@pytest.mark.parametrize("after", [False, True], ids=["before the object", "after the object"])
async def test_a_part_whose_process_died_is_sent_again(
    uploads: UploadService,
    artifacts: ArtifactService,
    session_id: UUID,
    context: ProcessContext,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
) -> None:
    upload = await send(uploads, await begin(uploads, session_id), 0, b"da")
    with monkeypatch.context() as patch:
        patch.setattr(context.objects, "put", dying(context.objects.put, after=after))
        with pytest.raises(Death):
            await send(uploads, upload, 2, b"--")
    assert (await again(uploads, upload)).received == 2
    upload = await send(uploads, upload, 2, b"ta")
    await uploads.finish(upload)
    assert await content(artifacts, session_id) == (1, b"data")
    assert await objects_of(context, upload, principal) == 0  # what was not counted went with the others


@pytest.mark.parametrize("step", ["begun", "before ready", "after ready", "reply lost"])
async def test_a_whole_upload_becomes_one_version_wherever_its_process_dies(
    uploads: UploadService,
    artifacts: ArtifactService,
    session_id: UUID,
    context: ProcessContext,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    upload = await send(uploads, await begin(uploads, session_id), 0, b"data")
    with monkeypatch.context() as patch:
        inner = uploads._artifacts
        if step == "begun":
            patch.setattr(context.objects, "put", dying(context.objects.put, after=False))
        elif step == "reply lost":

            async def unheard(*arguments: Any) -> None:
                await ready(*arguments)
                raise DatabaseAway("the commit was applied, and its reply was lost")

            ready = inner._make_ready
            patch.setattr(inner, "_make_ready", unheard)
        else:
            patch.setattr(inner, "_make_ready", dying(inner._make_ready, after=step == "after ready"))
        with pytest.raises((Death, DatabaseAway)):
            await uploads.finish(upload)
    monkeypatch.setattr(service_module, "WHOLE_AGE", timedelta(0))
    monkeypatch.setattr(service_module, "ENDED_AGE", timedelta(0))
    await uploads.sweep()
    assert await content(artifacts, session_id) == (1, b"data")
    await uploads.sweep()
    with pytest.raises(NotFound):
        await again(uploads, upload)
    assert await objects_of(context, upload, principal) == 0
    assert await content(artifacts, session_id) == (1, b"data")


async def test_the_sweep_removes_what_was_abandoned(
    uploads: UploadService,
    session_id: UUID,
    context: ProcessContext,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upload = await send(uploads, await begin(uploads, session_id), 0, b"da")
    assert await uploads.sweep() == 0
    monkeypatch.setattr(service_module, "WHOLE_AGE", timedelta(0))
    assert await uploads.sweep() == 0  # it may still go on
    assert (await again(uploads, upload)).received == 2
    monkeypatch.setattr(service_module, "LIFE", timedelta(0))
    assert await uploads.sweep() == 1
    with pytest.raises(NotFound):
        await send(uploads, upload, 2, b"ta")
    late = f"{principal.tenant_id}/{session_id}/uploads/{upload.id}/late"
    await context.objects.put(late, chunks_of(b"x"), content_type="text/plain")
    assert await uploads.sweep() == 0
    monkeypatch.setattr(service_module, "ENDED_AGE", timedelta(0))
    assert await uploads.sweep() == 1
    assert await objects_of(context, upload, principal) == 0
    assert await uploads.sweep() == 0


async def test_a_part_that_comes_after_the_end_is_refused_and_removed(
    uploads: UploadService, session_id: UUID, context: ProcessContext, principal: Principal
) -> None:
    upload = await begin(uploads, session_id)

    async def ended_meanwhile() -> AsyncIterator[bytes]:
        yield b"da"
        await uploads.give_up(session_id, upload.id)

    with pytest.raises(NotFound):
        await uploads.append(session_id, upload.id, 0, ended_meanwhile())
    assert await objects_of(context, upload, principal) == 0


async def test_one_that_cannot_be_finished_keeps_no_other_one_from_it(
    uploads: UploadService,
    artifacts: ArtifactService,
    session_id: UUID,
    context: ProcessContext,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = await send(uploads, await begin(uploads, session_id), 0, b"lost")
    await objects_of(context, lost, principal)
    await send(uploads, await begin(uploads, session_id), 0, b"data")
    monkeypatch.setattr(service_module, "WHOLE_AGE", timedelta(0))
    assert await uploads.sweep() == 1
    assert await content(artifacts, session_id) == (1, b"data")
    monkeypatch.setattr(service_module, "LIFE", timedelta(0))
    assert await uploads.sweep() == 1
    with pytest.raises(NotFound):
        await again(uploads, lost)
