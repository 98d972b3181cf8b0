"""The corpus of archives: what honest programs write, bombs, and everything that must be refused, with its reason."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from carrel_kernel import archives
from carrel_kernel.archives import MAX_DEPTH

MIB = 1024 * 1024
Tree = dict[str, bytes]

# ---------------------------------------------------------------------- how archives are made


def tar_of(files: Tree, mode: str = "w", format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002  tarfile's own word
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode, format=format) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def zip_of(files: Tree, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def tar_with(name: str, kind: bytes, content: bytes = b"", **fields: Any) -> bytes:
    """Return a tar with an honest file, and then a member as hostile as wanted."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        honest = tarfile.TarInfo("honest")
        honest.size = 3
        archive.addfile(honest, io.BytesIO(b"abc"))
        info = tarfile.TarInfo(name)
        info.type = kind
        info.size = len(content)
        for field, value in fields.items():
            setattr(info, field, value)
        archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def headers(*records: tuple[str, bytes, int, bytes]) -> bytes:
    """Return raw records of name, type, size as it is said, and content; what `tarfile` would not write."""
    blocks: list[bytes] = []
    for name, kind, size, content in records:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, size
        blocks += [info.tobuf(tarfile.GNU_FORMAT), content, bytes(-len(content) % 512)]
    return b"".join([*blocks, bytes(1024)])


HONEST: dict[str, Callable[[Tree], bytes]] = {
    "zip": zip_of,
    "zip, stored": lambda files: zip_of(files, zipfile.ZIP_STORED),
    "tar, pax": tar_of,
    "tar, gnu": lambda files: tar_of(files, format=tarfile.GNU_FORMAT),
    "tar.gz": lambda files: tar_of(files, "w:gz"),
    "tar.bz2": lambda files: tar_of(files, "w:bz2"),
    "tar.xz": lambda files: tar_of(files, "w:xz"),
}

# ---------------------------------------------------------------------- bombs

ZEROS = bytes(MIB)


def repeated(compressor: Any, count: int = 64) -> bytes:
    """Return a tar with one member of so many MiB of zeros, compressed."""
    info = tarfile.TarInfo("zeros")
    info.size = count * MIB
    chunks = [compressor.compress(info.tobuf())]
    chunks += [compressor.compress(ZEROS) for _ in range(count)]
    return b"".join([*chunks, compressor.compress(bytes(1024)), compressor.flush()])


def many_files() -> bytes:
    """Return a zip of 60 files of 1 MiB of zeros: each is small, and so is all of it."""
    return zip_of({f"f{number}": ZEROS for number in range(60)})


def nested() -> bytes:
    """Return the innermost archive of 42.zip's kind: one file of zeros, all of it a bomb."""
    return zip_of({"0.dll": bytes(64 * MIB)})


def overlapping() -> bytes:
    """Return a zip whose directory names one member many times."""
    data = zip_of({"a": ZEROS})
    place = data.index(b"PK\1\2")
    entry, end = data[place:-22], data[-22:]
    count = 1000
    return (
        data[:place]
        + entry * count
        + struct.pack("<4sHHHHIIH", end[:4], 0, 0, count, count, len(entry) * count, place, 0)
    )


def quoted_overlap() -> bytes:
    """Return a zip of two members, of which the first quotes the second's header: D. Fifield, 'A better zip bomb'."""

    def local(name: bytes, data: bytes, plain: bytes) -> bytes:
        sizes = (zlib.crc32(plain), len(data), len(plain), len(name), 0)
        return struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 0, *sizes) + name

    def central(name: bytes, data: bytes, plain: bytes, offset: int) -> bytes:
        sizes = (zlib.crc32(plain), len(data), len(plain), len(name), 0, 0, 0, 0, 0, offset)
        return struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 8, 0, 0, *sizes) + name

    kernel_plain = ZEROS
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    kernel = deflate.compress(kernel_plain) + deflate.flush()
    second = local(b"b", kernel, kernel_plain)
    quote = struct.pack("<BHH", 0, len(second), ~len(second) & 0xFFFF) + second
    first_plain = second + kernel_plain
    first = local(b"a", quote + kernel, first_plain)
    body = first + quote + kernel
    directory = central(b"a", quote + kernel, first_plain, 0)
    directory += central(b"b", kernel, kernel_plain, len(first) + 5)
    return body + directory + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 2, 2, len(directory), len(body), 0)


