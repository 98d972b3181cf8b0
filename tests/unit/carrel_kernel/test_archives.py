"""Archives: what honest programs pack comes back as it was, and a corpus of hostile ones ends without a trace.

Plan
- Honest: zip and tar in every form that Python writes, GNU tar's own, and the host's download, with any names and
  contents (Hypothesis); archives in archives stay files.
- Bombs: of ratio, of one file and of many, overlapping members, streams without end, dictionaries, extension records,
  entries, depth. What came out is counted: a bomb costs what the limits say and no more, whatever it says of itself.
- Ways out: absolute, `..`, `..\\`, links and what is written through them, devices, names twice. Whatever `tarfile`'s
  own filter for data refuses is refused, too.
- Damaged: encrypted, other methods, cut at every place, any byte changed (Hypothesis): refused, or whole.
- Nothing is left of an archive that was refused.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.unit.carrel_kernel.archive_corpus import (
    HONEST,
    MIB,
    REFUSED,
    TOO_LARGE,
    ZEROS,
    Tree,
    tar_of,
    tar_with,
    zip_of,
)

from carrel_kernel import archive_tar, archives
from carrel_kernel.archives import ALWAYS_ALLOWED_BYTES, MAX_DEPTH, MAX_ENTRIES, MAX_RATIO, Budget, unpack
from carrel_kernel.errors import ArchiveRefused, FolderExists, TooLarge
from carrel_kernel.files import Files

LIMIT = 256 * MIB


class Ground:
    """A workspace, and what is around it."""

    def __init__(self, folder: Path) -> None:
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text("secret")
        self.files = Files(folder / "workspace")
        self.files.root.mkdir()
        self.files.clear_temporary()
        self.budget = Budget(0, 0)

    def unpack(self, data: bytes, *, limit: int = LIMIT) -> Tree:
        self.budget = Budget(len(data), limit)
        with self.files.new_folder("new") as folder:
            unpack(io.BytesIO(data), folder, self.budget)
        return tree(self.files.root / "new")

    def check_untouched(self) -> None:
        """Nothing is left, inside or outside."""
        assert names(self.files.root) == [".carrel"]
        assert names(self.files.root / ".carrel" / "tmp") == []
        assert tree(self.outside) == {"secret": b"secret"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def tree(folder: Path) -> Tree:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def packed(files: Tree, folder: Path) -> bytes:
    """Return what a download of these files is."""
    members: list[Any] = []
    for number, (name, content) in enumerate(files.items()):
        path = folder / str(number)
        path.write_bytes(content)
        members.append((name, path.open("rb"), len(content), 1.5))
    return b"".join(archive_tar.pack(members))


# ---------------------------------------------------------------------- honest


@pytest.mark.parametrize("form", [*HONEST, "download"])
def test_what_honest_programs_pack_comes_back(ground: Ground, tmp_path: Path, form: str) -> None:
    files = {
        "a.txt": b"one",
        "empty": b"",
        "sub/deep/" + "long" * 50 + "/ä ☃.bin": os.urandom(300_000),
        "block": b"x" * 512,
        "inner.zip": zip_of({"b": b"two"}),
        "inner.tar.gz": tar_of({"c": b"three"}, "w:gz"),
        "large": b"y" * 3_000_000,
    }
    data = packed(files, tmp_path) if form == "download" else HONEST[form](files)
    assert ground.unpack(data) == files
    assert (ground.files.root / "new" / "a.txt").stat().st_mode & 0o777 == 0o644


PART = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=9)
NAMES = st.lists(PART.filter(lambda part: part not in (".", "..")), min_size=1, max_size=8).map("/".join)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=5), st.sampled_from([*HONEST, "download"]))
def test_any_tree_comes_back(files: Tree, form: str) -> None:
    taken = {name for name in files if any(other.startswith(f"{name}/") for other in files)}  # they would be folders
    files = {name: content for name, content in files.items() if name not in taken}
    assume(files or not form.startswith("tar,"))  # blocks of zeros alone say nothing of what they are
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "ground").mkdir()
        data = packed(files, Path(name)) if form == "download" else HONEST[form](files)
        assert Ground(Path(name) / "ground").unpack(data) == files


def test_the_systems_own_tar_is_read_and_reads_downloads(ground: Ground, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / ("long" * 40)).mkdir(parents=True)
    (source / "empty").mkdir()
    files = {"a": b"1", "sub/" + "long" * 40 + "/b": os.urandom(100_000)}
    for name, content in files.items():
        (source / name).write_bytes(content)
    made = subprocess.run(["tar", "-czf", "-", "-C", source, "."], check=True, capture_output=True).stdout
    assert ground.unpack(made) == files
    assert (ground.files.root / "new" / "empty").is_dir()
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["tar", "-xzf", "-", "-C", target], input=packed(files, tmp_path), check=True)
    assert tree(target) == files


def test_streams_one_after_the_other_are_one(ground: Ground) -> None:
    plain = tar_of({"a": b"x" * 100_000})
    for compress in (gzip.compress, bz2.compress, lzma.compress):
        data = b"".join(compress(plain[start : start + 7000]) for start in range(0, len(plain), 7000))
        assert ground.unpack(data + bytes(512)) == {"a": b"x" * 100_000}
        for path in (ground.files.root / "new").iterdir():
            path.unlink()
        (ground.files.root / "new").rmdir()


def test_a_download_of_a_file_that_shrank_is_not_ended(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)
    with pytest.raises(archive_tar.ShrunkError):
        list(archive_tar.pack([("f", path.open("rb"), 11, 0.0)]))


# ---------------------------------------------------------------------- bombs


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_bombs_cost_what_the_limits_say(ground: Ground, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 500)
    data = TOO_LARGE[kind]()
    with pytest.raises(TooLarge) as refused:
        ground.unpack(data)
    assert (refused.value.status, refused.value.code) == (413, "too_large")
    assert ground.budget.allowed <= ALWAYS_ALLOWED_BYTES + MAX_RATIO * len(data) < 40 * MIB
    assert ground.budget.spent <= ground.budget.allowed + MIB
    ground.check_untouched()


def test_the_limit_of_the_host_is_above_all(ground: Ground) -> None:
    data = zip_of({"a": os.urandom(2 * MIB)})
    with pytest.raises(TooLarge):
        ground.unpack(data, limit=MIB)
    ground.check_untouched()
    assert ground.unpack(data, limit=2 * MIB)


def test_the_outer_shells_of_42_zip_are_harmless(ground: Ground) -> None:
    shell = zip_of({f"lib {number}.zip": zip_of({"book.zip": zip_of({"0.dll": ZEROS})}) for number in range(16)})
    assert sorted(ground.unpack(shell)) == sorted(f"lib {number}.zip" for number in range(16))
    assert ground.budget.spent < 100_000


def test_the_disk_is_looked_at_while_much_comes_out(ground: Ground) -> None:
    looks: list[int] = []
    data = tar_of({"a": os.urandom(MIB) * 40})
    budget = Budget(len(data), LIMIT, lambda: looks.append(1))
    with ground.files.new_folder("new") as folder:
        unpack(io.BytesIO(data), folder, budget)
    assert len(looks) == 2


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize("kind", REFUSED)
def test_hostile_archives_are_refused_and_leave_nothing(ground: Ground, kind: str) -> None:
    reason, make = REFUSED[kind]
    with pytest.raises(ArchiveRefused) as refused:
        ground.unpack(make())
    assert (refused.value.status, refused.value.code, refused.value.detail["reason"]) == (
        400,
        "archive_refused",
        reason,
    )
    assert all(str(value).isprintable() and len(str(value)) <= 200 for value in refused.value.detail.values())
    assert ground.budget.spent <= 2 * MIB
    ground.check_untouched()


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("/etc/passwd", tarfile.REGTYPE, ""),
        ("../x", tarfile.REGTYPE, ""),
        ("a/../../x", tarfile.DIRTYPE, ""),
        ("a", tarfile.SYMTYPE, "/etc"),
        ("a", tarfile.SYMTYPE, "../.."),
        ("a", tarfile.LNKTYPE, "../x"),
        ("a", tarfile.CHRTYPE, ""),
        ("a", tarfile.FIFOTYPE, ""),
    ],
)
def test_what_tarfiles_filter_refuses_is_refused(ground: Ground, name: str, kind: bytes, link: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    with suppress(tarfile.FilterError):
        filtered = tarfile.data_filter(info, str(ground.files.root))
        assert filtered.name == "etc/passwd"  # it strips what is refused here
    with pytest.raises(ArchiveRefused):
        ground.unpack(tar_with(name, kind, linkname=link))


@pytest.mark.parametrize("form", HONEST)
def test_a_cut_archive_is_refused_wherever_it_was_cut(ground: Ground, form: str) -> None:
    data = HONEST[form]({"a": os.urandom(700), "sub/b": b"text " * 300, "empty": b""})
    whole = data.rstrip(b"\0") if "." not in form else data
    needed = len(whole) + 512 if form.startswith("tar,") else len(whole)  # a plain tar ends with a block of zeros
    for length in range(0, needed - 1, max(1, needed // 200)):
        with pytest.raises(ArchiveRefused):
            ground.unpack(data[:length])
    ground.check_untouched()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_archive_is_refused_or_stays_inside(data: st.DataObject) -> None:
    files = {"a": b"0123456789" * 70, "sub/b": b"text " * 300, "c": b""}
    archive = bytearray(HONEST[data.draw(st.sampled_from(sorted(HONEST)))](files))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(archive) - 1))
        archive[place] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as name:
        ground = Ground(Path(name))
        try:
            found = ground.unpack(bytes(archive))
        except (ArchiveRefused, TooLarge):
            ground.check_untouched()
        else:
            assert len(found) <= 3
            assert names(ground.outside) == ["secret"]


def test_a_folder_that_is_there_is_left_alone(ground: Ground) -> None:
    (ground.files.root / "new").mkdir()
    (ground.files.root / "new" / "mine").write_text("mine")
    with pytest.raises(FolderExists):
        ground.unpack(zip_of({"mine": b"theirs"}))
    assert tree(ground.files.root / "new") == {"mine": b"mine"}


def test_a_folder_that_appears_meanwhile_is_left_alone(ground: Ground) -> None:
    arriving = ground.files.new_folder("new")
    unpack(io.BytesIO(zip_of({"mine": b"theirs"})), arriving.__enter__(), Budget(1000, LIMIT))
    (ground.files.root / "new").mkdir()
    (ground.files.root / "new" / "mine").write_text("mine")
    with pytest.raises(FolderExists):
        arriving.__exit__(None, None, None)
    assert tree(ground.files.root / "new") == {"mine": b"mine"}


def test_limits_are_what_the_page_says() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "kernel-host.md").read_text()
    ratio = f"{archives.ALWAYS_ALLOWED_BYTES // MIB} MiB and {MAX_RATIO} times its size"
    for text in (ratio, f"{MAX_ENTRIES // 1000} 000 files and folders", f"{MAX_DEPTH} deep"):
        assert text in page
