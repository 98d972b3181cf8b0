"""The files of the workspace, confined to it: names are resolved, links followed only inside, and nothing else opened.

A name is first resolved with its links and refused when that leads outside; then every folder on the way is opened
from the one above it without following links, so a link that is swapped in between is refused too. Walks go the same
way. Blocking functions; `file_routes` calls them in threads.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from carrel_kernel.errors import FileNotFound, FolderExists, PathRefused, TooLarge
from carrel_kernel.names import OVERFLOW, PRIVATE, is_unicode, parts_of
from carrel_kernel.placing import CREATE, NewFolder, Upload
from carrel_wire.host import FileInfo

_TEMPORARY: Final = (PRIVATE, "tmp")
_MAX_DEPTH: Final = 100
"""Folders within folders that are walked; each of them costs a descriptor while its files are."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class _Left:
    """How many entries a walk may still look at."""

    count: int

    def take(self) -> bool:
        """Whether there is one more."""
        self.count -= 1
        return self.count >= 0


@dataclass(frozen=True)
class Files:
    """Access to one workspace."""

    root: Path
    """Resolved and absolute."""

    def _resolve(self, parts: tuple[str, ...], *, private: bool = False) -> tuple[str, ...]:
        """Return the components after following links, all inside the workspace."""
        try:
            real = Path(os.path.realpath(self.root.joinpath(*parts)))
        except (OSError, ValueError) as error:
            raise PathRefused("the name cannot be resolved") from error
        if not real.is_relative_to(self.root) or real == self.root:
            raise PathRefused("the name leads out of the workspace")
        inside = real.relative_to(self.root).parts
        if inside[0] == PRIVATE and not (private and inside[:2] == tuple(OVERFLOW.split("/"))):
            raise FileNotFound("there is no such file")
        return inside

    @contextmanager
    def _folder(self, parts: tuple[str, ...], *, make: bool = False, within: int | None = None) -> Generator[int]:
        """Yield a descriptor of a folder of the workspace or within another one, reached without following a link."""
        current = os.open(self.root, _FOLDER) if within is None else os.dup(within)
        try:
            for part in parts:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=current)
                deeper = os.open(part, _FOLDER, dir_fd=current)
                os.close(current)
                current = deeper
            yield current
        finally:
            os.close(current)

    def open(self, name: str) -> tuple[BinaryIO, os.stat_result]:
        """Return a regular file and its status.

        Raises
        ------
        PathRefused
            The name leads outside, or is no regular file.
        FileNotFound
        """
        *folders, last = self._resolve(parts_of(name), private=True)
        try:
            with self._folder(tuple(folders)) as folder:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not make it wait
                descriptor = os.open(last, flags, dir_fd=folder)
        except OSError as error:
            raise FileNotFound("there is no such file") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise PathRefused("that is not a regular file")
        return os.fdopen(descriptor, "rb"), status

    @contextmanager
    def replace(self, name: str) -> Generator[Upload]:
        """Yield a new file that takes the place of `name` when the block ends well.

        Raises
        ------
        PathRefused
            The name leads outside, or a folder is in its place.
        OSError
            The disk does not take it.
        """
        parts = self._resolve(parts_of(name))
        temporary = f"upload-{secrets.token_hex(8)}"
        with self._folder(_TEMPORARY, make=True) as private:
            descriptor = os.open(temporary, CREATE, 0o644, dir_fd=private)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    upload = Upload(file, "/".join(parts))
                    yield upload
                    file.flush()
                    upload.status = os.fstat(descriptor)
                try:
                    self._move(temporary, private, parts)
                except (IsADirectoryError, NotADirectoryError) as error:
                    raise PathRefused("a folder is in the place of the file, or a file in the place of a folder") from (
                        error
                    )
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=private)
                raise

    @contextmanager
    def new_folder(self, name: str) -> Generator[NewFolder]:
        """Yield a folder that gets the name, which must be free, when the block ends well, and else never was.

        Raises
        ------
        PathRefused
            The name leads outside.
        FolderExists
            There is something of that name.
        OSError
            The disk does not take it.
        """
        parts = self._resolve(parts_of(name))
        temporary = f"unpack-{secrets.token_hex(8)}"
        with self._folder(_TEMPORARY, make=True) as private:
            if os.path.lexists(self.root.joinpath(*parts)):
                raise FolderExists("there is something of that name; unpack into a new folder", path="/".join(parts))
            os.mkdir(temporary, 0o755, dir_fd=private)
            try:
                with self._folder((temporary,), within=private) as made:
                    folder = NewFolder("/".join(parts), lambda below: self._folder(below, make=True, within=made))
                    yield folder
                try:
                    self._move(temporary, private, parts)
                except OSError as error:
                    if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise FolderExists("there is something of that name now", path=folder.name) from error
                    raise
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True, dir_fd=private)
                raise

    def _move(self, temporary: str, private: int, parts: tuple[str, ...]) -> None:
        *folders, last = parts
        with self._folder(tuple(folders), make=True) as folder:
            os.replace(temporary, last, src_dir_fd=private, dst_dir_fd=folder)

    def scratch(self) -> BinaryIO:
        """Return a file without a name: nobody else can change it, and it is gone when it is closed.

        Raises
        ------
        OSError
            The disk does not take it.
        """
        temporary = f"scratch-{secrets.token_hex(8)}"
        with self._folder(_TEMPORARY, make=True) as private:
            descriptor = os.open(temporary, CREATE & ~os.O_WRONLY | os.O_RDWR, 0o600, dir_fd=private)
            os.unlink(temporary, dir_fd=private)
        return os.fdopen(descriptor, "w+b")

    def clear_temporary(self) -> None:
        """Remove what an earlier host left unfinished.

        Raises
        ------
        OSError
        """
        with self._folder(_TEMPORARY, make=True) as folder, os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.name, dir_fd=folder)
                else:
                    os.unlink(entry.name, dir_fd=folder)

    def delete(self, name: str) -> str:
        """Remove a file, or a link itself, and return its name with the links before it followed.

        Raises
        ------
        PathRefused
            The name leads outside, or is a folder.
        FileNotFound
        """
        *folders, last = parts_of(name)
        if folders:
            parents = self._resolve(tuple(folders))
        else:
            parents = ()
            if last == PRIVATE:
                raise FileNotFound("there is no such file")
        try:
            with self._folder(parents) as folder:
                os.unlink(last, dir_fd=folder)
        except (IsADirectoryError, PermissionError) as error:
            raise PathRefused("that is a folder or cannot be removed; delete the files in it by name") from error
        except OSError as error:
            raise FileNotFound("there is no such file") from error
        return "/".join((*parents, last))

    def make_folder(self, name: str) -> None:
        """Make a folder, and those above it.

        Raises
        ------
        PathRefused
            The name leads outside.
        OSError
            Something else is in its place.
        """
        with self._folder(self._resolve(parts_of(name)), make=True):
            return

    def walk(self, limit: int) -> Iterator[tuple[str, os.stat_result]]:
        """Yield name and status of every regular file, without the host's own folder; looks at so many entries at most.

        Links are not followed, so nothing outside is listed and no loop is walked.
        """
        with suppress(OSError), self._folder(()) as folder:
            for name, status in self._walk(folder, "", _Left(limit), _MAX_DEPTH):
                if stat.S_ISREG(status.st_mode):
                    yield name, status

    def entries(
        self, limit: int, passed_over: Callable[[str, str], bool] | None = None
    ) -> Iterator[tuple[str, os.stat_result]]:
        """Yield name and status of everything, of folders only those without anything in them.

        Parameters
        ----------
        limit
            Of what is looked at.
        passed_over
            Told a folder, empty or with a slash at its end, and a name in it; whether that is not even looked at.

        Raises
        ------
        TooLarge
            There are more entries than the limit.
        """
        left = _Left(limit)
        with suppress(OSError), self._folder(()) as folder:
            for name, status in self._walk(folder, "", left, _MAX_DEPTH, passed_over):
                if stat.S_ISDIR(status.st_mode) and name.count("/") >= _MAX_DEPTH:
                    raise TooLarge(f"folders are nested more than {_MAX_DEPTH} deep; move them up")
                yield name, status
        if left.count < 0:
            raise TooLarge(f"the workspace has more than {limit} files and folders; delete some")

    def _walk(
        self,
        folder: int,
        prefix: str,
        left: _Left,
        depth: int,
        passed_over: Callable[[str, str], bool] | None = None,
    ) -> Iterator[tuple[str, os.stat_result]]:
        """Yield what is no folder, and folders that are empty or too deep to be looked into."""
        empty = True
        with os.scandir(folder) as entries:
            for entry in entries:
                if (not prefix and entry.name == PRIVATE) or (passed_over and passed_over(prefix, entry.name)):
                    continue
                if not left.take():
                    return
                empty = False
                with suppress(OSError):  # it may be gone meanwhile, or be a link now
                    if depth and entry.is_dir(follow_symlinks=False):
                        deeper = os.open(entry.name, _FOLDER, dir_fd=folder)
                        try:
                            yield from self._walk(deeper, f"{prefix}{entry.name}/", left, depth - 1, passed_over)
                        finally:
                            os.close(deeper)
                    else:
                        yield prefix + entry.name, entry.stat(follow_symlinks=False)
        if empty and prefix:
            yield prefix.removesuffix("/"), os.fstat(folder)

    def below(self, name: str, limit: int) -> Iterator[tuple[str, str, os.stat_result]]:
        """Yield every regular file of a folder: its name there, its name in the workspace, and its status.

        An empty name is the whole workspace.

        Raises
        ------
        PathRefused
            The name leads outside.
        FileNotFound
            There is no such folder.
        TooLarge
            There are more entries than the limit.
        """
        parts = self._resolve(parts_of(name)) if name else ()
        prefix = "".join(f"{part}/" for part in parts)
        left = _Left(limit)
        try:
            with self._folder(parts) as folder:
                for path, status in self._walk(folder, prefix, left, _MAX_DEPTH):
                    if stat.S_ISREG(status.st_mode):
                        yield path.removeprefix(prefix), path, status
        except OSError as error:
            raise FileNotFound("there is no such folder") from error
        if left.count < 0:
            raise TooLarge(f"the folder has more than {limit} files and folders; ask for smaller ones")

    def list(self, limit: int) -> list[FileInfo]:
        """Return the files by name; names that are no Unicode are left out, for they cannot be asked for."""
        found: list[FileInfo] = []
        for name, status in self.walk(limit):
            if is_unicode(name):
                found.append(FileInfo(path=name, size=status.st_size, modified=status.st_mtime))
        return sorted(found, key=lambda info: info.path)
