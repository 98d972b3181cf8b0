"""Bodies of the kernel routes."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from carrel_gateway.web.fields import Code, ReplyBody, RequestBody


class ExecuteIn(RequestBody):
    """Code to run in the session's kernel."""

    code: Code
    execution_id: Annotated[
        UUID | None, Field(description="Chosen by the caller: the same id again never runs the code twice.")
    ] = None
    timeout_seconds: Annotated[float | None, Field(gt=0, le=86_400)] = None
    silent: bool = False


class ProducedFile(ReplyBody):
    """A file that the execution made or changed."""

    path: str
    size: int
    sha256: str


class ExecutionOut(ReplyBody):
    """An execution that is over; all of it is in the history."""

    execution_id: UUID
    status: str
    execution_count: int | None
    outputs: list[dict[str, Any]]
    """In the notebook format (nbformat 4)."""
    artifacts: list[ProducedFile]
    wall_seconds: float
    cpu_seconds: float | None
    peak_memory_bytes: int | None
    message: str | None
    lost_state: bool


class CompleteIn(RequestBody):
    """Code, and where the cursor is in it."""

    code: Code
    cursor_pos: Annotated[int, Field(ge=0)]
