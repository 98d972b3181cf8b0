"""Contents of snapshots as files named by their SHA-256, in the host's own folder.

Kernels of the same user can write there too, so a content is checked against its name whenever it comes or goes, and is
opened without following links. Contents that nobody has used for a while are removed. Blocking functions, for threads.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from carrel_kernel.errors import BlobNotFound, TooLarge, WrongDigest

CHUNK_BYTES: Final = 1024 * 1024
UNUSED_SECONDS: Final = 1800.0
"""A gateway that copies contents away, or brings them, has been given up for dead after so long without a call."""
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Incoming:
    """A content that is being written."""

    def __init__(self, file: BinaryIO, room: int) -> None:
        self._file = file
        self._room = room
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Write a part.

        Raises
        ------
        TooLarge
        """
        self.size += len(chunk)
        if self.size > self._room:
            raise TooLarge("the contents of snapshots would take more than they may", limit_bytes=self._room)
        self._hash.update(chunk)
        self._file.write(chunk)

    @property
    def digest(self) -> str:
        """SHA-256 of what was written."""
        return self._hash.hexdigest()


class Blobs:
    """The folder, of at most so many bytes."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def prepare(self) -> None:
        """Begin empty: what an earlier host left is part of no snapshot that this one knows.

        Raises
        ------
        OSError
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, mode=0o700)

    def has(self, digest: str) -> bool:
        """Whether there is a content; it then stays a while."""
        with suppress(OSError):
            os.utime(self.folder / digest, follow_symlinks=False)
            return True
        return False

    def open(self, digest: str) -> BinaryIO:
        """Return a content.

        Raises
        ------
        BlobNotFound
        """
        if not self.has(digest):
            raise BlobNotFound("there is no such content on this host", sha256=digest)
        return _open(self.folder / digest)

    @contextmanager
    def write(self, digest: str) -> Generator[Incoming]:
        """Give a file that becomes the content when the block ends well and its digest is right.

        Raises
        ------
        WrongDigest, TooLarge
        OSError
            The disk does not take it.
        """
        half = self.folder / f".half-{secrets.token_hex(8)}"
        try:
            with half.open("xb") as file:
                incoming = Incoming(file, self.max_bytes - self._used())
                yield incoming
            if incoming.digest != digest:
                raise WrongDigest("the content is not what its digest says; send it again", sha256=incoming.digest)
            half.replace(self.folder / digest)
        finally:
            half.unlink(missing_ok=True)

    def folder_for_kernel(self) -> Path:
        """Return a new folder for a kernel to write to."""
        folder = self.folder / f".kernel-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        return folder

    def adopt(self, folder: Path, described: Mapping[str, int]) -> None:
        """Take contents over that a kernel wrote; what they are is compared when they are read.

        Raises
        ------
        BlobNotFound, WrongDigest
        """
        for digest, size in described.items():
            path = folder / digest
            with _open(path) as file:
                if os.fstat(file.fileno()).st_size != size:
                    raise WrongDigest("the kernel wrote other contents than it said", sha256=digest)
            path.replace(self.folder / digest)

    def check(self, described: Mapping[str, int]) -> None:
        """Compare contents with their digests and sizes.

        Raises
        ------
        BlobNotFound, WrongDigest
        """
        for digest, size in described.items():
            with self.open(digest) as file:
                if (size, digest) != measure(file):
                    raise WrongDigest("a content is not what its digest says", sha256=digest)

    def remove(self, digests: Collection[str]) -> None:
        """Remove contents that nothing needs any more."""
        for digest in digests:
            (self.folder / digest).unlink(missing_ok=True)

    def sweep(self, now: float | None = None) -> int:
        """Remove what nobody has used for a while, and return how many."""
        oldest = (time.time() if now is None else now) - UNUSED_SECONDS
        removed = 0
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime > oldest:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        Path(entry.path).unlink()
                    removed += 1
        return removed

    def _used(self) -> int:
        used = 0
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    used += entry.stat(follow_symlinks=False).st_size
        return used


def measure(file: BinaryIO, copy: BinaryIO | None = None) -> tuple[int, str]:
    """Return size and digest of what is left of a file, which is written to a copy on the way."""
    digest = hashlib.sha256()
    size = 0
    while block := file.read(CHUNK_BYTES):
        digest.update(block)
        size += len(block)
        if copy:
            copy.write(block)
    return size, digest.hexdigest()


def _open(path: Path) -> BinaryIO:
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        raise BlobNotFound("there is no such content on this host", sha256=path.name) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BlobNotFound("there is no such content on this host", sha256=path.name)
    return os.fdopen(descriptor, "rb")