def lying() -> bytes:
    """Return a zip that says its member has 10 bytes: zipfile stops there, and the checksum is of all of it."""
    data = bytearray(zip_of({"a": ZEROS}))
    for mark, place in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", data, data.index(mark) + place, 10)
    return bytes(data)


def greedy_xz() -> bytes:
    """Return an xz that wants 1.5 GiB of memory for itself."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 64 * MIB}]
    data = bytearray(lzma.compress(tar_of({"a": b"x"}), check=lzma.CHECK_CRC32, filters=filters))
    properties = data.index(b"\x21\x01", 12) + 2  # block header: filter id of LZMA2, length of properties, dictionary
    data[properties] = 39  # 3 GiB
    header = slice(12, 12 + (data[12] + 1) * 4 - 4)
    struct.pack_into("<I", data, header.stop, zlib.crc32(data[header]))
    return bytes(data)


TOO_LARGE: dict[str, Callable[[], bytes]] = {
    "zip of zeros": nested,
    "zip of many files of zeros": many_files,
    "tar.gz of zeros": lambda: repeated(zlib.compressobj(9, wbits=31)),
    "tar.bz2 of zeros": lambda: repeated(bz2.BZ2Compressor()),
    "tar.xz of zeros": lambda: repeated(lzma.LZMACompressor(preset=0)),
    "zeros behind the end": lambda: gzip.compress(tar_of({"a": b""}) + bytes(32 * MIB)),
    "too many files": lambda: tar_of({str(number): b"" for number in range(archives.MAX_ENTRIES + 1)}, "w:gz"),
    "too many files, zip": lambda: zip_of({str(number): b"" for number in range(archives.MAX_ENTRIES + 1)}),
    "too many folders": lambda: tar_of(
        {"/".join([str(number), *"abcdefghijklmnopqrstuvwxyz"]): b"" for number in range(archives.MAX_ENTRIES // 26)},
        "w:gz",
    ),
    "a file larger than it can be": lambda: gzip.compress(headers(("a", b"0", 10**11, bytes(32 * MIB)))),
}


# ---------------------------------------------------------------------- refused

ZIP_LINK = zipfile.ZipInfo("link")
ZIP_LINK.create_system, ZIP_LINK.external_attr = 3, 0o120777 << 16
ZIP_PIPE = zipfile.ZipInfo("pipe")
ZIP_PIPE.create_system, ZIP_PIPE.external_attr = 3, 0o010666 << 16


def zip_with(*members: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for info, content in members:
            archive.writestr(info, content)
    return data.getvalue()


def flagged(flag: int) -> bytes:
    """Return a zip with a flag set in both headers of its member, such as the one of encryption."""
    data = bytearray(zip_of({"a": b"x"}))
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + place] |= flag
    return bytes(data)


def nameless() -> bytes:
    """Return a zip whose member has an empty name."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        info = zipfile.ZipInfo("a")
        info.filename = ""
        archive.writestr(info, b"x")
    return data.getvalue()


def through_a_link() -> bytes:
    link = tar_with("door", tarfile.SYMTYPE, linkname="../../outside")
    return link[:-10240] + tar_of({"door/secret": b"changed"}) if len(link) > 10240 else link


