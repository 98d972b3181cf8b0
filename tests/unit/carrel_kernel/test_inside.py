"""What runs in the kernel's own process beside user code and its objects, which may raise, lie or be huge.

Plan
- Messages: any object becomes JSON that a strict reader takes; ordinary data is untouched.
- The process: ends without its parent, inherits no descriptor, takes on what the session decides.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import resource
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_kernel.connection import ConnectionInfo
from carrel_kernel.inside import packing
from carrel_kernel.process import Handover, Start, environment

CHILD = Path(packing.__file__).with_name("child.py")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary()
ANYTHING = st.recursive(
    SCALARS | st.builds(object) | st.dates() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(SCALARS | st.dates(), inner, max_size=3)
    ),
    max_leaves=8,
)


class Hostile:
    """Raises wherever it can."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return object.__getattribute__(self, name)
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__

    def __len__(self) -> int:
        raise RuntimeError("no")

    def __iter__(self) -> Any:
        raise RuntimeError("no")


def strict(data: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert data.isascii()
    return json.loads(data, parse_constant=refuse)


@given(st.dictionaries(st.text(max_size=5), ANYTHING))
def test_any_message_becomes_strict_json(message: dict[str, Any]) -> None:
    assert set(strict(packing.pack(message))) == set(message)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_ordinary_data_is_untouched(value: Any) -> None:
    assert strict(packing.pack(value)) == packing.plain(value) == value


def test_a_message_that_nobody_would_take_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_BYTES", 50_000)
    monkeypatch.setattr(packing, "MAX_DISPLAY_BYTES", 100_000)
    monkeypatch.setattr(packing, "_LARGE_PART_BYTES", 1000)
    monkeypatch.setattr(packing, "_MAX_CHARACTERS", 10_000)
    display = {
        "data": {"text/plain": "small", "text/html": "x" * 200_000},
        "metadata": {"m": 1},
        "transient": {"display_id": "d"},
    }
    found = strict(packing.pack(display))
    omitted = found["metadata"].pop(packing.OMITTED)
    assert found == {"data": {"text/plain": "small"}, "metadata": {}, "transient": {"display_id": "d"}}
    assert len(packing.pack({"text/html": "x" * 200_000})) < omitted < 201_000
    whole = {"data": {"text/html": "x" * 80_000}}
    assert strict(packing.pack(whole)) == whole
    error = strict(packing.pack({"ename": "E", "evalue": "v" * 200_000, "traceback": ["t" * 200_000] * 50}))
    assert error["ename"] == "E"
    assert error["evalue"].endswith("characters were left out)")
    assert len(packing.pack(error)) < 20_000
    assert len(packing.pack({"matches": list(range(100_000))})) < 100_000
    assert len(packing.pack([{str(number): number for number in range(100_000)}])) < 200_000


def test_what_stands_for_what() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    found = strict(
        packing.pack(
            {
                "nan": float("nan"),
                "bytes": b"png",
                "time": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
                "hostile": Hostile(),
                "huge": 10**5000,
                "large": 2**70,
                "cycle": cycle,
                "numpy": np.float64(1.5),
                (1, 2): "key",
                "set": {1},
            }
        )
    )
    assert found["nan"] == "nan"
    assert found["bytes"] == "cG5n"
    assert found["time"].startswith("2026-01-02T00:00:00")
    assert found["hostile"] == "(Hostile)"
    assert found["huge"] == "(a very large integer)"
    assert found["large"] == 2**70
    assert "(nested too deeply)" in json.dumps(found["cycle"])
    assert found["numpy"] == 1.5
    assert found["(1, 2)"] == "key"


class Child:
    """A fresh interpreter that becomes a kernel, and the host's end of its stream."""

    def __init__(self, parent: int, caches: Path, **options: Any) -> None:
        self.stream, theirs = socket.socketpair()
        self.stream.settimeout(60)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(CHILD), str(parent)],
                **{"stdin": theirs.fileno(), "stderr": subprocess.PIPE, "env": environment(caches), **options},
            )

    def say(self, line: Any) -> bytes:
        """Send a line and return what is answered; nothing when the process ends."""
        self.stream.sendall(msgspec.json.encode(line) + b"\n")
        with suppress(ConnectionResetError):
            return self.stream.recv(100)
        return b""

    def end(self) -> tuple[int, str]:
        """Close the stream and return the exit code and what was written to the host's log."""
        self.stream.close()
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors.decode()


@pytest.fixture
def start(tmp_path: Path) -> Start:
    info = ConnectionInfo(ip=str(tmp_path / "k"), key="key")
    file = tmp_path / "connection.json"
    file.write_bytes(msgspec.json.encode(info))
    return Start(str(file))


def test_a_process_without_its_parent_ends(start: Start, tmp_path: Path) -> None:
    child = Child(1, tmp_path)
    assert child.say(start) == b""
    assert child.end() == (1, "")


def test_a_process_that_is_not_wanted_ends_well(start: Start, tmp_path: Path) -> None:
    assert Child(os.getpid(), tmp_path).end() == (0, "")
    child = Child(os.getpid(), tmp_path)
    assert child.say(start) == b"listening\n"
    assert child.end() == (0, "")


@pytest.mark.parametrize("broken", ["start", "handover"])
def test_what_cannot_be_done_is_told(start: Start, tmp_path: Path, broken: str) -> None:
    (tmp_path / "file").touch()
    missing = str(tmp_path / "file" / "below")
    child = Child(os.getpid(), tmp_path)
    if broken == "handover":
        assert child.say(start) == b"listening\n"
    assert child.say(Start(missing) if broken == "start" else Handover(missing, {}, 1, None)) == b""
    code, errors = child.end()
    assert code == 1
    assert str(tmp_path / "file") in errors


SCRIPT = """
import json, os, sys, resource
from carrel_kernel.inside import app, system
first = os.open("/dev/null", os.O_RDONLY); second = os.dup2(first, 200); third = os.dup2(first, 201)
system.inherit_nothing(200)
print(sorted(int(name) for name in os.listdir("/dev/fd"))[:5], flush=True)
app.apply(json.loads(sys.argv[1]), None)
soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
print(os.environ["GREETING"], os.getcwd(), hard - soft, 2**30 <= hard < 2**30 + int(sys.argv[2]))
"""


def test_it_inherits_nothing_and_takes_on_what_the_session_decides(tmp_path: Path) -> None:
    handover = Handover(str(tmp_path), {"GREETING": "hello"}, 1, 2**30, 2**26)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, msgspec.json.encode(handover).decode(), str(2**28)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(CHILD.parents[2])},
    )
    descriptors, applied = done.stdout.splitlines()
    assert descriptors == "[0, 1, 2, 3, 200]"  # 3 is the listing's own
    assert applied == f"hello {tmp_path} {2**26} True"
    assert resource.getrlimit(resource.RLIMIT_DATA)[1] == resource.RLIM_INFINITY


def test_the_environment_is_an_allow_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_KEY", "secret")
    monkeypatch.setenv("CARREL_KERNEL_KEYS", "path")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("PYTHONPATH", "path")
    monkeypatch.setenv("LANG", "C.UTF-8")
    found = environment(tmp_path)
    assert found["LANG"] == "C.UTF-8"
    assert not {"LLM_API_KEY", "CARREL_KERNEL_KEYS", "LD_PRELOAD", "PYTHONPATH"} & set(found)
    assert all(
        str(tmp_path) in found[name]
        for name in ("IPYTHONDIR", "MPLCONFIGDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
    )
