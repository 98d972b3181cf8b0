"""The closed set of event types of a session's append-only log.

Each event of the log is one of these payloads under its type. Messages, cells and artifacts are read models filled
from them in the same transaction. Types are added, never changed in meaning.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from carrel_wire.events import Outcome

CellStatus: TypeAlias = Outcome | Literal["intended", "running", "outcome_unknown"]
RunStatus: TypeAlias = Literal["running", "succeeded", "failed", "cancelled"]
RunKind: TypeAlias = Literal["chat", "execute"]
FileCategory: TypeAlias = Literal["data", "artifacts", "notebooks"]


class _Payload(msgspec.Struct, tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    pass


class SessionCreated(_Payload, tag="session.created", kw_only=True, frozen=True):
    title: str
    agent_id: UUID | None = None
    """Stored agent whose configuration it began with, and the version that it had then."""
    agent_version: int | None = None


class SessionChanged(_Payload, tag="session.changed", kw_only=True, frozen=True):
    """Title, status or configuration is now another one; only what changed is named."""

    changes: dict[str, Any]


class UserMessage(_Payload, tag="message.user", kw_only=True, frozen=True):
    message_id: UUID
    content: str
    run_id: UUID | None = None


class MessageQueued(_Payload, tag="message.queued", kw_only=True, frozen=True):
    """A question that waits for the end of the run that is going on.

    When its turn comes, `message.user` of the same `message_id` and `run.started` follow. When it is withdrawn before,
    its run ends without having begun: `run.finished` with the code `withdrawn`, or `archived`.
    """

    message_id: UUID
    content: str
    run_id: UUID


class AssistantMessage(_Payload, tag="message.assistant", kw_only=True, frozen=True):
    message_id: UUID
    content: str
    run_id: UUID | None = None
    artifact_ids: list[UUID] = []


class RunStarted(_Payload, tag="run.started", kw_only=True, frozen=True):
    run_id: UUID
    kind: RunKind
    model: str | None = None


class RunTakenOver(_Payload, tag="run.taken_over", kw_only=True, frozen=True):
    """The gateway that owned the run is gone; another one goes on from the log."""

    run_id: UUID
    generation: int


class RunFinished(_Payload, tag="run.finished", kw_only=True, frozen=True):
    run_id: UUID
    status: RunStatus
    code: str | None = None
    """Why, when it did not succeed: `cancelled`, `step_limit`, `model_failed`, …"""
    message: str | None = None


class PlanStep(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    status: Literal["open", "done", "skipped"] = "open"


class PlanMade(_Payload, tag="plan", kw_only=True, frozen=True):
    """The plan as it stands now; a later one replaces it."""

    run_id: UUID
    steps: list[PlanStep]


class ModelCalled(_Payload, tag="model.call", kw_only=True, frozen=True):
    """A reply of a model, whole: what the loop decides from when it is taken over."""

    run_id: UUID
    model: str
    purpose: str
    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    """US dollars at the price of the day; none when the price is not known."""
    duration_seconds: float | None = None
    finish_reason: str | None = None


class CellIntended(_Payload, tag="cell.intended", kw_only=True, frozen=True):
    """Committed before the code is sent to the kernel."""

    execution_id: UUID
    code: str
    run_id: UUID | None = None


class CellOutputs(_Payload, tag="cell.outputs", kw_only=True, frozen=True):
    """A part of a cell's outputs, in Jupyter's notebook format (nbformat 4), in order."""

    execution_id: UUID
    last_n: int
    """Number of the last execution event in it; what is stored up to here may be acknowledged."""
    outputs: list[dict[str, Any]]


class CellFinished(_Payload, tag="cell.finished", kw_only=True, frozen=True):
    """What the caller saw as `finished`: whoever saw it finds all of the cell in the history."""

    execution_id: UUID
    status: CellStatus
    code: str | None = None
    """The code, where no `cell.intended` came before (plain interactive requests)."""
    run_id: UUID | None = None
    execution_count: int | None = None
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    bytes_out: int = 0
    message: str | None = None
    lost_state: bool = False
    """The kernel process was replaced: its variables are gone."""


class CellEdited(_Payload, tag="cell.edited", kw_only=True, frozen=True):
    """Code that came back from a notebook edited elsewhere, or new there; it was not run."""

    execution_id: UUID
    code: str


class ArtifactStored(_Payload, tag="artifact.stored", kw_only=True, frozen=True):
    """An upload (category `data`) or a file that a cell made (`artifacts`): a new version of its name."""

    artifact_id: UUID
    name: str
    version: int
    size: int
    content_type: str
    sha256: str
    category: FileCategory
    execution_id: UUID | None = None
    run_id: UUID | None = None


class FileDeleted(_Payload, tag="file.deleted", kw_only=True, frozen=True):
    artifact_id: UUID
    name: str
    category: FileCategory


class KernelChanged(_Payload, tag="kernel.changed", kw_only=True, frozen=True):
    """The session's kernel is a new one, and why; `lost_state` when variables went with the old one."""

    reason: Literal["started", "restarted", "reset", "died", "host_lost"]
    incarnation: str | None = None
    lost_state: bool = False
    message: str | None = None


