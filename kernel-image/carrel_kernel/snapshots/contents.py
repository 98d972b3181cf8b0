"""The files of the workspace as part of a snapshot: what they are, by digest, and putting them back.

Regular files and empty folders; links and whatever else a folder may hold are named as not saved. Nothing is copied to
save it: a content is read from its file when it is asked for, and whoever reads compares. All but `put` is blocking.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections import Counter
from collections.abc import Collection
from typing import BinaryIO, Final

import msgspec

from carrel_kernel.changes import MAX_FILES, Stamp, Workspace, stamp
from carrel_kernel.errors import BlobNotFound, HostError, TooLarge, WrongDigest
from carrel_kernel.names import is_unicode, parts_of
from carrel_kernel.snapshots.blobs import Blobs, measure
from carrel_wire.snapshots import MAX_PATH, SavedFile, SavedWorkspace, Unsaved

_MAX_SHOWN: Final = 300
"""Characters of a name that cannot be one of a manifest."""


class Contents:
    """One workspace; digests of files that have not changed are remembered."""

    def __init__(self, workspace: Workspace, max_bytes: int) -> None:
        self._workspace = workspace
        self._max_bytes = max_bytes
        self._known: dict[str, tuple[Stamp, str]] = {}
        self._paths: dict[str, str] = {}

    def save(self) -> SavedWorkspace:
        """Return what the workspace holds.

        Raises
        ------
        TooLarge
            More files, or bytes of them, than a snapshot may have.
        """
        files: list[SavedFile] = []
        folders: list[str] = []
        not_saved: list[Unsaved] = []
        known: dict[str, tuple[Stamp, str]] = {}
        total = 0
        for name, status in self._workspace.files.entries(MAX_FILES):
            if not is_unicode(name) or len(name) > MAX_PATH:
                shown = name.encode("ascii", "backslashreplace").decode()[:_MAX_SHOWN]
                not_saved.append(Unsaved(name=shown, reason="its name is too long, or not UTF-8"))
            elif stat.S_ISDIR(status.st_mode):
                folders.append(name)
            elif not stat.S_ISREG(status.st_mode):
                kind = "a link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
                not_saved.append(Unsaved(name=name, reason=f"{kind} is not saved"))
            else:
                try:
                    digest = self._digest(name, status)
                except HostError as error:
                    not_saved.append(Unsaved(name=name, reason=f"it cannot be read: {error.message}"))
                    continue
                known[name] = (stamp(status), digest)
                total += status.st_size
                mode = stat.S_IMODE(status.st_mode) & 0o777
                files.append(SavedFile(path=name, size=status.st_size, mode=mode, sha256=digest))
            if total > self._max_bytes:
                raise TooLarge(
                    f"the workspace has more than {self._max_bytes} bytes; delete files", limit_bytes=self._max_bytes
                )
        self._known = known
        self._paths = {digest: name for name, (_, digest) in known.items()}
        return SavedWorkspace(files=sorted(files, key=lambda file: file.path), folders=folders, not_saved=not_saved)

    def _digest(self, name: str, status: os.stat_result) -> str:
        seen = self._known.get(name)
        if seen and seen[0] == stamp(status):
            return seen[1]
        file, _ = self._workspace.files.open(name)
        with file:
            return measure(file)[1]

    # ------------------------------------------------------------------ contents

    def open(self, digest: str) -> BinaryIO:
        """Return the file that had this content when the workspace was last saved.

        Raises
        ------
        BlobNotFound
        """
        name = self._paths.get(digest)
        if name is None:
            raise BlobNotFound("there is no such content on this host", sha256=digest)
        try:
            return self._workspace.files.open(name)[0]
        except HostError as error:
            raise BlobNotFound("the file with this content is gone", sha256=digest) from error

    def has(self, file: SavedFile) -> bool:
        """Whether a file is in its place with its content."""
        try:
            status = self._workspace.root.joinpath(*parts_of(file.path)).lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
                return False
            digest = self._digest(file.path, status)
        except (OSError, HostError):
            return False
        self._known[file.path] = (stamp(status), digest)
        return digest == file.sha256

    def _is_there(self, file: SavedFile) -> bool:
        """Whether something has the file's name, whatever it is."""
        return os.path.lexists(self._workspace.root.joinpath(*parts_of(file.path)))

    def without_newer(self, saved: SavedWorkspace) -> SavedWorkspace:
        """Return it without the files that are there and are others by now."""
        return msgspec.structs.replace(
            saved, files=[file for file in saved.files if self.has(file) or not self._is_there(file)]
        )

    def missing(self, saved: SavedWorkspace, blobs: Blobs) -> set[str]:
        """Return which contents must be brought: neither among the blobs nor in all of the files that have them."""
        absent = {file.sha256 for file in saved.files if not blobs.has(file.sha256)}
        return {file.sha256 for file in saved.files if file.sha256 in absent and not self.has(file)}

    async def put(self, saved: SavedWorkspace, blobs: Blobs, *, keep: Collection[str]) -> list[Unsaved]:
        """Put files and folders in their places, and return those for which that is not possible.

        A content that is not to be kept is removed as soon as no other file needs it, so a large one is there twice
        only for a moment.
        """
        refused: list[Unsaved] = []
        needed = await asyncio.to_thread(lambda: [file for file in saved.files if not self.has(file)])
        uses = Counter(file.sha256 for file in needed)
        for file in needed:
            try:
                await self._put(file, blobs)
            except (HostError, OSError) as error:
                reason = error.message if isinstance(error, HostError) else error.strerror or "it cannot be written"
                refused.append(Unsaved(name=file.path, reason=reason))
            uses[file.sha256] -= 1
            if not uses[file.sha256] and file.sha256 not in keep:
                await asyncio.to_thread(blobs.remove, [file.sha256])
        for folder in saved.folders:
            try:
                await asyncio.to_thread(self._workspace.files.make_folder, folder)
            except (HostError, OSError):
                refused.append(Unsaved(name=folder, reason="the folder cannot be made"))
        return refused

    async def _put(self, file: SavedFile, blobs: Blobs) -> None:
        with await asyncio.to_thread(blobs.open, file.sha256) as source:
            async with self._workspace.placing(self._workspace.files.replace(file.path)) as upload:
                if await asyncio.to_thread(measure, source, upload.file) != (file.size, file.sha256):
                    raise WrongDigest("the content is not what its digest says")
                os.fchmod(upload.file.fileno(), file.mode)
