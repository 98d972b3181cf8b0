"""Names of files and what they lead to: always into the workspace, whatever they are and whatever lies on the way.

Plan
- Random names (Hypothesis), with the pieces that attacks are made of: each is refused or lands under the workspace, in
  reading, writing and deleting, beside links of all kinds; a secret outside is never read, changed or removed.
- A link that is put in the place of a folder after its name was checked is refused by the opening itself; so it is
  when a thread swaps the two as fast as it can, in reading, writing, deleting and listing.
- Replaced whole or not at all; nothing is left behind.
- Walks look at a bounded number of entries and depth, whatever code has made there.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from carrel_kernel.errors import FileNotFound, HostError, PathRefused
from carrel_kernel.files import Files
from carrel_kernel.names import parts_of

PIECES = st.sampled_from(
    [
        *("..", ".", "", "a", "b", "sub", "in", "out", "away", "root", "loop", "private", ".carrel", "overflow", "tmp"),
        *(
            "%2e%2e",
            "..%2f",
            "\\",
            "..\\",
            "\0",
            "\n",
            "~",
            "C:",
            "\u2025",
            "\uff0e\uff0e",
            "\ud800",
            "x" * 256,
            "secret",
        ),
        *("workspace", "workspace-other", "etc", "passwd", "spool", "acknowledged", "é", " ", "-", "..."),
    ]
)
NAMES = st.one_of(
    st.lists(PIECES, max_size=6).map("/".join),
    st.lists(PIECES, max_size=4).map("".join),
    st.text(max_size=20),
    st.lists(PIECES, max_size=4).map(lambda pieces: "/" + "/".join(pieces)),
)


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name).resolve()


def lay_out(ground: Path) -> Files:
    """Make a workspace anew, with links of all kinds, and secrets around it."""
    for entry in ground.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    root = ground / "workspace"
    for folder in (root / "sub", root / ".carrel" / "overflow", root / ".carrel" / "spool", ground / "workspace-other"):
        folder.mkdir(parents=True)
    for secret in SECRETS:
        (ground / secret).write_text("secret")
    (root / "a").write_text("mine")
    links = {"in": "sub", "out": "../secret", "away": "..", "root": "/", "loop": "loop", "private": ".carrel"}
    for link, target in links.items():
        (root / link).symlink_to(target)
    return Files(root)


SECRETS = ("secret", "workspace-other/secret", "workspace/.carrel/acknowledged", "workspace/.carrel/spool/a")


def read(files: Files, name: str) -> None:
    file, _ = files.open(name)
    with file:
        assert file.read() == b"mine"


def write(files: Files, name: str) -> None:
    with files.replace(name) as upload:
        upload.file.write(b"written")
    resolved = upload.name
    first, *deeper = resolved.split("/")
    assert first != ".carrel"
    assert not {"", ".", ".."} & {first, *deeper}
    assert (files.root / resolved).resolve() == files.root / resolved
    assert (files.root / resolved).read_bytes() == b"written"


def delete(files: Files, name: str) -> None:
    files.delete(name)
    assert name in ("a", "in", "out", "away", "root", "loop", "private")


ACTIONS = {"read": read, "write": write, "delete": delete}


@settings(max_examples=1000)
@given(name=NAMES, action=st.sampled_from(sorted(ACTIONS)))
@example(name="workspace/../../secret", action="read")
@example(name="../workspace-other/secret", action="write")
@example(name="away/secret", action="delete")
@example(name="private/acknowledged", action="write")
def test_every_name_is_refused_or_leads_inside(ground: Path, name: str, action: str) -> None:
    files = lay_out(ground)
    refusal: Exception | None = None
    try:
        ACTIONS[action](files, name)
    except (HostError, OSError) as error:
        refusal = error
    if isinstance(refusal, HostError):
        assert refusal.status in (400, 404)
        assert "secret" not in refusal.message
    elif refusal:
        assert action == "write"  # such as a file in the place of a folder: the route tells it
    for secret in SECRETS:
        assert (ground / secret).read_text() == "secret"
    outside = {path.name for path in ground.iterdir()} | {path.name for path in (ground / "workspace-other").iterdir()}
    assert outside == {"workspace", "workspace-other", "secret"}


@settings(max_examples=2000)
@given(NAMES)
def test_components_are_plain(name: str) -> None:
    try:
        parts = parts_of(name)
    except PathRefused:
        return
    assert "/".join(parts) == name
    assert all(part not in ("", ".", "..") for part in parts)
    assert not any(character in name for character in "\\\0\n")
    assert max(len(part.encode()) for part in parts) <= 255


@pytest.mark.parametrize(
    "name", ["a", "sub/b c.csv", "ä", "....", "..a", "a..", "x" * 255, "/".join(["long" * 20] * 40), "%2e%2e"]
)
def test_ordinary_names_are_taken(name: str) -> None:
    assert "/".join(parts_of(name)) == name


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_a_link_that_is_swapped_in_is_refused(ground: Path, action: str) -> None:
    files = lay_out(ground)
    swapped = ("away",) if action == "delete" else ("away", "secret")  # what the name led to, and now is a link
    with patch.object(Files, "_resolve", lambda *_, **__: swapped), pytest.raises((HostError, OSError)):
        ACTIONS[action](files, "sub/secret")
    assert (ground / "secret").read_text() == "secret"


def test_overflow_files_can_be_read_and_nothing_else_there(ground: Path) -> None:
    files = lay_out(ground)
    (files.root / ".carrel" / "overflow" / "e.txt").write_text("rest")
    file, status = files.open(".carrel/overflow/e.txt")
    file.close()
    assert status.st_size == 4
    with pytest.raises(FileNotFound), files.replace(".carrel/overflow/e.txt"):
        pass
    for name in (".carrel", ".carrel/acknowledged", "private/acknowledged", ".carrel/overflow/../acknowledged"):
        with pytest.raises(HostError):
            files.open(name)


def test_replaced_whole_or_not_at_all(ground: Path) -> None:
    files = lay_out(ground)
    with suppress(RuntimeError), files.replace("a") as upload:
        upload.file.write(b"half")
        raise RuntimeError
    assert (files.root / "a").read_text() == "mine"
    with pytest.raises(PathRefused), files.replace("sub"):
        pass
    assert list((files.root / ".carrel" / "tmp").iterdir()) == []
    with files.replace("new/deep/file") as upload:
        upload.file.write(b"x")
    ((name, status),) = upload.placed()
    assert name == "new/deep/file"
    assert (status.st_size, status.st_mode & 0o777) == (1, 0o644)
    assert (files.root / name).stat().st_ino == status.st_ino


def test_what_is_listed(ground: Path) -> None:
    files = lay_out(ground)
    (files.root / "sub" / "b").write_text("1")
    os.mkfifo(files.root / "pipe")
    assert [info.path for info in files.list(100)] == ["a", "sub/b"]


def test_a_walk_is_bounded(tmp_path: Path) -> None:
    files = Files(tmp_path)
    for number in range(30):
        (tmp_path / f"folder{number}").mkdir()
        (tmp_path / f"file{number}").touch()
    assert len(files.list(60)) == 30
    assert len(files.list(10)) <= 10
    deepest = tmp_path
    for _ in range(150):
        deepest /= "deep"
        deepest.mkdir()
        (deepest / "f").touch()
    assert max(info.path.count("/") for info in files.list(1000)) == 100
    assert files.list(1000)[-1].path == "file9"


def test_what_an_earlier_host_left_is_removed(ground: Path) -> None:
    files = lay_out(ground)
    files.clear_temporary()
    left = files.root / ".carrel" / "tmp"
    (left / "upload-1").write_text("half")
    (left / "unpack-1" / "deep").mkdir(parents=True)
    (left / "unpack-1" / "deep" / "away").symlink_to(ground)
    (left / "link").symlink_to(ground)
    files.clear_temporary()
    assert list(left.iterdir()) == []
    assert (ground / "secret").read_text() == "secret"


@pytest.mark.parametrize("action", [*sorted(ACTIONS), "list"])
def test_a_folder_that_is_swapped_for_a_link_all_the_time_leads_nowhere(ground: Path, action: str) -> None:
    """`door` is a folder of the workspace, then a link to a folder outside, and so on; both have files of one name."""
    files = lay_out(ground)
    outside, door, link = ground / "outside", files.root / "door", files.root / "link"
    outside.mkdir()
    (outside / "mine").write_text("secret")
    (outside / "others").write_text("secret")
    door.mkdir()
    (door / "mine").write_text("mine")
    link.symlink_to(outside)
    over = threading.Event()
    libc = ctypes.CDLL(None)

    def swap() -> None:
        while not over.is_set():  # renameat2(2) with RENAME_EXCHANGE: there is always one of the two
            libc.renameat2(-100, os.fsencode(door), -100, os.fsencode(link), 2)

    thread = threading.Thread(target=swap)
    thread.start()
    done: Counter[str] = Counter()
    try:
        for _ in range(2000):
            with suppress(HostError, OSError):
                done[SWAPPED[action](files)] += 1
    finally:
        over.set()
        thread.join()
    assert done["well"]  # the folder was there at times
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"mine": "secret", "others": "secret"}


def read_mine(files: Files) -> str:
    read(files, "door/mine")
    return "well"


def write_mine(files: Files) -> str:
    with files.replace("door/mine") as upload:
        upload.file.write(b"mine")
    return "well"


def delete_mine(files: Files) -> str:
    write_mine(files)
    files.delete("door/mine")
    return "well"


def list_mine(files: Files) -> str:
    names = {info.path for info in files.list(100)}
    assert "door/others" not in names
    return "well" if "door/mine" in names else "not there"


SWAPPED = {"read": read_mine, "write": write_mine, "delete": delete_mine, "list": list_mine}
