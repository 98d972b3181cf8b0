"""How an execution ended, decided from what was seen of it. Pure."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from carrel_kernel.ladder import Reason
from carrel_wire.events import Error, Outcome

_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_LINE: Final = re.compile(r"Cell In\[\d+\], line (\d+)")
_MEMORY_ERRORS: Final = frozenset({"MemoryError", "_ArrayMemoryError", "ArrowMemoryError", "bad_alloc"})
_MIB: Final = 1024 * 1024
OverLimit: TypeAlias = Literal["kernel", "container"]
"""Whose limit of memory it was."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the host saw of one execution."""

    reply: dict[str, Any] | None = None
    """Content of the kernel's reply; none when there was none."""
    error: Error | None = None
    exit_code: int | None = None
    """How the kernel process ended, when it did: negative for a signal."""
    ladder: Reason | None = None
    rungs: str = ""
    killed_by_ladder: bool = False
    over_limit: OverLimit | None = None
    """The host killed the kernel because its memory was over this limit."""
    out_of_memory_kill: bool = False
    """The system killed a process of the container for memory meanwhile."""
    stopped: str | None = None
    """Why the host ended the kernel on somebody's wish."""
    memory_limit_bytes: int | None = None
    container_limit_bytes: int | None = None
    peak_memory_bytes: int = 0


@dataclass(frozen=True)
class Verdict:
    """Status of the execution, more words where there are any, and whether the variables are gone."""

    status: Outcome
    message: str | None = None
    lost_state: bool = False


def judge(seen: Seen) -> Verdict:
    """Return how the execution ended."""
    if seen.exit_code is not None:
        return _died(seen, seen.exit_code)
    if seen.ladder == "timeout":
        return Verdict("timeout", f"the time limit was over; sent {seen.rungs}")
    status = (seen.reply or {}).get("status")
    if status == "ok":
        return Verdict("ok")
    if status in ("aborted", "abort"):
        return Verdict("interrupted", "not run: an earlier request of the kernel failed")
    if seen.ladder == "interrupted":  # of a signal between two lines of its own the kernel tells nothing
        return Verdict("interrupted", f"sent {seen.rungs}")
    return _failed(seen) if status == "error" else Verdict("error", "the kernel's reply was lost or malformed")


def _failed(seen: Seen) -> Verdict:
    name = seen.error.name if seen.error else str((seen.reply or {}).get("ename", ""))
    if name == "KeyboardInterrupt":
        return Verdict("interrupted")
    if name in _MEMORY_ERRORS:
        return Verdict("out_of_memory", _memory_message(seen) + _line(seen.error))
    return Verdict("error")


def _died(seen: Seen, code: int) -> Verdict:
    if seen.stopped:
        return Verdict("kernel_died", seen.stopped, lost_state=True)
    if seen.ladder == "timeout":
        return Verdict("timeout", f"the time limit was over; sent {seen.rungs}", lost_state=True)
    if seen.killed_by_ladder:
        message = f"the code did not let itself be interrupted; sent {seen.rungs}"
        return Verdict("kernel_died", message, lost_state=True)
    if seen.over_limit or (seen.out_of_memory_kill and code == -signal.SIGKILL) or _starved(seen, code):
        return Verdict("out_of_memory", _memory_message(seen) + f"; the kernel {_ending(code)}", lost_state=True)
    return Verdict("kernel_died", f"the kernel {_ending(code)}", lost_state=True)


def _starved(seen: Seen, code: int) -> bool:
    """Whether a library aborted the process because it got no memory, as C++ code such as ZeroMQ does."""
    return (
        code == -signal.SIGABRT
        and seen.memory_limit_bytes is not None
        and seen.peak_memory_bytes > seen.memory_limit_bytes // 2
    )


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _memory_message(seen: Seen) -> str:
    limit = seen.memory_limit_bytes
    limited = f"the limit is {limit // _MIB} MiB" if limit is not None else "there is no limit of its own"
    if seen.over_limit == "container" or seen.out_of_memory_kill:
        container = (seen.container_limit_bytes or 0) // _MIB
        limited += f", and what runs in the container used up its {container} MiB"
    return f"out of memory: the kernel's peak was {seen.peak_memory_bytes // _MIB} MiB, {limited}"


def _line(error: Error | None) -> str:
    found = _LINE.search(_ANSI.sub("", "\n".join(error.traceback))) if error else None
    return f"; line {found[1]} of the cell" if found else ""
