"""What changed in the workspace: manifests of name, size, time and inode, compared; contents hashed when they differ.

Serves `/v1/changes` by cursor and the artifacts of an execution. A manifest is a walk of the workspace in a thread; it
does not watch, so a file that changed twice is seen once.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Final, TypeAlias, TypeVar

from carrel_kernel import limits
from carrel_kernel.errors import BadRequest, DiskFull, HostError, TooLarge
from carrel_kernel.files import Files
from carrel_kernel.names import OVERFLOW, PRIVATE, is_unicode
from carrel_kernel.placing import NewFolder, Upload
from carrel_wire.events import Artifact
from carrel_wire.host import Change, ChangesReply, FileInfo

MAX_FILES: Final = 20_000
"""Files and folders beyond this number are neither listed nor watched."""
SMALL_ENTRIES: Final = 50
"""So many are looked at within the loop: that takes less than half a millisecond."""
MAX_ARTIFACTS: Final = 200
HASH_SECONDS: Final = 2.0
_MAX_CURSORS: Final = 16
_BLOCK: Final = 1024 * 1024
_DISK_SECONDS: Final = 10.0

_Arriving = TypeVar("_Arriving", Upload, NewFolder)
Stamp: TypeAlias = tuple[int, int, int]
Manifest: TypeAlias = dict[str, Stamp]
"""Name → time of change in ns, size, inode."""


@dataclass(frozen=True)
class FoundArtifact:
    """A file that an execution made or changed."""

    path: str
    size: int
    sha256: str

    def event(self, n: int) -> Artifact:
        """Return the event."""
        return Artifact(n=n, path=self.path, size=self.size, sha256=self.sha256)


def is_artifact(name: str) -> bool:
    """Whether a changed file is something that code made for people: not an upload, not hidden, not a cache."""
    folder = ""
    for part in name.split("/"):
        if _holds_none(folder, part):
            return False
        folder = f"{folder}{part}/"
    return True


def _holds_none(folder: str, name: str) -> bool:
    """Whether a name in a folder is of no artifact, nor of a folder with any."""
    return name.startswith(".") or name == "__pycache__" or (not folder and name == "data")


def stamp(status: os.stat_result) -> Stamp:
    """Return what tells one content of a file from another without reading it."""
    return status.st_mtime_ns, status.st_size, status.st_ino


def compare(before: Mapping[str, Stamp], now: Mapping[str, Stamp]) -> list[tuple[str, str]]:
    """Return kind and name of each difference, by name."""
    changed = [("created" if name not in before else "modified", name) for name in now if now[name] != before.get(name)]
    deleted = [("deleted", name) for name in before if name not in now]
    return sorted(changed + deleted, key=lambda item: item[1])


class Workspace:
    """The workspace as a whole: its files, their changes, and room on its disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = Files(root)
        self.private = root / PRIVATE
        self._placing = asyncio.Lock()
        """Held while something is put in its place or taken away, and noted, and while a manifest is compared: nothing
        of that is thought to be an execution's doing."""
        self.unpacking = asyncio.Lock()
        """One archive at a time: it takes a thread and a CPU for as long as it is large."""
        self._baseline: Manifest = {}
        self._cursors: OrderedDict[str, Manifest] = OrderedDict()
        self._disk: tuple[float, int] = (-_DISK_SECONDS, 0)

    def prepare(self) -> None:
        """Make the host's own folder and take the first manifest. Blocks.

        Raises
        ------
        OSError
            The workspace cannot be written.
        """
        for folder in (self.private, self.private / "tmp"):
            if folder.is_symlink():  # an earlier kernel's; the host's own files are not written to where it leads
                folder.unlink()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.files.clear_temporary()
        self._baseline = self._scan()

    def overflow_path(self, execution_id: str) -> str:
        """Return the name of the file for an execution's output over the limit."""
        return f"{OVERFLOW}/{execution_id}.txt"

    def may_write(self) -> bool:
        """Whether the host may still write files of its own accord."""
        return not limits.disk_nearly_full(self.root)

    def check_room(self) -> None:
        """Refuse to write for a caller where the host itself would not. Blocks.

        Raises
        ------
        DiskFull
        """
        if not self.may_write():
            raise DiskFull("the workspace's disk is nearly full; delete files first")

    def _scan(self) -> Manifest:
        return {name: stamp(status) for name, status in self.files.walk(MAX_FILES)}

    def _look_at_once(self) -> Manifest | None:
        """Return what may be artifacts in a small workspace, for changing threads takes longer; nothing in others."""
        try:
            entries = list(self.files.entries(SMALL_ENTRIES, _holds_none))
        except TooLarge:
            return None
        return {name: stamp(status) for name, status in entries if S_ISREG(status.st_mode)}

    async def list(self) -> list[FileInfo]:
        """Return the files."""
        return await asyncio.to_thread(self.files.list, MAX_FILES)

    @asynccontextmanager
    async def placing(self, arriving: AbstractContextManager[_Arriving]) -> AsyncGenerator[_Arriving]:
        """Enter and leave what brings files in threads; what has been placed is not an execution's doing."""
        found = await asyncio.to_thread(arriving.__enter__)
        try:
            yield found
        except BaseException as error:
            await asyncio.to_thread(arriving.__exit__, type(error), error, error.__traceback__)
            raise
        async with self._placing:
            await asyncio.to_thread(arriving.__exit__, None, None, None)
            self._baseline.update((name, stamp(status)) for name, status in found.placed())

    async def delete(self, name: str) -> None:
        """Remove a file.

        Raises
        ------
        PathRefused, FileNotFound
        """
        async with self._placing:
            self._baseline.pop(await asyncio.to_thread(self.files.delete, name), None)

    async def artifacts(self, before_waiting: Callable[[], object] = lambda: None) -> list[FoundArtifact]:
        """Return what was made or changed since the last call.

        At most 200 files and what can be hashed in 2 s; when there is more, none, and `/v1/changes` has them all.

        Parameters
        ----------
        before_waiting
            Called before anything that may take long.
        """
        if self._placing.locked():
            before_waiting()
        async with self._placing:
            now = self._look_at_once()
            if now is None:
                before_waiting()
                now = await asyncio.to_thread(self._scan)
            before, self._baseline = self._baseline, now
        names = [name for kind, name in compare(before, now) if kind != "deleted" and is_artifact(name)]
        names = [name for name in names if is_unicode(name)]
        if not names or len(names) > MAX_ARTIFACTS:
            return []
        before_waiting()
        return await asyncio.to_thread(self._hash_in_time, names)

    def _hash_in_time(self, names: list[str]) -> list[FoundArtifact]:
        deadline = time.monotonic() + HASH_SECONDS
        found: list[FoundArtifact] = []
        for name in names:
            try:
                size, digest = self._hash(name, deadline)
            except HostError:
                continue  # it is gone again
            except TimeoutError:
                return []
            found.append(FoundArtifact(name, size, digest))
        return found

    def _hash(self, name: str, deadline: float | None = None) -> tuple[int, str]:
        digest = hashlib.sha256()
        size = 0
        file, _ = self.files.open(name)
        with file:
            while block := file.read(_BLOCK):
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError
                digest.update(block)
                size += len(block)
        return size, digest.hexdigest()

    async def changes(self, since: str | None) -> ChangesReply:
        """Return what changed since a cursor, or all files without one, and the next cursor.

        Raises
        ------
        BadRequest
            The cursor is not known (any more).
        """
        if since is not None and since not in self._cursors:
            raise BadRequest("the cursor is not known any more; ask without `since` for all files", cursor=since)
        before: Manifest = self._cursors[since] if since is not None else {}
        now = await asyncio.to_thread(self._scan)
        pairs = [(kind, name) for kind, name in compare(before, now) if is_unicode(name)]
        changes = await asyncio.to_thread(lambda: [self._change(kind, name) for kind, name in pairs])
        cursor = secrets.token_urlsafe(12)
        self._cursors[cursor] = now
        while len(self._cursors) > _MAX_CURSORS:
            self._cursors.popitem(last=False)
        return ChangesReply(cursor=cursor, changes=changes)

    def _change(self, kind: str, name: str) -> Change:
        if kind != "deleted":
            try:
                size, digest = self._hash(name)
            except HostError:
                return Change(path=name, kind="deleted")
            return Change(path=name, kind="created" if kind == "created" else "modified", size=size, sha256=digest)
        return Change(path=name, kind="deleted")

    async def disk_used_bytes(self) -> int:
        """Return the size of all files of the workspace, at most 10 s old."""
        now = time.monotonic()
        if now - self._disk[0] >= _DISK_SECONDS:
            walk = self.files.walk
            used = await asyncio.to_thread(lambda: sum(status.st_size for _, status in walk(MAX_FILES)))
            self._disk = (now, used)
        return self._disk[1]
