"""Uploads in parts: every part that is acknowledged is an object and a row says so, whichever gateway dies.

A part is written under a key of its own, and then counted in the row; what was written and not counted is removed with
the upload. When all bytes are there the parts are put together as one artifact, and in the transaction that makes it
ready the upload is done: of two gateways that do so at once one wins. A gateway that dies before leaves a whole upload,
which the next request for it finishes, or the sweep. What the parts hold is looked at by nobody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from carrel_gateway.artifacts.service import Artifact, ArtifactService, checked_name, content_type_of
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, Conflict, InvalidInput, NotFound, TooLarge, TooMany
from carrel_gateway.sessions.service import SessionService, object_prefix
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_gateway.uploads import repository
from carrel_gateway.uploads.repository import Upload

__all__ = ["Upload", "UploadService"]

LIFE: Final = timedelta(hours=24)
"""Time after its last part in which an upload can go on."""
ENDED_AGE: Final = timedelta(hours=1)
"""No part takes so long to come."""
WHOLE_AGE: Final = timedelta(minutes=10)
"""Time after which an upload that is whole was left behind by who put it together."""
MAX_OPEN: Final = 20
"""Uploads of one session that go on at once."""
MAX_PARTS: Final = 1000
PART_BYTES: Final = 8 * 1024 * 1024
"""Of a part, which is in memory while it comes."""
_SWEEP: Final = 100

_log = structlog.get_logger(__name__)


class UploadService:
    """Uploads in parts, of one tenant's sessions."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._database = context.database
        self._objects = context.objects
        self._tenant_id = principal.tenant_id
        self._sessions = SessionService(context, principal)
        self._artifacts = ArtifactService(context, principal)

    async def begin(self, session_id: UUID, *, name: str, content_type: str | None, length: int) -> Upload:
        """Begin an upload; an empty file is whole at once.

        Raises
        ------
        InvalidInput
            The name cannot be used.
        NotFound
            There is no such session.
        TooLarge
            The file is larger than is allowed.
        TooMany
            Too many uploads of the session go on.
        """
        name = checked_name(name, "data")
        most = self._context.settings.upload_max_bytes
        if length > most:
            raise TooLarge(f"the file has more than the {most} bytes that are allowed", code="file_too_large")
        await self._sessions.get(session_id)
        now = datetime.now(UTC)
        upload = Upload(
            id=new_id(),
            session_id=session_id,
            name=name,
            content_type=content_type_of(name, content_type),
            length=length,
            received=0,
            parts=[],
            state="open",
            artifact_id=None,
            created_at=now,
            updated_at=now,
        )
        async with self._database.transaction(self._tenant_id) as tx:
            if await repository.count_open(tx, session_id) >= MAX_OPEN:
                raise TooMany(
                    f"{MAX_OPEN} uploads of this session go on; finish or delete some", code="too_many_uploads"
                )
            await repository.add(tx, upload)
        return upload

    async def get(self, session_id: UUID, upload_id: UUID) -> Upload:
        """Return an upload.

        Raises
        ------
        NotFound
            There is none, or it was given up.
        """
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            upload = await repository.find(tx, session_id, upload_id)
        if upload is None:
            raise NotFound("there is no such upload, or it was given up; begin a new one", code="upload_not_found")
        return upload

    async def append(self, session_id: UUID, upload_id: UUID, offset: int, chunks: AsyncIterator[bytes]) -> Upload:
        """Store what comes next. With the last byte the upload is whole, and `finish` makes it a file.

        What came before `chunks` ended or raised is kept.

        Raises
        ------
        NotFound
            There is no such upload, or it was given up.
        Conflict
            It does not go on at this offset: ask where it does.
        TooLarge
            There is more than the upload's length.
        InvalidInput
            It has come in too many parts.
        """
        upload = await self.get(session_id, upload_id)
        if upload.received != offset:
            raise _elsewhere(upload)
        part_bytes = max(PART_BYTES, -(-upload.length // (MAX_PARTS // 2)))
        buffer = bytearray()
        try:
            async for chunk in chunks:
                buffer += chunk
                if upload.received + len(buffer) > upload.length:
                    buffer.clear()
                    raise TooLarge(f"the file was said to have {upload.length} bytes", code="file_too_large")
                if len(buffer) >= part_bytes:
                    upload = await self._add_part(upload, buffer)
        finally:
            if buffer:
                upload = await self._add_part(upload, buffer)
        return upload

    async def finish(self, upload: Upload) -> Artifact | None:
        """Put the parts of a whole upload together as a file; none when that is done already, or it is not whole.

        Raises
        ------
        NotFound
            It was given up meanwhile, or there is no such session any more.
        """
        if upload.state != "open" or not upload.is_whole:
            return None

        async def done(tx: Transaction, artifact: Artifact) -> None:
            if not await repository.end(tx, upload.id, "done", datetime.now(UTC), artifact.id):
                raise _FinishedElsewhereError("this upload is done already, or was given up")

        try:
            artifact = await self._artifacts.store(
                upload.session_id,
                name=upload.name,
                category="data",
                content_type=upload.content_type,
                chunks=self._chunks(upload),
                also=done,
            )
        except (_FinishedElsewhereError, NotFound):  # whoever was quicker has removed the parts
            if (await self.get(upload.session_id, upload.id)).state == "open":
                raise
            return None
        await self._discard(upload)
        return artifact

    async def give_up(self, session_id: UUID, upload_id: UUID) -> None:
        """End an upload, and remove what has come of it.

        Raises
        ------
        NotFound
            There is none that goes on.
        """
        upload = await self.get(session_id, upload_id)
        await self._end(upload)

    async def sweep(self) -> int:
        """Remove what was abandoned or has ended, finish what is whole, and return how many were settled."""
        now = datetime.now(UTC)
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            found = await repository.idle(
                tx, open_before=now - LIFE, whole_before=now - WHOLE_AGE, ended_before=now - ENDED_AGE, limit=_SWEEP
            )
        return sum([await self._settled(upload, now) for upload in found])

    # ------------------------------------------------------------------ helpers

    async def _settled(self, upload: Upload, now: datetime) -> bool:
        """Settle an upload; one that cannot be settled now keeps no other one from it, and is given up in the end."""
        try:
            await self._settle(upload, now)
        except CarrelError as error:
            _log.warning("upload_not_settled_yet", upload=str(upload.id), code=error.code)
            return False
        return True

    async def _settle(self, upload: Upload, now: datetime) -> None:
        if upload.state != "open":
            await self._objects.delete_prefix(self._prefix(upload))
            async with self._database.transaction(self._tenant_id) as tx:
                await repository.remove(tx, upload.id)
        elif upload.updated_at < now - LIFE:
            await self._end(upload)
        else:
            await self.finish(upload)

    async def _add_part(self, upload: Upload, buffer: bytearray) -> Upload:
        """Store a part and count it; the buffer is empty afterwards, whatever happens."""
        content = bytes(buffer)
        buffer.clear()
        if len(upload.parts) >= MAX_PARTS:
            raise InvalidInput(
                f"the file came in more than {MAX_PARTS} parts; begin again, with larger ones", code="parts_too_small"
            )
        part = str(new_id())
        await self._objects.put(
            f"{self._prefix(upload)}/{part}", _once(content), content_type="application/octet-stream"
        )
        async with self._database.transaction(self._tenant_id) as tx:
            grown = await repository.add_part(tx, upload, part, len(content), datetime.now(UTC))
        if grown is None:
            await self._objects.delete(f"{self._prefix(upload)}/{part}")
            raise _elsewhere(await self.get(upload.session_id, upload.id))
        return grown

    async def _chunks(self, upload: Upload) -> AsyncIterator[bytes]:
        for part in upload.parts:
            async for chunk in await self._objects.get(f"{self._prefix(upload)}/{part}"):
                yield chunk

    async def _end(self, upload: Upload) -> None:
        async with self._database.transaction(self._tenant_id) as tx:
            ended = await repository.end(tx, upload.id, "ended", datetime.now(UTC))
        if ended:
            await self._discard(upload)

    async def _discard(self, upload: Upload) -> None:
        """Remove the parts now; what is not removed, or comes late, the sweep finds."""
        try:
            await self._objects.delete_prefix(self._prefix(upload))
        except CarrelError as error:
            _log.warning("parts_not_removed_yet", upload=str(upload.id), code=error.code)

    def _prefix(self, upload: Upload) -> str:
        return f"{object_prefix(self._tenant_id, upload.session_id)}/uploads/{upload.id}"


class _FinishedElsewhereError(Conflict):
    """Another gateway has put the parts together meanwhile."""


def _elsewhere(upload: Upload) -> Conflict:
    return Conflict(
        f"the upload goes on at byte {upload.received}; ask for its Upload-Offset and send what follows",
        code="upload_offset",
    )


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
