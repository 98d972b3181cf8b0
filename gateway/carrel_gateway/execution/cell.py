"""The words of this folder: the cell that is executed, and the two ways in which its recording can go astray."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from carrel_gateway.executors.base import SessionRef
from carrel_gateway.runs.service import Fence


@dataclass(frozen=True, slots=True)
class Cell:
    """One execution, as this process knows it."""

    session: SessionRef
    execution_id: UUID
    code: str
    run_id: UUID | None = None
    fence: Fence | None = None
    silent: bool = False
    """Leaves no trace in the history."""


class RecordedElsewhereError(Exception):
    """Another process has committed what this one was about to: it records the execution, or has finished it."""


class ExecutionLostError(Exception):
    """No kernel host knows the execution: what it has done cannot be found out."""
