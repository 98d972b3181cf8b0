"""What changed in a workspace: by comparison of manifests, as artifacts of an execution and as changes by cursor.

Plan
- `compare` against a model (Hypothesis): applying what it says to the one gives the other.
- Artifacts: what code made for people, and not uploads, caches, hidden files or too much at once.
- What comes and goes through the API while a manifest is taken is no artifact, neither now nor later.
- Cursors: usable again, unknown ones refused, the oldest forgotten.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_kernel import changes as module
from carrel_kernel.changes import Workspace, compare, is_artifact
from carrel_kernel.errors import BadRequest

MANIFESTS = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
)


@given(MANIFESTS, MANIFESTS)
def test_the_differences_lead_from_one_to_the_other(
    before: dict[str, tuple[int, int, int]], now: dict[str, tuple[int, int, int]]
) -> None:
    found = compare(before, now)
    state = dict(before)
    for kind, name in found:
        assert (kind == "created") == (name not in before)
        if kind == "deleted":
            del state[name]
        else:
            assert state.get(name) != now[name]
            state[name] = now[name]
    assert state == now
    assert [name for _, name in found] == sorted({name for _, name in found})


@pytest.mark.parametrize(
    ("name", "artifact"),
    [
        ("plot.png", True),
        ("sub/report.html", True),
        ("sub/data/x", True),
        ("data/sales.csv", False),
        ("data", False),
        (".hidden", False),
        ("sub/.ipynb_checkpoints/x", False),
        ("__pycache__/m.pyc", False),
        ("sub/__pycache__/m.pyc", False),
        ("database.csv", True),
    ],
)
def test_what_is_an_artifact(name: str, artifact: bool) -> None:
    assert is_artifact(name) is artifact


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path / "workspace")
    found.prepare()
    return found


def write(workspace: Workspace, name: str, text: str = "x") -> None:
    path = workspace.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("small", [True, False])
async def test_artifacts_are_found_once(workspace: Workspace, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not small:
        monkeypatch.setattr(module, "SMALL_ENTRIES", 0)
    write(workspace, "a.txt", "one")
    write(workspace, "data/in.csv")
    (found,) = await workspace.artifacts()
    assert (found.path, found.size, found.sha256) == ("a.txt", 3, hashlib.sha256(b"one").hexdigest())
    assert found.event(5).n == 5
    assert await workspace.artifacts() == []
    write(workspace, "a.txt", "three")
    assert [item.path for item in await workspace.artifacts()] == ["a.txt"]
    (workspace.root / "a.txt").unlink()
    assert await workspace.artifacts() == []


async def test_what_can_be_no_artifact_makes_a_workspace_no_larger(workspace: Workspace) -> None:
    for number in range(module.SMALL_ENTRIES + 1):
        for folder in (".packages", "data", "of/__pycache__"):
            write(workspace, f"{folder}/{number}")
    write(workspace, "of/a.txt")
    waited: list[int] = []
    with patch.object(workspace, "_scan", side_effect=AssertionError("all of it was looked at")):
        found = await workspace.artifacts(lambda: waited.append(1))
    assert [item.path for item in found] == ["of/a.txt"]
    assert waited == [1]  # for the contents


async def test_who_asks_is_told_before_it_takes_long(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    await workspace.artifacts(lambda: waited.append(1))
    assert waited == []
    monkeypatch.setattr(module, "SMALL_ENTRIES", 0)
    write(workspace, "a.txt")
    await workspace.artifacts(lambda: waited.append(1))
    assert waited == [1, 1]  # for the names, and for the contents


async def test_what_was_there_before_is_none(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("x")
    workspace = Workspace(tmp_path)
    workspace.prepare()
    assert await workspace.artifacts() == []


async def upload(workspace: Workspace, name: str, text: str) -> None:
    async with workspace.placing(workspace.files.replace(name)) as arriving:
        arriving.file.write(text.encode())


async def test_what_the_api_wrote_is_none(workspace: Workspace) -> None:
    await upload(workspace, "up.txt", "x")
    assert await workspace.artifacts() == []
    write(workspace, "up.txt", "code's")
    assert [item.path for item in await workspace.artifacts()] == ["up.txt"]
    await workspace.delete("up.txt")
    write(workspace, "up.txt", "code's")
    assert [item.path for item in await workspace.artifacts()] == ["up.txt"]
    with suppress(RuntimeError):
        async with workspace.placing(workspace.files.replace("up.txt")):
            raise RuntimeError
    assert await workspace.artifacts() == []


async def test_too_much_at_once_is_left_to_changes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ARTIFACTS", 2)
    for number in range(3):
        write(workspace, str(number))
    assert await workspace.artifacts() == []
    assert len((await workspace.changes(None)).changes) == 3
    monkeypatch.setattr(module, "HASH_SECONDS", -1.0)
    write(workspace, "slow")
    assert await workspace.artifacts() == []


async def test_files_that_go_while_they_are_read_are_left_out(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_ENTRIES", 0)
    write(workspace, "gone")
    write(workspace, "kept")
    walk = workspace._scan

    def scan() -> module.Manifest:
        found = walk()
        (workspace.root / "gone").unlink(missing_ok=True)
        return found

    with patch.object(workspace, "_scan", scan):
        assert [item.path for item in await workspace.artifacts()] == ["kept"]
    write(workspace, "gone")
    with patch.object(workspace, "_scan", scan):
        reply = await workspace.changes(None)
    assert [(item.path, item.kind) for item in reply.changes] == [("gone", "deleted"), ("kept", "created")]


async def test_cursors(workspace: Workspace) -> None:
    write(workspace, "a")
    first = await workspace.changes(None)
    assert [(item.path, item.kind) for item in first.changes] == [("a", "created")]
    write(workspace, "a", "longer")
    write(workspace, "b")
    for _ in range(2):
        again = await workspace.changes(first.cursor)
        assert [(item.path, item.kind, item.size) for item in again.changes] == [
            ("a", "modified", 6),
            ("b", "created", 1),
        ]
    (workspace.root / "a").unlink()
    assert [(item.path, item.kind) for item in (await workspace.changes(again.cursor)).changes] == [("a", "deleted")]
    for _ in range(16):
        await workspace.changes(None)
    for cursor in (first.cursor, "unknown", ""):
        with pytest.raises(BadRequest, match="without `since`"):
            await workspace.changes(cursor)


async def test_names_that_are_no_unicode_are_passed_over(workspace: Workspace) -> None:
    (workspace.root / os.fsdecode(b"\xff")).write_text("x")
    write(workspace, "a")
    assert [item.path for item in await workspace.artifacts()] == ["a"]
    assert [item.path for item in (await workspace.changes(None)).changes] == ["a"]
    assert [item.path for item in await workspace.list()] == ["a"]


async def test_the_disk_is_counted_now_and_then(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    write(workspace, "a", "x" * 100)
    assert await workspace.disk_used_bytes() == 100
    write(workspace, "b", "x" * 100)
    assert await workspace.disk_used_bytes() == 100
    monkeypatch.setattr(module, "_DISK_SECONDS", 0.0)
    assert await workspace.disk_used_bytes() == 200


def test_leftovers_of_uploads_are_removed(tmp_path: Path) -> None:
    Workspace(tmp_path).prepare()
    workspace = Workspace(tmp_path)
    (workspace.private / "tmp" / "upload-1").write_text("half")
    workspace.prepare()
    assert list((workspace.private / "tmp").iterdir()) == []
    assert workspace.overflow_path("e") == ".carrel/overflow/e.txt"


@pytest.mark.parametrize("name", [".carrel", ".carrel/tmp"])
def test_the_hosts_own_folder_is_no_link_to_elsewhere(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "tmp").mkdir(parents=True)
    (elsewhere / "upload-1").write_text("another's")
    root = tmp_path / "workspace"
    link = root / name
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    Workspace(root).prepare()
    assert not link.is_symlink()
    assert (elsewhere / "upload-1").read_text() == "another's"


async def test_what_comes_or_goes_while_a_manifest_is_compared_is_none(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest may have what was there before, and the next one has what is there now: both are the caller's."""
    monkeypatch.setattr(module, "SMALL_ENTRIES", 0)
    for name in ("up.txt", "gone.txt"):
        write(workspace, name, "old")
    await workspace.artifacts()
    walk, scanned, go_on = workspace._scan, threading.Event(), threading.Event()

    def scan() -> module.Manifest:
        found = walk()
        scanned.set()
        assert go_on.wait(30)
        return found

    with patch.object(workspace, "_scan", scan):
        first = asyncio.create_task(workspace.artifacts())
        await asyncio.to_thread(scanned.wait, 30)
        calls = asyncio.gather(upload(workspace, "up.txt", "newer"), workspace.delete("gone.txt"))
        go_on.set()
        assert await first == []
        await calls
        assert await workspace.artifacts() == []
    assert (workspace.root / "up.txt").read_text() == "newer"
    assert not (workspace.root / "gone.txt").exists()
