"""Files of sessions: the registry row and the object agree, wherever a gateway dies.

A row is made first, then the object is written, then row and `artifact.stored` are committed together. What is left
over by a fault is a pending row, perhaps with an object, that nobody can see; `sweep` removes both.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, TypeAlias
from uuid import UUID

import msgspec
import structlog

from carrel_gateway.artifacts import repository
from carrel_gateway.artifacts.names import checked_name, content_type_of
from carrel_gateway.artifacts.repository import Artifact
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, Conflict, KeyReused, NotFound, TooLarge
from carrel_gateway.history.service import Fence, HistoryService
from carrel_gateway.sessions.service import SessionService, object_prefix
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.paging import Cursors, Name, Page
from carrel_wire.log import ArtifactStored, FileCategory, FileDeleted

__all__ = ["Artifact", "ArtifactService", "checked_name", "content_type_of"]

PENDING_AGE: Final = timedelta(hours=1)
"""No upload takes so long."""
Also: TypeAlias = Callable[[Transaction, Artifact], Awaitable[None]]
_SWEEP: Final = 500
_FILES: Final = Cursors[tuple[str, FileCategory]]("files", tuple[Name, FileCategory])
_VERSIONS: Final = Cursors[int]("versions", Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)])

_log = structlog.get_logger(__name__)


class ArtifactService:
    """Files of one tenant's sessions."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._database = context.database
        self._objects = context.objects
        self._tenant_id = principal.tenant_id
        self._history = HistoryService(context, principal)
        self._sessions = SessionService(context, principal)

    async def store(
        self,
        session_id: UUID,
        *,
        name: str,
        category: FileCategory,
        content_type: str | None,
        chunks: AsyncIterator[bytes],
        execution_id: UUID | None = None,
        run_id: UUID | None = None,
        fence: Fence | None = None,
        max_bytes: int | None = None,
        artifact_id: UUID | None = None,
        again: bool = False,
        also: Also | None = None,
    ) -> Artifact:
        """Store a file as a new version of its name. What `chunks` raises comes out, and nothing is stored.

        Parameters
        ----------
        again
            An earlier try may have stored it under `artifact_id`; then that version is returned.
        also
            Done in the transaction that makes the file ready; what it raises comes out, and nothing is stored.

        Raises
        ------
        InvalidInput
            The name cannot be used.
        NotFound
            There is no such session.
        TooLarge
            There are more than `max_bytes` bytes.
        StaleRun
            The run of `fence` is another gateway's now.
        KeyReused
            The earlier try stored another file.
        """
        name = checked_name(name, category)
        await self._sessions.get(session_id)
        artifact = Artifact(
            id=artifact_id or new_id(),
            session_id=session_id,
            name=name,
            category=category,
            version=0,
            size=0,
            content_type=content_type_of(name, content_type),
            sha256="",
            execution_id=execution_id,
            run_id=run_id,
            created_at=datetime.now(UTC),
        )
        measured = _Measured(chunks, max_bytes)
        if again and (known := await self._stored_before(artifact, measured)):
            return known
        async with self._database.transaction(self._tenant_id) as tx:
            await repository.add_pending(tx, artifact)
        try:
            await self._objects.put(
                self._key(artifact), measured.chunks(), content_type=artifact.content_type, filename=name
            )
            return await self._make_ready(replace(artifact, size=measured.size, sha256=measured.sha256), fence, also)
        except Exception:
            await self._discard(artifact.id, session_id)
            raise

    async def list(self, session_id: UUID, category: FileCategory | None = None, prefix: str = "") -> list[Artifact]:
        """Return the newest version of every name, by name."""
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            return await repository.newest_of_all(tx, session_id, category=category, prefix=prefix)

    async def page(
        self,
        session_id: UUID,
        *,
        category: FileCategory | None = None,
        prefix: str = "",
        limit: int = 200,
        offset: int = 0,
        cursor: str | None = None,
    ) -> Page[Artifact]:
        """Return a page of what `list` returns.

        Raises
        ------
        InvalidInput
            The cursor is not one that a page of this list had.
        """
        scope = (session_id, category, prefix)
        after = _FILES.read(cursor, *scope) if cursor else None
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            found = await repository.newest_of_all(
                tx, session_id, category=category, prefix=prefix, after=after, limit=limit + 1, offset=offset
            )
        return _FILES.page(found, limit, lambda last: (last.name, last.category), *scope)

    async def versions(
        self, artifact_id: UUID, *, limit: int = 50, offset: int = 0, cursor: str | None = None
    ) -> Page[Artifact]:
        """Return the versions of the file that this is one of, newest first.

        Raises
        ------
        NotFound
            There is no such version, or it is another tenant's.
        InvalidInput
            The cursor is not one that a page of this list had.
        """
        artifact = await self.get(artifact_id)
        scope = (artifact.session_id, artifact.category, artifact.name)
        before = _VERSIONS.read(cursor, *scope) if cursor else None
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            found = await repository.versions(tx, artifact, before=before, limit=limit + 1, offset=offset)
        return _VERSIONS.page(found, limit, lambda last: last.version, *scope)

    async def copy(self, artifact: Artifact, session_id: UUID) -> Artifact:
        """Copy a version to another session, where nobody sees it before `adopt`."""
        copied = replace(artifact, id=new_id(), session_id=session_id)
        async with self._database.transaction(self._tenant_id) as tx:
            await repository.add_pending(tx, replace(copied, created_at=datetime.now(UTC)))
        await self._objects.copy(self._key(artifact), self._key(copied))
        return copied

    async def adopt(self, tx: Transaction, artifact: Artifact) -> None:
        """Make a copied version one of its session, with the number and time that it had.

        Raises
        ------
        Conflict
            It was taken for a leftover.
        """
        if not await repository.make_ready(tx, artifact):
            raise Conflict("the copy took too long and was given up; try again", code="upload_given_up")

    async def open(self, session_id: UUID, name: str, category: FileCategory) -> tuple[Artifact, AsyncIterator[bytes]]:
        """Return the newest version of a name, and its bytes as they come.

        Raises
        ------
        NotFound
            There is no such file, or it is another tenant's.
        """
        artifact = await self.newest(session_id, name, category)
        return artifact, await self._objects.get(self._key(artifact))

    async def newest(self, session_id: UUID, name: str, category: FileCategory) -> Artifact:
        """Return the newest version of a name.

        Raises
        ------
        NotFound
            There is no such file, or it is another tenant's.
        """
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            return _require(await repository.newest(tx, session_id, name, category))

    async def read(self, artifact: Artifact) -> AsyncIterator[bytes]:
        """Return the bytes of this version as they come.

        Raises
        ------
        NotFound
            It was deleted.
        """
        return await self._objects.get(self._key(artifact))

    async def get(self, artifact_id: UUID) -> Artifact:
        """Return a version by its id.

        Raises
        ------
        NotFound
            There is none, or it is another tenant's.
        """
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            return _require(await repository.find(tx, artifact_id))

    async def delete(
        self,
        session_id: UUID,
        name: str,
        category: FileCategory,
        expected: Callable[[Artifact], None] | None = None,
    ) -> Artifact:
        """Delete a file with all its versions, and return the newest.

        Parameters
        ----------
        expected
            Raises when the newest is not the one that whoever deletes it has seen.

        Raises
        ------
        NotFound
            There is no such file.
        """
        async with self._database.transaction(self._tenant_id) as tx:
            await self._history.hold(tx, session_id)
            artifact = _require(await repository.newest(tx, session_id, name, category))
            if expected:
                expected(artifact)
            ids = await repository.mark_deleted(tx, session_id, name, category)
            event = FileDeleted(artifact_id=artifact.id, name=name, category=category)
            await self._history.append(session_id, [event], actor="user", tx=tx)
        for artifact_id in ids:
            await self._discard(artifact_id, session_id)
        return artifact

    async def url(self, artifact: Artifact) -> str:
        """Return an address at which this version can be read without a key, for as long as the settings say."""
        return await self._objects.sign(
            self._key(artifact),
            seconds=self._context.settings.signed_url_seconds,
            filename=artifact.name.rpartition("/")[2],
            content_type=artifact.content_type,
        )

    async def sweep(self) -> int:
        """Remove what faults have left over, and return how many rows were settled."""
        before = datetime.now(UTC) - PENDING_AGE
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            found = await repository.unsettled(tx, pending_before=before, limit=_SWEEP)
        for row in found:
            await self._settle(row.id, row.session_id)
        return len(found)

    # ------------------------------------------------------------------ helpers

    async def _stored_before(self, artifact: Artifact, measured: _Measured) -> Artifact | None:
        """Return the version that an earlier try stored, if it did; what it left half-done is removed."""
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            known = await repository.find(tx, artifact.id)
        if known is None:
            await self._settle(artifact.id, artifact.session_id)
            return None
        async for _ in measured.chunks():
            pass
        if (known.name, known.sha256) != (artifact.name, measured.sha256):
            raise KeyReused("this Idempotency-Key was used for other files; make a new key for each upload")
        return known

    async def _make_ready(self, artifact: Artifact, fence: Fence | None, also: Also | None) -> Artifact:
        session_id = artifact.session_id
        async with self._database.transaction(self._tenant_id) as tx:
            await self._history.hold(tx, session_id, fence)
            version = await repository.next_version(tx, session_id, artifact.category, artifact.name)
            artifact = replace(artifact, version=version, created_at=datetime.now(UTC))
            if not await repository.make_ready(tx, artifact):
                raise Conflict("the upload took too long and was given up; send it again", code="upload_given_up")
            stored = ArtifactStored(
                artifact_id=artifact.id,
                name=artifact.name,
                version=artifact.version,
                size=artifact.size,
                content_type=artifact.content_type,
                sha256=artifact.sha256,
                category=artifact.category,
                execution_id=artifact.execution_id,
                run_id=artifact.run_id,
            )
            actor = "user" if artifact.execution_id is None else "kernel"
            await self._history.append(session_id, [stored], actor=actor, fence=fence, tx=tx)
            if also:
                await also(tx, artifact)
        return artifact

    async def _discard(self, artifact_id: UUID, session_id: UUID) -> None:
        """Remove the object and settle the row now; when that fails, the sweep does it."""
        try:
            await self._settle(artifact_id, session_id)
        except CarrelError as error:
            _log.warning("object_not_removed_yet", artifact=str(artifact_id), code=error.code)

    async def _settle(self, artifact_id: UUID, session_id: UUID) -> None:
        """Remove the object of a row that is no version; one whose commit lost its reply only looks like that."""
        async with self._database.transaction(self._tenant_id) as tx:
            if not await repository.condemn(tx, artifact_id):
                return
        await self._objects.delete(f"{object_prefix(self._tenant_id, session_id)}/{artifact_id}")
        async with self._database.transaction(self._tenant_id) as tx:
            await repository.settle(tx, artifact_id)

    def _key(self, artifact: Artifact) -> str:
        return f"{object_prefix(self._tenant_id, artifact.session_id)}/{artifact.id}"


class _Measured:
    """Counts and hashes what goes by."""

    def __init__(self, chunks: AsyncIterator[bytes], max_bytes: int | None) -> None:
        self._chunks = chunks
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            self.size += len(chunk)
            if self._max_bytes is not None and self.size > self._max_bytes:
                raise TooLarge(
                    f"the file has more than the {self._max_bytes} bytes that are allowed", code="file_too_large"
                )
            self._hash.update(chunk)
            yield chunk


def _require(artifact: Artifact | None) -> Artifact:
    if artifact is None:
        raise NotFound("there is no such file", code="artifact_not_found")
    return artifact
