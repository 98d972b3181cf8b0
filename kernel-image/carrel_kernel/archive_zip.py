"""Zip archives, read strictly: `zipfile` with bounds on what it reads at once, and checks that it does not make.

Stored and deflated members only: other methods are rare, and their memory cannot be bounded. Source: PKWARE APPNOTE.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import BinaryIO, Final

from carrel_kernel.errors import ArchiveRefused

_READ: Final = 1024 * 1024
_MAX_READ: Final = 2 * 1024 * 1024
"""Of the central directory, which is read at once: as much as all members that are allowed need."""
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000  # flags: encrypted, strongly encrypted, masked headers
_LOCAL_HEADER: Final = 30
"""Bytes of a member's own header without name and extra fields."""


def members(file: BinaryIO) -> Iterator[tuple[str, Iterator[bytes] | None]]:
    """Yield name and content of each file, and of each folder its name; content must be read before the next one.

    Raises
    ------
    ArchiveRefused
        It is damaged, cut, encrypted, or has members that are neither files nor folders.
    """
    with _errors(), zipfile.ZipFile(_Bounded(file)) as archive:
        infos = archive.infolist()
        for info in infos:
            _check(info)
        _check_overlap(infos)
        for info in infos:
            yield info.orig_filename, None if _is_folder(info) else _content(archive, info)


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.orig_filename.endswith("/")


def _check(info: zipfile.ZipInfo) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveRefused("the archive is encrypted; pack it without a password", reason="encrypted")
    if info.compress_type not in _METHODS:
        raise ArchiveRefused("the archive is compressed by another method than deflate", reason="unsupported")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise ArchiveRefused("the archive has links; pack what they lead to", reason="link", entry=info.filename)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveRefused("the archive has devices or pipes", reason="special", entry=info.filename)
    if _is_folder(info) and info.file_size:
        raise ArchiveRefused("a folder of the archive has content", reason="malformed")


def _check_overlap(infos: list[zipfile.ZipInfo]) -> None:
    """Refuse members that share compressed data, by which a small archive has a huge content."""
    places = sorted((info.header_offset, info.compress_size) for info in infos)
    for (start, size), (following, _) in pairwise(places):
        if start + _LOCAL_HEADER + size > following:
            raise ArchiveRefused("members of the archive overlap", reason="malformed")


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    left = info.file_size
    with _errors(), archive.open(info) as file:
        while chunk := file.read(_READ):
            left -= len(chunk)
            yield chunk
    if left:
        raise ArchiveRefused("the archive is cut", reason="malformed")


@contextmanager
def _errors() -> Generator[None]:
    """Turn everything that `zipfile` raises for damaged archives into one error."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError) as error:
        raise ArchiveRefused("the archive is damaged", reason="malformed") from error
    except (ValueError, RuntimeError, LookupError) as error:  # offsets before the beginning, names that are no UTF-8
        raise ArchiveRefused("the archive is damaged", reason="malformed") from error


class _Bounded(io.RawIOBase):
    """A file of which nothing large can be read at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._size - self._file.tell())
        count = left if size < 0 else min(size, left)
        if count > _MAX_READ:
            raise ArchiveRefused("the archive's directory is too large", reason="malformed")
        return self._file.read(count)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
