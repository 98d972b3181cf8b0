"""What one execution emits, in order: the closed set of execution events.

On the wire an event is one line of JSON with `type` and `n`, its number within the execution (1, 2, 3, …, without
gaps). `finished` is always the last one. Source of the shapes: Jupyter's messaging specification, 5.4.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

Outcome: TypeAlias = Literal["ok", "error", "interrupted", "timeout", "out_of_memory", "kernel_died"]
"""How an execution ended, as the kernel host saw it."""

MimeBundle: TypeAlias = dict[str, Any]
"""MIME type → data: text as str, JSON types as values, binary types as base64 str."""


class _Event(msgspec.Struct, tag_field="type", omit_defaults=True, frozen=True, kw_only=True):
    n: int
    """Number within the execution, from 1, without gaps."""


class Started(_Event, tag="started", kw_only=True, frozen=True):
    """The kernel took the code up."""

    kernel_id: str
    incarnation: str
    """The kernel process that runs it; another one has another incarnation and other variables."""
    time: float
    """Unix time in seconds."""


class Stdout(_Event, tag="stdout", kw_only=True, frozen=True):
    """Text for standard output; neighbouring writes may come joined."""

    text: str


class Stderr(_Event, tag="stderr", kw_only=True, frozen=True):
    """Text for standard error."""

    text: str


class Display(_Event, tag="display", kw_only=True, frozen=True):
    """`display_data`, or `update_display_data` when `update` is set."""

    data: MimeBundle
    metadata: dict[str, Any] = {}
    display_id: str | None = None
    update: bool = False


class Result(_Event, tag="result", kw_only=True, frozen=True):
    """The value of the last expression."""

    data: MimeBundle
    metadata: dict[str, Any] = {}
    execution_count: int


class Error(_Event, tag="error", kw_only=True, frozen=True):
    """An exception that the code did not catch."""

    name: str
    value: str
    traceback: list[str]
    """Lines with ANSI colours, as IPython formats them."""


class Clear(_Event, tag="clear", kw_only=True, frozen=True):
    """`clear_output`."""

    wait: bool = False


class InputRequest(_Event, tag="input_request", kw_only=True, frozen=True):
    """The code called `input()`."""

    prompt: str
    password: bool = False


class Artifact(_Event, tag="artifact", kw_only=True, frozen=True):
    """A file in the workspace that this execution made or changed."""

    path: str
    """Relative to the workspace, with `/`."""
    size: int
    """Bytes."""
    sha256: str


TruncationReason: TypeAlias = Literal["message", "execution", "session", "disk"]
"""Which limit it was: of one message, of the execution, of all executions of the session, or that of the disk."""


class Truncated(_Event, tag="truncated", kw_only=True, frozen=True):
    """Output over a limit was cut, once; what was left out is in a file when `path` is set."""

    omitted_bytes: int
    limit_bytes: int
    """0 where the disk is the limit."""
    reason: TruncationReason = "execution"
    path: str | None = None


class Finished(_Event, tag="finished", kw_only=True, frozen=True):
    """The last event of every execution."""

    status: Outcome
    wall_seconds: float
    execution_count: int | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    bytes_out: int = 0
    message: str | None = None
    """Says more than the status where there is more to say, such as the signal that killed the kernel."""
    lost_state: bool = False
    """The kernel process was replaced: its variables are gone."""


ExecutionEvent: TypeAlias = (
    Started | Stdout | Stderr | Display | Result | Error | Clear | InputRequest | Artifact | Truncated | Finished
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[ExecutionEvent] = msgspec.json.Decoder(ExecutionEvent)


def encode_event(event: ExecutionEvent) -> bytes:
    """Return the event as one line of JSON, with the newline."""
    return _encoder.encode(event) + b"\n"


def decode_event(line: bytes) -> ExecutionEvent:
    """Return the event of one line.

    Raises
    ------
    msgspec.ValidationError
        The line is JSON, but no execution event.
    msgspec.DecodeError
        The line is not JSON.
    """
    return _decoder.decode(line)
