"""How an execution ended, from what was seen of it: a row for every branch, and the order in which causes win."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_kernel.outcome import Seen, Verdict, judge
from carrel_wire.events import Error, Finished, decode_event, encode_event

MIB = 1024**2
OK, FAILED = {"status": "ok"}, {"status": "error", "ename": "ValueError"}
KILLED, ABORTED = -int(signal.SIGKILL), -int(signal.SIGABRT)
RUNGS = "SIGINT → SIGINT → SIGKILL"


def error(name: str, *traceback: str) -> Error:
    return Error(n=1, name=name, value="", traceback=list(traceback))


ALIVE: list[tuple[str, dict[str, Any], Verdict]] = [
    ("ok", {"reply": OK}, Verdict("ok")),
    ("an exception", {"reply": FAILED, "error": error("ValueError")}, Verdict("error")),
    ("an exception without its output", {"reply": FAILED}, Verdict("error")),
    ("no reply", {}, Verdict("error", "the kernel's reply was lost or malformed")),
    ("a reply of nonsense", {"reply": {"status": 5}}, Verdict("error", "the kernel's reply was lost or malformed")),
    (
        "aborted",
        {"reply": {"status": "aborted"}},
        Verdict("interrupted", "not run: an earlier request of the kernel failed"),
    ),
    (
        "abort",
        {"reply": {"status": "abort"}},
        Verdict("interrupted", "not run: an earlier request of the kernel failed"),
    ),
    ("a KeyboardInterrupt of its own", {"reply": FAILED, "error": error("KeyboardInterrupt")}, Verdict("interrupted")),
    (
        "interrupted",
        {"reply": FAILED, "error": error("KeyboardInterrupt"), "ladder": "interrupted", "rungs": "SIGINT"},
        Verdict("interrupted", "sent SIGINT"),
    ),
    (
        "an interrupt before the first line, of which the kernel tells nothing",
        {"ladder": "interrupted", "rungs": "SIGINT"},
        Verdict("interrupted", "sent SIGINT"),
    ),
    ("an interrupt that came too late", {"reply": OK, "ladder": "interrupted", "rungs": "SIGINT"}, Verdict("ok")),
    (
        "timeout",
        {"reply": FAILED, "error": error("KeyboardInterrupt"), "ladder": "timeout", "rungs": "SIGINT"},
        Verdict("timeout", "the time limit was over; sent SIGINT"),
    ),
    (
        "a timeout that the code caught",
        {"reply": OK, "ladder": "timeout", "rungs": "SIGINT"},
        Verdict("timeout", "the time limit was over; sent SIGINT"),
    ),
]


@pytest.mark.parametrize(("name", "seen", "verdict"), ALIVE, ids=[row[0] for row in ALIVE])
def test_while_the_kernel_lives(name: str, seen: dict[str, Any], verdict: Verdict) -> None:
    assert judge(Seen(**seen)) == verdict
    assert not verdict.lost_state


DEAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("a signal", {"exit_code": -int(signal.SIGSEGV)}, "kernel_died", "was killed by SIGSEGV"),
    ("an unknown signal", {"exit_code": -200}, "kernel_died", "was killed by signal 200"),
    ("an exit", {"exit_code": 3}, "kernel_died", "ended with code 3"),
    ("an exit after a reply", {"exit_code": 0, "reply": OK}, "kernel_died", "ended with code 0"),
    (
        "a restart",
        {"exit_code": KILLED, "stopped": "the kernel was restarted"},
        "kernel_died",
        "the kernel was restarted",
    ),
    ("a restart during a timeout", {"exit_code": KILLED, "stopped": "why", "ladder": "timeout"}, "kernel_died", "why"),
    (
        "a timeout",
        {"exit_code": KILLED, "ladder": "timeout", "killed_by_ladder": True, "rungs": RUNGS},
        "timeout",
        RUNGS,
    ),
    (
        "an interrupt",
        {"exit_code": KILLED, "ladder": "interrupted", "killed_by_ladder": True, "rungs": RUNGS},
        "kernel_died",
        f"did not let itself be interrupted; sent {RUNGS}",
    ),
    ("over the limit", {"exit_code": KILLED, "over_limit": "kernel"}, "out_of_memory", "was killed by SIGKILL"),
    (
        "the container is full",
        {"exit_code": KILLED, "over_limit": "container", "container_limit_bytes": 2**30},
        "out_of_memory",
        "what runs in the container used up its 1024 MiB",
    ),
    ("killed by the system", {"exit_code": KILLED, "out_of_memory_kill": True}, "out_of_memory", "no limit of its own"),
    ("the system killed another", {"exit_code": 3, "out_of_memory_kill": True}, "kernel_died", "ended with code 3"),
    (
        "aborted by a library without memory",
        {"exit_code": ABORTED, "memory_limit_bytes": 100 * MIB, "peak_memory_bytes": 51 * MIB},
        "out_of_memory",
        "peak was 51 MiB, the limit is 100 MiB; the kernel was killed by SIGABRT",
    ),
    (
        "aborted with memory left",
        {"exit_code": ABORTED, "memory_limit_bytes": 100 * MIB, "peak_memory_bytes": 50 * MIB},
        "kernel_died",
        "SIGABRT",
    ),
    ("aborted without a limit", {"exit_code": ABORTED, "peak_memory_bytes": 10**12}, "kernel_died", "SIGABRT"),
]


@pytest.mark.parametrize(("name", "seen", "status", "says"), DEAD, ids=[row[0] for row in DEAD])
def test_when_the_kernel_died(name: str, seen: dict[str, Any], status: str, says: str) -> None:
    verdict = judge(Seen(**seen))
    assert verdict.status == status
    assert verdict.lost_state
    assert verdict.message
    assert says in verdict.message


@pytest.mark.parametrize("name", ["MemoryError", "_ArrayMemoryError", "ArrowMemoryError", "bad_alloc"])
def test_memory_errors_say_peak_limit_and_line(name: str) -> None:
    lines = ("\x1b[31mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[3]\x1b[39m\x1b[32m, line 7\x1b[39m", "more")
    seen = Seen(reply=FAILED, error=error(name, *lines), memory_limit_bytes=512 * MIB, peak_memory_bytes=500 * MIB)
    message = "out of memory: the kernel's peak was 500 MiB, the limit is 512 MiB; line 7 of the cell"
    assert judge(seen) == Verdict("out_of_memory", message)


def test_a_memory_error_without_its_output() -> None:
    verdict = judge(Seen(reply={"status": "error", "ename": "MemoryError"}))
    assert verdict == Verdict(
        "out_of_memory", "out of memory: the kernel's peak was 0 MiB, there is no limit of its own"
    )


def test_an_interrupt_wins_over_the_exception_it_caused() -> None:
    seen = Seen(reply=FAILED, error=error("MemoryError"), ladder="interrupted", rungs="SIGINT")
    assert judge(seen).status == "interrupted"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
REPLIES = st.dictionaries(st.sampled_from(["status", "ename", "evalue", "traceback", "execution_count"]), JSON)


@given(
    st.none() | REPLIES,
    st.sampled_from(["ok", "error", "aborted", 5, None]),
    st.none() | st.builds(error, st.text(max_size=20), st.text(max_size=40)),
    st.none() | st.integers(-100, 300),
)
def test_whatever_a_kernel_says_there_is_one_verdict(
    reply: dict[str, Any] | None, status: object, told: Error | None, exit_code: int | None
) -> None:
    """And it can be told; a kernel that lives cannot say that it has died, nor the other way round."""
    reply = None if reply is None else {**reply, "status": reply.get("status", status)}
    verdict = judge(Seen(reply=reply, error=told, exit_code=exit_code))
    event = Finished(n=1, status=verdict.status, wall_seconds=0.0, message=verdict.message)
    assert decode_event(encode_event(event)) == event
    assert verdict.lost_state == (exit_code is not None)
    if exit_code is None:
        assert verdict.status in ("ok", "error", "interrupted", "out_of_memory")
        assert (verdict.status == "ok") == bool(reply and reply["status"] == "ok")
    else:
        assert verdict.status in ("kernel_died", "out_of_memory")