class StateLoss(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A variable or file that is not there, and why."""

    name: str
    reason: str
    type: str = ""


class SessionSuspended(_Payload, tag="session.suspended", kw_only=True, frozen=True):
    """The session's kernel was given back; its state is in a snapshot."""

    snapshot_id: UUID
    size: int
    """Bytes."""
    variables: int
    files: int
    not_saved: list[StateLoss] = []
    """The first of them; `not_saved_count` says how many there are."""
    not_saved_count: int = 0


class SessionResumed(_Payload, tag="session.resumed", kw_only=True, frozen=True):
    """A kernel has the state of the snapshot again, but for what is named."""

    snapshot_id: UUID
    variables: int
    files: int
    incarnation: str
    not_restored: list[StateLoss] = []
    """The first of them; `not_restored_count` says how many there are."""
    not_restored_count: int = 0


class SessionRecovered(_Payload, tag="session.recovered", kw_only=True, frozen=True):
    """The kernel host was lost, and a new one has the state of an earlier snapshot; what ran since is lost."""

    snapshot_id: UUID
    as_of_seq: int
    """Number of the last event whose effect is there."""
    as_of: datetime
    """When the snapshot was taken."""
    incarnation: str
    variables: int
    files: int
    """As they were then; those that the workspace still had are not counted, and are newer."""
    not_restored: list[StateLoss] = []
    """The first of them; `not_restored_count` says how many there are."""
    not_restored_count: int = 0
    lost_cells: list[UUID] = []
    """Executions that ended since, whose variables and files are lost; the first of them."""
    lost_cells_count: int = 0
    message: str | None = None


class SessionForked(_Payload, tag="session.forked", kw_only=True, frozen=True):
    """What comes before is the history of another session of the same owner; from here on it is this one's own."""

    session_id: UUID
    """The other one."""
    seq: int
    """Number of its last event then."""
    snapshot_id: UUID | None = None
    """State that it begins with; none where the other session had no kernel."""


class HeadMoved(_Payload, tag="head.moved", kw_only=True, frozen=True):
    """The conversation goes on after an earlier event; what came between is in the log alone."""

    message_id: UUID
    """The question that was edited, or the question or answer for which another answer was asked."""
    head: int
    """Number of the last event that the conversation still has."""
    reason: Literal["edit", "regenerate"]
    kernel_stale: bool = False
    """The kernel has run cells that the conversation does not have any more."""


LogPayload: TypeAlias = (
    SessionCreated
    | SessionChanged
    | UserMessage
    | MessageQueued
    | AssistantMessage
    | RunStarted
    | RunTakenOver
    | RunFinished
    | PlanMade
    | ModelCalled
    | CellIntended
    | CellOutputs
    | CellFinished
    | CellEdited
    | ArtifactStored
    | FileDeleted
    | KernelChanged
    | SessionSuspended
    | SessionResumed
    | SessionRecovered
    | SessionForked
    | HeadMoved
)

_decoder: msgspec.json.Decoder[LogPayload] = msgspec.json.Decoder(LogPayload)


def type_of(payload: LogPayload) -> str:
    """Return the event type, such as `message.user`."""
    return str(payload.__struct_config__.tag)


def decode_payload(data: bytes | str) -> LogPayload:
    """Return the payload of one stored event.

    Raises
    ------
    msgspec.ValidationError
        It is none of the closed set.
    """
    return _decoder.decode(data)
