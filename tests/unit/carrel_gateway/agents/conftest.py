"""In-memory journal and kernel for the loop: they keep what the real ones keep, and can be killed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest

from carrel_gateway.agents.protocols import CellOutcome, LiveKind
from carrel_wire.log import ArtifactStored, CellFinished, CellIntended, CellOutputs, LogPayload, RunFinished, RunStarted

RUN = UUID("01936f7e-1111-7222-8333-444455556666")


class Killed(BaseException):
    """The process is gone; nothing in it may catch this."""


class MemoryJournal:
    """A log; with `lives` set, the process dies after that many appended events."""

    def __init__(self) -> None:
        self.events: list[LogPayload] = [RunStarted(run_id=RUN, kind="chat", model="test/scripted")]
        self.shown: list[tuple[LiveKind, dict[str, Any]]] = []
        self.lives: int | None = None
        self.cancel_requested = False
        self.cancel_after: Callable[[MemoryJournal], bool] = lambda _: False

    async def append(self, payloads: Sequence[LogPayload]) -> None:
        for payload in payloads:
            self.events.append(payload)
            if self.lives is not None:
                self.lives -= 1
                if self.lives <= 0:
                    raise Killed

    async def events_of_run(self) -> Sequence[LogPayload]:
        return list(self.events)

    async def live(self, kind: LiveKind, data: dict[str, Any]) -> None:
        self.shown.append((kind, data))

    async def is_cancel_requested(self) -> bool:
        return self.cancel_requested or self.cancel_after(self)

    async def finish(self, payload: RunFinished) -> None:
        await self.append([payload])

    def of_type(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class MemoryKernel:
    """A kernel host: runs an id once and tells it again; code that holds `raise` fails, `plot` makes a file."""

    def __init__(self, journal: MemoryJournal) -> None:
        self.journal = journal
        self.ran: list[str] = []
        self._known: dict[UUID, bool] = {}

    async def run(self, code: str, *, execution_id: UUID) -> CellOutcome:
        if not any(isinstance(e, CellIntended) and e.execution_id == execution_id for e in self.journal.events):
            await self.journal.append([CellIntended(execution_id=execution_id, code=code)])
        if execution_id not in self._known:
            self.ran.append(code)
            self._known[execution_id] = "raise" not in code
        well = self._known[execution_id]
        output = {"output_type": "stream", "name": "stdout", "text": f"out of {code}\n"}
        error = {
            "output_type": "error",
            "ename": "ValueError",
            "evalue": "no",
            "traceback": ["\x1b[31mValueError\x1b[0m: no"],
        }
        if not any(isinstance(e, CellOutputs) and e.execution_id == execution_id for e in self.journal.events):
            outputs: list[dict[str, Any]] = [output] if well else [output, error]
            await self.journal.append([CellOutputs(execution_id=execution_id, last_n=1, outputs=outputs)])
        if "plot" in code and not self.journal.of_type(ArtifactStored):
            stored = ArtifactStored(
                artifact_id=UUID(int=7), name="plot.png", version=1, size=3, content_type="image/png", sha256="00",
                category="artifacts", execution_id=execution_id,
            )  # fmt: skip
            await self.journal.append([stored])
        status = "ok" if well else "error"
        await self.journal.append([CellFinished(execution_id=execution_id, status=status)])
        return CellOutcome(status=status)


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def kernel(journal: MemoryJournal) -> MemoryKernel:
    return MemoryKernel(journal)
