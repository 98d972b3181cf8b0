"""Parts of snapshots that need no kernel: contents in their folder, files of a workspace, and bounds in time.

Plan
- Contents: become whole or not at all, within their room; links are not followed; what nobody uses goes.
- Workspace: an unchanged file is not read again; one that changes is; what is in place need not be brought.
- Deadline: ends code that catches it once, and leaves a user's own timer and handler as they were.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from carrel_kernel.changes import Workspace
from carrel_kernel.errors import BlobNotFound, TooLarge, WrongDigest
from carrel_kernel.inside.deadline import TooLong, limit
from carrel_kernel.inside.snapshots import blobs as inside
from carrel_kernel.inside.snapshots.reasons import reason_of, type_name
from carrel_kernel.snapshots.blobs import UNUSED_SECONDS, Blobs
from carrel_kernel.snapshots.contents import Contents


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    made = Blobs(tmp_path / "blobs", 100)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "leftover").write_text("of an earlier host")
    made.prepare()
    return made


def write(blobs: Blobs, data: bytes, name: str | None = None) -> None:
    with blobs.write(name or digest(data)) as incoming:
        incoming.write(data)


def test_contents_come_whole_or_not_at_all(blobs: Blobs) -> None:
    write(blobs, b"abc")
    assert blobs.has(digest(b"abc"))
    with blobs.open(digest(b"abc")) as file:
        assert file.read() == b"abc"
    with pytest.raises(WrongDigest):
        write(blobs, b"abc", digest(b"other"))
    with pytest.raises(TooLarge):
        write(blobs, b"x" * 98)
    with pytest.raises(KeyboardInterrupt), blobs.write(digest(b"y")):
        raise KeyboardInterrupt
    assert [path.name for path in blobs.folder.iterdir()] == [digest(b"abc")]
    blobs.check({digest(b"abc"): 3})
    for size in (2, 4):
        with pytest.raises(WrongDigest):
            blobs.check({digest(b"abc"): size})
    blobs.remove([digest(b"abc"), digest(b"unknown")])
    assert not blobs.has(digest(b"abc"))


def test_links_folders_and_pipes_are_no_contents(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (blobs.folder / "a").symlink_to(tmp_path / "secret")
    (blobs.folder / "b").mkdir()
    os.mkfifo(blobs.folder / "c")
    for name in ("a", "b", "c", "d"):
        with pytest.raises(BlobNotFound):
            blobs.open(name)
        with pytest.raises(BlobNotFound):
            blobs.adopt(blobs.folder, {name: 6})


def test_what_nobody_uses_is_removed(blobs: Blobs) -> None:
    write(blobs, b"used")
    write(blobs, b"unused")
    folder = blobs.folder_for_kernel()
    old = time.time() - UNUSED_SECONDS - 10
    for path in (*blobs.folder.iterdir(),):
        os.utime(path, (old, old))
    assert blobs.has(digest(b"used"))
    assert blobs.sweep() == 2
    assert not folder.exists()
    assert blobs.sweep() == 0
    assert blobs.sweep(time.time() + UNUSED_SECONDS + 10) == 1


def test_only_files_that_changed_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path)
    workspace.prepare()
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("one")
    contents = Contents(workspace, 1000)
    opened: list[str] = []
    real = type(workspace.files).open
    monkeypatch.setattr(type(workspace.files), "open", lambda self, name: (opened.append(name), real(self, name))[1])
    first = contents.save()
    assert [(file.path, file.sha256) for file in first.files] == [("a", digest(b"one")), ("b", digest(b"one"))]
    assert sorted(opened) == ["a", "b"]
    (tmp_path / "b").write_text("other")
    second = contents.save()
    assert [file.sha256 for file in second.files] == [digest(b"one"), digest(b"other")]
    assert sorted(opened) == ["a", "b", "b"]
    with contents.open(digest(b"other")) as file:
        assert file.read() == b"other"
    with pytest.raises(BlobNotFound):
        contents.open(digest(b"unknown"))
    blobs = Blobs(tmp_path / ".carrel" / "snapshots", 1000)
    assert contents.missing(second, blobs) == set()
    assert contents.missing(first, blobs) == {digest(b"one")}
    with pytest.raises(TooLarge):
        Contents(workspace, 7).save()


def stubborn() -> None:
    try:
        while True:
            pass
    except TooLong:
        while True:
            pass


def test_a_deadline_ends_what_catches_it_and_leaves_the_users_timer() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: heard.append(number))
    signal.setitimer(signal.ITIMER_REAL, 1000, 500)
    try:
        with pytest.raises(TooLong), limit(0.01):
            stubborn()
        assert signal.getitimer(signal.ITIMER_REAL) == pytest.approx((1000, 500), abs=5)
        with limit(100):
            assert signal.getitimer(signal.ITIMER_REAL)[0] < 101
        os.kill(os.getpid(), signal.SIGALRM)
        assert heard == [signal.SIGALRM]
        with pytest.raises(TooLong), limit(0):
            heard.append(0)
        assert heard == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_names_and_reasons_of_hostile_objects() -> None:
    class Meta(type):
        __name__ = property(lambda _: 1 / 0)  # type: ignore[assignment]

    class Odd(Exception, metaclass=Meta):
        def __str__(self) -> str:
            raise ValueError("no")

    odd: Any = Odd()
    assert type_name(odd) == reason_of(odd) == "Odd"
    assert len(reason_of(ValueError("x" * 1000))) == 200
    assert reason_of(TooLong()) == "there was no time left for it"


def test_what_the_kernel_writes_can_be_taken_back(tmp_path: Path) -> None:
    made = inside.Blobs(tmp_path, 10)
    with made.writer() as writer:
        writer.write(b"kept")
        mark = writer.mark()
        writer.write(memoryview(bytearray(b"gone")).toreadonly())
        writer.rollback(mark)
        writer.write(b"!")
        with pytest.raises(inside.TooLarge):
            writer.write(b"123456")
    assert (tmp_path / digest(b"kept!")).read_bytes() == b"kept!"
    with made.writer() as writer:
        writer.write(b"kept!")  # the same again takes no room
    with made.writer() as writer:
        writer.write(b"12345")
    with pytest.raises(inside.TooLarge), made.writer() as writer:
        writer.write(b"6")
    assert len(list(tmp_path.iterdir())) == 2
