"""Archives that people upload, taken apart within limits: zip, and tar as it is or with gzip, bzip2 or xz.

Everything in an archive is hostile, its own words about its size most of all: bytes are counted as they come out, and
whatever is over a limit, is no plain file or folder, or has a name that could lead anywhere else ends all of it.
Archives in archives stay what they are. Decides nothing about where files go (`placing`).
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Protocol, TypeAlias

from carrel_kernel import archive_tar, archive_zip
from carrel_kernel.errors import ArchiveRefused, PathRefused, TooLarge
from carrel_kernel.names import parts_of
from carrel_kernel.placing import NewFolder

MAX_ENTRIES: Final = 10_000
"""Files and folders, those that are only named on the way to others included."""
MAX_DEPTH: Final = 32
MAX_RATIO: Final = 200
"""Content over size of the archive, beyond what is always allowed."""
ALWAYS_ALLOWED_BYTES: Final = 16 * 1024 * 1024
_MAX_STREAMS: Final = 20_000
"""Compressed streams one after the other, as parallel compressors write them."""
_MEMORY_BYTES: Final = 128 * 1024 * 1024
"""Of the decompressor of xz, which takes as much as the archive says; `xz -9` needs 65 MiB."""
_READ: Final = 64 * 1024
_TELL_BYTES: Final = 16 * 1024 * 1024
_MAGIC_BYTES: Final = 262

Members: TypeAlias = Iterator[tuple[str, Iterator[bytes] | None]]


class _Decompressor(Protocol):
    """What those of bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Inflate:
    """The one of zlib, for gzip, in the same form."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)


class _Decompressed:
    """The content of a compressed file, of one or more streams, as a `Source`."""

    def __init__(self, file: BinaryIO, make: Callable[[], _Decompressor]) -> None:
        self._file = file
        self._make = make
        self._decompressor = make()
        self._streams = 1
        self._held = memoryview(b"")

    def read(self, count: int, /) -> bytes:
        if not self._held:
            self._held = memoryview(self._more())
        found, self._held = self._held[:count], self._held[count:]
        return bytes(found)

    def _more(self) -> bytes:
        while True:
            data = b""
            if self._decompressor.eof:
                data = (self._decompressor.unused_data or self._file.read(_READ)).lstrip(b"\0")  # padding, as on tapes
                if not data:
                    return b""
                self._streams += 1
                if self._streams > _MAX_STREAMS:
                    raise ArchiveRefused("the archive has too many compressed streams", reason="malformed")
                self._decompressor = self._make()
            elif self._decompressor.needs_input:
                data = self._file.read(_READ)
                if not data:
                    raise ArchiveRefused("the archive is cut", reason="malformed")
            try:
                found = self._decompressor.decompress(data, _READ)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise ArchiveRefused("the archive is damaged", reason="malformed") from error
            if found:
                return found


class _Counted:
    """A `Source` that ends everything when more comes out of it than may."""

    def __init__(self, source: archive_tar.Source, budget: Budget) -> None:
        self._source = source
        self._budget = budget

    def read(self, count: int, /) -> bytes:
        data = self._source.read(count)
        self._budget.spend(len(data))
        return data


class Budget:
    """How much content an archive of a size may have; `spent` is what has come out so far.

    Calls `on_more` from time to time, which may end it.
    """

    def __init__(self, archive_bytes: int, limit_bytes: int, on_more: Callable[[], None] = lambda: None) -> None:
        self.allowed = min(limit_bytes, ALWAYS_ALLOWED_BYTES + MAX_RATIO * archive_bytes)
        self.spent = 0
        self._on_more = on_more
        self._told = 0

    def spend(self, count: int) -> None:
        """Count content.

        Raises
        ------
        TooLarge
            There is more than may be.
        """
        self.spent += count
        if self.spent > self.allowed:
            raise TooLarge(
                f"the archive's content is larger than {self.allowed} bytes; upload its files one by one",
                limit_bytes=self.allowed,
            )
        if self.spent - self._told >= _TELL_BYTES:
            self._told = self.spent
            self._on_more()


def unpack(file: BinaryIO, folder: NewFolder, budget: Budget) -> None:
    """Write the files of an archive into a new folder. Blocks.

    Raises
    ------
    ArchiveRefused, TooLarge
        The folder must not be used.
    OSError
        The disk does not take it.
    """
    seen: set[tuple[str, ...]] = set()
    for name, content in _members(file, budget):
        if content is None and name in ("./", "."):  # the archive's own folder
            continue
        parts = _checked(name, seen)
        try:
            if content is None:
                folder.make(parts)
            else:
                folder.write(parts, content)
        except (FileExistsError, NotADirectoryError) as error:
            raise ArchiveRefused("the archive has a name twice", reason="duplicate", entry=name) from error


def _members(file: BinaryIO, budget: Budget) -> Members:
    """Return the members of an archive of any form, with their content counted."""
    file.seek(0)
    start = file.read(_MAGIC_BYTES)
    file.seek(0)
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return _zip_members(file, budget)
    source: archive_tar.Source
    if start.startswith(b"\x1f\x8b"):
        source = _Decompressed(file, _Inflate)
    elif start.startswith(b"BZh"):
        source = _Decompressed(file, bz2.BZ2Decompressor)
    elif start.startswith(b"\xfd7zXZ\0"):
        source = _Decompressed(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_BYTES))
    elif start[257:262] == b"ustar":
        source = file
    else:
        raise ArchiveRefused("that is neither zip nor tar, as it is or with gzip, bzip2 or xz", reason="unsupported")
    return archive_tar.members(_Counted(source, budget))


def _zip_members(file: BinaryIO, budget: Budget) -> Members:
    for name, content in archive_zip.members(file):
        yield name, None if content is None else _counted(content, budget)


def _counted(content: Iterator[bytes], budget: Budget) -> Iterator[bytes]:
    for chunk in content:
        budget.spend(len(chunk))
        yield chunk


def _checked(name: str, seen: set[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the components of a member's name, and count what it needs."""
    try:
        parts = parts_of(name.removeprefix("./").rstrip("/"))
    except PathRefused as error:
        raise ArchiveRefused("a name in the archive is refused", reason="name", entry=name) from error
    if len(parts) > MAX_DEPTH:
        raise ArchiveRefused(f"folders are deeper than {MAX_DEPTH}", reason="name", entry=name)
    seen.update(parts[:length] for length in range(1, len(parts) + 1))
    if len(seen) > MAX_ENTRIES:
        raise TooLarge(f"an archive may have {MAX_ENTRIES} files and folders", limit_entries=MAX_ENTRIES)
    return parts
