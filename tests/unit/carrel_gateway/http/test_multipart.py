"""Multipart bodies as a stream.

Plan: several parts, cut anywhere into chunks, come out byte for byte; a part nobody reads is skipped; malformed and cut
bodies and too many parts are refused; nothing is held: the first bytes of a part come before the last ones were sent.
"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_gateway.errors import InvalidInput
from carrel_gateway.web.multipart import MAX_PARTS, boundary_of, read_parts

BOUNDARY = b"xYzZY"


def body_of(*files: tuple[str, bytes]) -> bytes:
    parts = [
        b"--"
        + BOUNDARY
        + b'\r\nContent-Disposition: form-data; name="file"; filename="'
        + name.encode()
        + b'"\r\nContent-Type: text/csv\r\n\r\n'
        + content
        + b"\r\n"
        for name, content in files
    ]
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


async def in_chunks(data: bytes, size: int):
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read(data: bytes, size: int = 7) -> list[tuple[str | None, bytes]]:
    return [
        (part.filename, b"".join([chunk async for chunk in part.chunks()]))
        async for part in read_parts(in_chunks(data, size), BOUNDARY)
    ]


@given(
    contents=st.lists(st.binary(max_size=60).filter(lambda content: BOUNDARY not in content), min_size=1, max_size=4),
    size=st.integers(1, 90),
)
def test_parts_come_out_whole_however_they_are_cut(contents, size):
    files = [(f"f{place}.csv", content) for place, content in enumerate(contents)]
    assert asyncio.run(read(body_of(*files), size)) == files


async def test_unread_part_is_skipped():
    names = [part.filename async for part in read_parts(in_chunks(body_of(("a", b"1" * 50), ("b", b"2")), 7), BOUNDARY)]
    assert names == ["a", "b"]


async def test_content_comes_while_it_is_sent():
    sent = []

    async def body():
        data = body_of(("big.csv", b"0123456789" * 100))
        async for chunk in in_chunks(data, 100):
            sent.append(chunk)
            yield chunk

    async for part in read_parts(body(), BOUNDARY):
        first = await anext(part.chunks())
        assert first
        assert len(sent) <= 3
        break


async def test_unicode_name():
    assert (await read(body_of(("Umsätze 2026.csv", b"a"))))[0][0] == "Umsätze 2026.csv"


async def test_name_that_is_not_utf8():
    data = body_of(("X", b"a")).replace(b'"X"', b'"\xff\xfe"')
    with pytest.raises(InvalidInput, match="a file name must be UTF-8"):
        await read(data)


@pytest.mark.parametrize("cut", [5, 30, 90])
async def test_cut_body(cut):
    with pytest.raises(InvalidInput, match="ends before its last boundary"):
        await read(body_of(("a.csv", b"1,2,3"))[:-cut])


async def test_malformed_body():
    with pytest.raises(InvalidInput, match="not well-formed multipart/form-data"):
        await read(b"this is not multipart at all")


async def test_too_many_parts():
    with pytest.raises(InvalidInput, match=f"at most {MAX_PARTS} parts"):
        await read(body_of(*[("a", b"")] * (MAX_PARTS + 1)), 4096)


@pytest.mark.parametrize("header", [None, "", "application/json", "multipart/form-data", "multipart/mixed; boundary=a"])
def test_other_content_types(header):
    with pytest.raises(InvalidInput, match="send files as multipart/form-data"):
        boundary_of(header)


def test_boundary():
    assert boundary_of('multipart/form-data; boundary="abc d"') == b"abc d"