WAYS_OUT = [
    "/etc/passwd",
    "//etc/passwd",
    "../x",
    "a/../../x",
    "a/..",
    "..\\x",
    "a\\..\\..\\x",
    "C:\\x",
    "a\0b",
    "a//b",
]
REFUSED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "overlap": ("malformed", overlapping),
    "quoted overlap": ("malformed", quoted_overlap),
    "a size that is a lie": ("malformed", lying),
    "greedy xz": ("malformed", greedy_xz),
    "gzip in gzip": ("malformed", lambda: gzip.compress(gzip.compress(gzip.compress(tar_of({"a": b"x"}))))),
    "gzip of text": ("malformed", lambda: gzip.compress(b"some text that is no archive " * 100)),
    "streams without end": ("malformed", lambda: gzip.compress(b"") * 30_000),
    "no archive": ("unsupported", lambda: b"some text"),
    "nothing": ("unsupported", lambda: b""),
    "zip of another method": ("unsupported", lambda: zip_of({"a": b"x"}, zipfile.ZIP_LZMA)),
    "encrypted zip": ("encrypted", lambda: flagged(1)),
    "strongly encrypted zip": ("encrypted", lambda: flagged(64)),
    "directory of a zip too large": ("malformed", lambda: zip_of({f"{number:0200}": b"" for number in range(9_000)})),
    "symbolic link": ("link", lambda: tar_with("a", tarfile.SYMTYPE, linkname="b")),
    "written through a link": ("link", through_a_link),
    "hard link outside": ("link", lambda: tar_with("a", tarfile.LNKTYPE, linkname="../../outside/secret")),
    "long link": ("link", lambda: tar_with("a", tarfile.SYMTYPE, linkname="../" * 100 + "x")),
    "link in a zip": ("link", lambda: zip_with((ZIP_LINK, b"../../outside"), ("link/secret", b"changed"))),
    "device": ("special", lambda: tar_with("a", tarfile.BLKTYPE)),
    "character device": ("special", lambda: tar_with("a", tarfile.CHRTYPE)),
    "pipe": ("special", lambda: tar_with("a", tarfile.FIFOTYPE)),
    "pipe in a zip": ("special", lambda: zip_with((ZIP_PIPE, b""))),
    "sparse file": ("unsupported", lambda: headers(("a", tarfile.GNUTYPE_SPARSE, 0, b""))),
    "sparse file, pax": (
        "unsupported",
        lambda: headers(("x", b"x", 28, b"28 GNU.sparse.realsize=9999\n"), ("a", b"0", 0, b"")),
    ),
    "unknown kind": ("unsupported", lambda: tar_with("a", b"V")),
    "twice": ("duplicate", lambda: tar_with("honest", tarfile.REGTYPE, b"again")),
    "twice in a zip": ("duplicate", lambda: zip_with(("a", b"1"), ("./a", b"2"))),
    "a folder in a file": ("duplicate", lambda: tar_with("honest/below", tarfile.REGTYPE, b"x")),
    "a folder in the place of a file": ("duplicate", lambda: tar_with("honest", tarfile.DIRTYPE)),
    "a file without a name": ("name", nameless),
    "a file with the folder's name": ("name", lambda: tar_of({"./": b"x"})),
    "deep": ("name", lambda: tar_of({"/".join("a" * (MAX_DEPTH + 1)): b""})),
    "a long name": ("name", lambda: tar_of({"x" * 256: b""})),
    "a longer name": ("name", lambda: tar_of({"/".join(["x" * 200] * 25): b""})),
    "a huge name": ("malformed", lambda: tar_of({"x" * 100_000: b""})),
    "a name that is no text": ("name", lambda: tar_of({"\udcff": b""}, format=tarfile.GNU_FORMAT)),
    "extension records without end": ("malformed", lambda: headers(*[("x", b"x", 0, b"")] * 1000)),
    "an extension record without end": ("malformed", lambda: headers(("x", b"x", 10**10, b""))),
    "a long name without end": ("malformed", lambda: headers(("x", b"L", 2**40, b"x" * 512))),
    "a damaged extension record": ("malformed", lambda: headers(("x", b"x", 9, b"99 path=x"))),
    "an extension record of digits": ("malformed", lambda: headers(("x", b"x", 512, b"1" * 512))),
    "an extension record of length 0": ("malformed", lambda: headers(("x", b"x", 9, b"0 path=x\n"))),
    "a size that is no number": ("malformed", lambda: headers(("x", b"x", 11, b"11 size=-5\n"), ("a", b"0", 0, b""))),
    "one name for all": ("malformed", lambda: headers(("g", b"g", 12, b"12 path=abc\n"), ("a", b"0", 0, b""))),
    "a negative size": ("malformed", lambda: headers(("a", b"0", -512, b""))),
    "no end": ("malformed", lambda: tar_of({"a": b"x" * 1000})[:1536]),
    **{f"way out {name!r}": ("name", lambda name=name: tar_of({name: b"x"})) for name in WAYS_OUT if "\0" not in name},
    **{f"way out {name!r} of a zip": ("name", lambda name=name: raw_zip(name)) for name in WAYS_OUT},
}


def raw_zip(name: str) -> bytes:
    """Return a zip with a name that `zipfile` would put right."""
    honest = "x" * len(name)
    return zip_of({honest: b"x"}).replace(honest.encode(), name.encode())
