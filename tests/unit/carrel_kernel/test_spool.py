"""The spool keeps what it was given, in order, until it is released, through the host's end at any byte.

Plan
- Random sequences of append, release, read and restart (Hypothesis) against a list: what is not released is read back
  byte for byte from any number on, and what is on disk is what `size` says.
- Cut off at every byte, as a killed host leaves it: whole lines are kept, a torn one is dropped, and writing goes on.
- What user code can put in the place of its files: nothing hangs, nothing is believed, an error is `SpoolError`.
- A disk that takes nothing: the spool says so, and the end of an execution is still told.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carrel_kernel import spool as module
from carrel_kernel.spool import Meta, Spool, SpoolError

SEGMENT = 40
LINES = st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"") + b"\n"), min_size=1, max_size=4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), LINES),
        st.tuples(st.just("release"), st.integers(0, 40)),
        st.tuples(st.just("read"), st.integers(0, 40)),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("forget"), st.none()),
    ),
    max_size=25,
)


def meta(id_: str = "e") -> Meta:
    return Meta(id=id_, kernel_id="main", incarnation="i", session_uid="s", code="1 +\n1")


def read(spool: Spool, after: int) -> bytes:
    """Read as `Execution.read` does: from memory where it holds it, else from the disk."""
    found = b""
    while after < spool.last_n:
        data, after = spool.tail(after) or spool.read_segment(after)
        found += data
    return found


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.fixture(autouse=True)
def small_segments() -> Iterator[None]:
    with patch.object(module, "SEGMENT_BYTES", SEGMENT):
        yield


@settings(max_examples=150)
@given(STEPS)
def test_what_is_not_released_is_read_back(steps: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spool = Spool.create(folder, meta())
        written: list[bytes] = []
        released = 0
        for kind, value in steps:
            if kind == "append":
                spool.append(value)  # type: ignore[arg-type]
                written += value  # type: ignore[operator]
            elif kind == "release":
                number = min(int(value), len(written))  # type: ignore[call-overload]
                spool.release(number)
                released = max(released, number)
                assert spool.released <= released
            elif kind == "read":
                after = max(spool.released, min(int(value), len(written)))  # type: ignore[call-overload]
                assert read(spool, after) == b"".join(written[after:])
            elif kind == "forget":
                spool.close()
                spool.forget_tail()
                (spool,) = Spool.load_all(folder)  # a finished one is not written to again; it is read and loaded
            else:
                before = spool.released
                spool.close()
                (spool,) = Spool.load_all(folder)
                assert spool.meta == meta()
                assert spool.released == before
            assert spool.last_n == len(written)
            assert spool.size == on_disk(folder)
        assert read(spool, spool.released) == b"".join(written[spool.released :])
        assert spool.last_line() == (written[-1].rstrip(b"\n") if written else b"")
        spool.remove()
        assert list(folder.iterdir()) == []


def test_memory_and_disk_say_the_same(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, meta())
    spool.append([b"1\n", b"2\n"])
    assert spool.tail(0) == (b"1\n2\n", 2)
    assert spool.tail(1) == (b"2\n", 2)
    assert spool.tail(2) is None
    spool.forget_tail()
    assert spool.tail(0) is None
    assert spool.read_segment(1) == (b"2\n", 2)
    spool.close()


@pytest.mark.parametrize("id_", ["e", "0199-uuid_like"])
def test_a_line_torn_anywhere_is_dropped_and_writing_goes_on(tmp_path: Path, id_: str) -> None:
    lines = [b"one\n", b"two\n", b"three\n"]
    whole = tmp_path / "whole"
    whole.mkdir()
    spool = Spool.create(whole, meta(id_))
    spool.append(lines)
    spool.close()
    (path,) = whole.iterdir()
    data = path.read_bytes()
    header = data.index(b"\n") + 1
    for length in range(len(data) + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / path.name).write_bytes(data[:length])
        found = list(Spool.load_all(folder))
        if length < header:  # it has not run, and the id is free
            assert found == []
            Spool.create(folder, meta(id_)).close()
            continue
        (torn,) = found
        kept = data[header:length].count(b"\n")
        assert torn.last_n == kept
        torn.append([b"after\n"])
        assert read(torn, 0) == b"".join(lines[:kept]) + b"after\n"
        torn.close()
        (again,) = Spool.load_all(folder)
        assert again.last_n == kept + 1
        assert read(again, 0) == b"".join(lines[:kept]) + b"after\n"


def test_an_execution_that_came_to_nothing_can_be_ended_on_disk(tmp_path: Path) -> None:
    Spool.create(tmp_path, meta()).close()
    (spool,) = Spool.load_all(tmp_path)
    assert spool.last_n == 0
    assert spool.last_line() == b""
    spool.append([b"end\n"])
    spool.close()
    (again,) = Spool.load_all(tmp_path)
    assert again.last_line() == b"end"


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES = {
    "gone": Path.unlink,
    "pipe": _pipe,
    "link": _link,
    "folder": _folder,
    "empty": lambda path: path.write_bytes(b""),
    "shorter": lambda path: os.truncate(path, path.stat().st_size - 1),
    "fewer lines": lambda path: path.write_bytes(b"x" * path.stat().st_size),
}


@pytest.mark.parametrize("change", CHANGES)
def test_files_that_user_code_changed_are_not_believed(tmp_path: Path, change: str) -> None:
    spool = Spool.create(tmp_path, meta())
    for number in range(20):
        spool.append([b"event %d\n" % number] * 3)
    spool.close()
    first, second, *_ = sorted(tmp_path.iterdir())
    CHANGES[change](second)
    with pytest.raises(SpoolError):
        read(spool, spool._segments[1].first - 1)
    assert read(spool, spool._segments[2].first - 1)  # the rest is there
    CHANGES[change](first)
    with pytest.raises(SpoolError):
        read(spool, 0)
    list(Spool.load_all(tmp_path))  # and a new host starts


def test_other_files_in_the_folder_are_passed_over(tmp_path: Path) -> None:
    Spool.create(tmp_path, meta("real")).close()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "other.000000000001.ndjson").write_bytes((tmp_path / "real.000000000001.ndjson").read_bytes())
    (tmp_path / "late.000000000007.ndjson").write_text("no first one\n")
    (tmp_path / "broken.000000000001.ndjson").write_text("{\n")
    assert [spool.meta.id for spool in Spool.load_all(tmp_path)] == ["real"]


def test_an_id_is_taken_once(tmp_path: Path) -> None:
    Spool.create(tmp_path, meta()).close()
    with pytest.raises(SpoolError, match="does not take"):
        Spool.create(tmp_path, meta())
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_user_code_removed_is_made_again(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "spool", meta())
    spool.append([b"x" * SEGMENT + b"\n"])
    for path in (tmp_path / "spool").iterdir():
        path.unlink()
    (tmp_path / "spool").rmdir()
    spool.append([b"y\n"])
    assert read(spool, 1) == b"y\n"
    spool.remove()


@pytest.mark.parametrize("roll", [False, True])
def test_a_disk_that_takes_nothing_is_told_and_the_end_is_still_read(tmp_path: Path, roll: bool) -> None:
    spool = Spool.create(tmp_path, meta())
    spool.append([b"before" * (10 if roll else 1) + b"\n"])
    name = "_create" if roll else "_write_all"
    with patch.object(module, name, side_effect=OSError(28, "No space left on device")):
        with pytest.raises(SpoolError):
            spool.append([b"lost on disk\n"])
        with pytest.raises(SpoolError):
            spool.append([b"end\n"])
    spool.forget_tail()  # must not: it is all there is
    assert read(spool, 1) == b"lost on disk\nend\n"
    assert spool.last_n == 3
    spool.close()
