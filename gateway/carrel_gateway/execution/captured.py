"""Files that a cell made become artifacts of its session: pulled from the kernel host and stored, once each."""

from __future__ import annotations

from typing import Final

import structlog

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.errors import CarrelError, InvalidInput, KernelLost, NotFound, StaleRun, TooLarge
from carrel_gateway.execution.cell import Cell
from carrel_gateway.execution.source import EventSource
from carrel_wire.events import Artifact

CATEGORY: Final = "artifacts"

_log = structlog.get_logger(__name__)


class FileCapture:
    """The files that one execution has reported."""

    def __init__(self, artifacts: ArtifactService, cell: Cell, *, max_bytes: int, resumed: bool) -> None:
        self._artifacts = artifacts
        self._cell = cell
        self._max_bytes = max_bytes
        self._resumed = resumed  # an earlier recording may have stored some of them before it was killed
        self._reported: dict[str, Artifact] = {}

    def note(self, event: Artifact) -> None:
        """Remember a reported file; the last report of a path counts."""
        self._reported[event.path] = event

    @property
    def reported(self) -> list[Artifact]:
        """What was reported so far."""
        return list(self._reported.values())

    async def store(self, source: EventSource) -> list[str]:
        """Store what was reported, and return what could not be, in words for the caller.

        Raises
        ------
        CarrelError
            The database or the object store is away, or the run is another gateway's: the execution is not over.
        """
        if not self._reported:
            return []
        stored = await self._stored_before() if self._resumed else set[tuple[str, str]]()
        wanted = [event for event in self._reported.values() if (event.path, event.sha256) not in stored]
        problems = [await self._store(event, source) for event in wanted]
        return [problem for problem in problems if problem]

    async def _store(self, event: Artifact, source: EventSource) -> str | None:
        try:
            try:
                await self._pull(event, source)
            except KernelLost:
                await source.renew()  # the workspace outlives the host
                await self._pull(event, source)
        except StaleRun:
            raise
        except (NotFound, InvalidInput, TooLarge, KernelLost) as error:
            _log.warning("artifact_not_stored", execution=str(self._cell.execution_id), code=error.code)
            return f"The file {event.path!r} was not stored: {error.message}"
        except CarrelError:
            raise
        return None

    async def _pull(self, event: Artifact, source: EventSource) -> None:
        connection = source.connection or await source.renew()
        await self._artifacts.store(
            self._cell.session.session_id,
            name=event.path,
            category=CATEGORY,
            content_type=None,
            chunks=connection.get_file(event.path),
            execution_id=self._cell.execution_id,
            run_id=self._cell.run_id,
            fence=self._cell.fence,
            max_bytes=self._max_bytes,
        )

    async def _stored_before(self) -> set[tuple[str, str]]:
        held = await self._artifacts.list(self._cell.session.session_id, category=CATEGORY)
        return {
            (artifact.name, artifact.sha256) for artifact in held if artifact.execution_id == self._cell.execution_id
        }
