"""Tar archives as streams: read one strictly, written by anybody, and written with gzip for downloads.

`tarfile` parses the headers and nothing else: it keeps whole extension records and sparse maps of any size, and follows
forms that no archive of data needs. What is read here are plain files and folders, with the long names of GNU and
POSIX. Source: POSIX pax, GNU tar manual ("Basic Tar Format").
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, Protocol

from carrel_kernel.errors import ArchiveRefused

_BLOCK: Final = tarfile.BLOCKSIZE
_READ: Final = 1024 * 1024
_SEND: Final = 256 * 1024
_MAX_EXTENSION_BYTES: Final = 64 * 1024
"""Of one extension record: a name has 4000 bytes at most."""
_MAX_EXTENSIONS: Final = 4
"""Extension records before one member; tar itself writes two."""
_LINKS: Final = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_LONGLINK)
_SPECIAL: Final = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_FILES: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class Source(Protocol):
    """Where bytes come from; fewer than asked for, but some unless it is at its end."""

    def read(self, count: int, /) -> bytes: ...


class ShrunkError(Exception):
    """A file became shorter while it was sent; the archive cannot be ended."""


def members(source: Source) -> Iterator[tuple[str, Iterator[bytes] | None]]:
    """Yield name and content of each file, and of each folder its name; content must be read before the next one.

    Raises
    ------
    ArchiveRefused
        It is damaged, cut, or has members that are neither files nor folders.
    """
    while (header := _next(source)) is not None:
        if header.type == tarfile.DIRTYPE:
            yield header.name, None
            continue
        content = _content(source, header.size)
        yield header.name, content
        for _ in content:  # what the caller has left
            pass
        _exactly(source, -header.size % _BLOCK)
    while source.read(_READ):  # to the end, where compressed data has its checksum
        pass


def _next(source: Source) -> tarfile.TarInfo | None:
    """Return the header of the next member with its long name applied, and nothing at the archive's end."""
    long_name: str | None = None
    size: int | None = None
    for _ in range(_MAX_EXTENSIONS + 1):
        block = _exactly(source, _BLOCK)
        if not any(block):
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError) as error:
            raise ArchiveRefused("a header of the archive is damaged", reason="malformed") from error
        if header.size < 0:
            raise ArchiveRefused("a header of the archive is damaged", reason="malformed")
        if header.type == tarfile.GNUTYPE_LONGNAME:
            long_name = _extension(source, header).rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            fields = _fields(_extension(source, header))
            long_name, size = fields.get("path", long_name), _size(fields, size)
        elif header.type == tarfile.XGLTYPE:
            if {"path", "size"} & _fields(_extension(source, header)).keys():
                raise ArchiveRefused("one name for all members makes no sense", reason="malformed")
        else:
            _check_type(header)
            header.name = header.name if long_name is None else long_name
            header.size = header.size if size is None else size
            return header
    raise ArchiveRefused("there are extension records without a member", reason="malformed")


def _check_type(header: tarfile.TarInfo) -> None:
    if header.type in _LINKS:
        raise ArchiveRefused("the archive has links; pack what they lead to", reason="link", entry=header.name)
    if header.type in _SPECIAL:
        raise ArchiveRefused("the archive has devices or pipes", reason="special", entry=header.name)
    if header.type not in (*_FILES, tarfile.DIRTYPE):
        raise ArchiveRefused("the archive has members of a kind that is not read", reason="unsupported")


def _extension(source: Source, header: tarfile.TarInfo) -> bytes:
    if header.size > _MAX_EXTENSION_BYTES:
        raise ArchiveRefused("an extension record is too long", reason="malformed")
    data = _exactly(source, header.size)
    _exactly(source, -header.size % _BLOCK)
    return data


def _fields(data: bytes) -> dict[str, str]:
    """Return the fields of a pax record: `LENGTH NAME=VALUE`, each with its line end."""
    fields: dict[str, str] = {}
    start = 0
    while start < len(data):
        space = data.find(b" ", start, start + 8)
        length = data[start:space]
        end = start + int(length) if space > 0 and length.isdigit() else 0
        name, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(data) or not equals:
            raise ArchiveRefused("an extension record is damaged", reason="malformed")
        if name.startswith(b"GNU.sparse."):
            raise ArchiveRefused("files with holes are not read; pack them without `--sparse`", reason="unsupported")
        fields[name.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        start = end
    return fields


def _size(fields: dict[str, str], default: int | None) -> int | None:
    text = fields.get("size")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ArchiveRefused("an extension record is damaged", reason="malformed")
    return int(text)


def _content(source: Source, left: int) -> Iterator[bytes]:
    while left:
        chunk = _some(source, min(left, _READ))
        left -= len(chunk)
        yield chunk


def _exactly(source: Source, count: int) -> bytes:
    chunks: list[bytes] = []
    while count:
        chunks.append(_some(source, count))
        count -= len(chunks[-1])
    return b"".join(chunks)


def _some(source: Source, count: int) -> bytes:
    chunk = source.read(count)
    if not chunk:
        raise ArchiveRefused("the archive is cut", reason="malformed")
    return chunk


def pack(files: Iterable[tuple[str, BinaryIO, int, float]]) -> Iterator[bytes]:
    """Yield a `.tar.gz` as it is made, sometimes nothing, so that each piece takes little memory and time.

    Parameters
    ----------
    files
        Name in the archive, the open file, bytes to take of it, and time of its last change. Each is closed here.

    Raises
    ------
    ShrunkError
        A file had fewer bytes than were promised.
    """
    compressor = zlib.compressobj(level=1, wbits=31)  # fast: most large files of a workspace are compressed already
    held = bytearray()
    for name, file, size, modified in files:
        for plain in _packed(name, file, size, modified):
            held += compressor.compress(plain)
            if len(held) >= _SEND or len(plain) == _READ:
                yield bytes(held)
                held.clear()
    yield bytes(held) + compressor.compress(bytes(2 * _BLOCK)) + compressor.flush()


def _packed(name: str, file: BinaryIO, size: int, modified: float) -> Iterator[bytes]:
    header = tarfile.TarInfo(name)
    header.size, header.mtime = size, int(modified)
    with file:
        yield header.tobuf(tarfile.PAX_FORMAT)
        left = size
        while left:
            chunk = file.read(min(left, _READ))
            if not chunk:
                raise ShrunkError(name)
            left -= len(chunk)
            yield chunk
        yield bytes(-size % _BLOCK)
