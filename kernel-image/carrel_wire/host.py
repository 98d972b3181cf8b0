"""Requests and replies of the kernel host's `/v1` surface (JSON; unknown fields are refused in requests)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from carrel_wire.events import Outcome

ExecutionState: TypeAlias = Literal["starting", "idle", "busy", "dead"]
ReachOutcome: TypeAlias = Literal["connected", "refused", "timeout", "unreachable"]
"""What became of a connection: it was opened; somebody answered that it will not be; nothing answered; no way there."""


ACKNOWLEDGED_HEADER: Final = "Carrel-Acknowledged"
"""On the request of an execution: earlier ones that are acknowledged with it, as `ID=N,ID=N`. The reply repeats it; a
host that does not know the header leaves it out of its reply, and has to be told by `…/ack`."""


def encode_acknowledged(numbers: Mapping[UUID, int]) -> str:
    """Return the header's value for the last event of each execution that is stored elsewhere."""
    return ",".join(f"{execution}={n}" for execution, n in numbers.items())


def decode_acknowledged(value: str) -> dict[str, int]:
    """Return what such a value says.

    Raises
    ------
    ValueError
        It is none.
    """
    numbers: dict[str, int] = {}
    for item in value.split(","):
        execution, _, n = item.partition("=")
        if not (execution and n.isascii() and n.isdigit() and len(n) < 16):
            raise ValueError(f"{item!r} is not the id of an execution, `=`, and the number of an event")
        numbers[execution] = int(n)
    return numbers


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class _Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    pass


class ErrorBody(_Reply, kw_only=True, frozen=True):
    """Body of every reply with a status of 400 or more."""

    code: str
    """Stable, in snake_case: `unbound`, `already_bound`, `kernel_not_found`, `execution_not_found`, …"""
    message: str
    """What happened and what to do."""
    detail: dict[str, Any] = {}


class BindRequest(_Request, kw_only=True, frozen=True):
    """`POST /v1/bind`: makes an unbound host one session's. Idempotent for one session, 409 for another."""

    session_uid: str
    """The session that tokens must name from now on: AgentSession UID, or the session's id for local hosts."""
    pod_uid: str
    """Must be the host's own identity (the audience of its tokens)."""
    boot_id: str | None = None
    """When given, must be the host's current boot."""
    folder: str | None = None
    """Name of the folder below the host's workspace that is the session's; none where all of it is."""
    env: dict[str, str] = {}
    memory_limit_bytes: int | None = None
    """Limit of a kernel's data segment (`RLIMIT_DATA`); none means no limit of the host's own."""
    cpu_limit: float | None = None
    """CPUs, for the thread counts of numerical libraries."""
    owner: str | None = None
    """Whose the session is; snapshots carry it. A later bind for the same session may say what an earlier left out."""
    snapshots_of: list[str] = []
    """Other sessions of the same owner whose snapshots may be restored here: the one that this is a fork of."""


class BindReply(_Reply, kw_only=True, frozen=True):
    host_id: str
    boot_id: str
    session_uid: str
    already: bool
    """The host had been bound to this session before."""


class ReachRequest(_Request, kw_only=True, frozen=True):
    """`POST /v1/reach`: tries to open a TCP connection from an unbound host; 409 `already_bound` once it is bound."""

    host: str
    """An IP address: names are not looked up."""
    port: int
    timeout_seconds: float = 1.0


class ReachReply(_Reply, kw_only=True, frozen=True):
    outcome: ReachOutcome


class KernelInfo(_Reply, kw_only=True, frozen=True):
    id: str
    incarnation: str
    """Changes whenever the process, and with it all variables, is new."""
    execution_state: ExecutionState
    current_execution: str | None
    execution_count: int
    last_activity: float
    """Unix time in seconds."""
    pid: int | None
    memory_bytes: int
    peak_memory_bytes: int
    cpu_seconds: float
    restarts: int
    fresh_because: str | None = None
    """Why its process is a fresh interpreter; none when it was forked from one that had imported everything."""
    sealed: bool = False
    """Its state is in a snapshot, and nothing runs in it any more."""


class UnacknowledgedExecution(_Reply, kw_only=True, frozen=True):
    id: str
    kernel_id: str
    incarnation: str
    code: str
    last_n: int
    finished: bool


class HostState(_Reply, kw_only=True, frozen=True):
    """`GET /v1/state`."""

    host_id: str
    boot_id: str
    session_uid: str | None
    kernels: list[KernelInfo]
    last_activity: float
    busy: bool
    connections: int
    """Open WebSockets and running event streams."""
    disk_used_bytes: int
    unacknowledged: list[UnacknowledgedExecution]
    fresh_because: str | None = None
    """Why a kernel that starts now would be a fresh interpreter; none when it would be a fork."""
    warm: bool = True
    """Whether a kernel would start at once: a process waits to become one, or the host was told to keep none."""


class CreateKernelRequest(_Request, kw_only=True, frozen=True):
    id: str = "main"
    """Name of the context; the kernel `main` is there after bind."""


class ExecuteRequest(_Request, kw_only=True, frozen=True):
    """`PUT /v1/kernels/{kernel}/executions/{execution}`."""

    code: str
    timeout_seconds: float | None = None
    silent: bool = False
    store_history: bool = True
    stop_on_error: bool = True
    incarnation: str | None = None
    """When given and no longer the kernel's, the request is refused with 409 `incarnation_changed`."""


class AckRequest(_Request, kw_only=True, frozen=True):
    """`POST …/executions/{execution}/ack`: all events up to and with `n` are stored for ever elsewhere."""

    n: int


class InterruptReply(_Reply, kw_only=True, frozen=True):
    kernel_id: str
    was_busy: bool


class Variable(_Reply, kw_only=True, frozen=True):
    name: str
    type: str
    summary: str
    """Short text, cut at 200 characters."""
    shape: list[int] | None = None
    dtypes: dict[str, str] | None = None
    memory_bytes: int | None = None
    preview: dict[str, Any] | None = None
    """For tables: `{"columns": […], "rows": [[…], …]}` of the first rows."""


class VariablesReply(_Reply, kw_only=True, frozen=True):
    variables: list[Variable]
    truncated: bool = False


class FileInfo(_Reply, kw_only=True, frozen=True):
    path: str
    size: int
    modified: float
    sha256: str | None = None


class FilesReply(_Reply, kw_only=True, frozen=True):
    files: list[FileInfo]


class Change(_Reply, kw_only=True, frozen=True):
    path: str
    kind: Literal["created", "modified", "deleted"]
    size: int = 0
    sha256: str | None = None


class ChangesReply(_Reply, kw_only=True, frozen=True):
    """`GET /v1/changes?since=CURSOR`; `cursor` is opaque."""

    cursor: str
    changes: list[Change]


class CompleteRequest(_Request, kw_only=True, frozen=True):
    code: str
    cursor_pos: int


class CompleteReply(_Reply, kw_only=True, frozen=True):
    matches: list[str]
    cursor_start: int
    cursor_end: int


class InspectReply(_Reply, kw_only=True, frozen=True):
    found: bool
    text: str


class ExecutionSummary(_Reply, kw_only=True, frozen=True):
    """Body of the reply of an execution that is over and acknowledged: its events are gone from the host."""

    id: str
    status: Outcome | None
    acknowledged: bool
