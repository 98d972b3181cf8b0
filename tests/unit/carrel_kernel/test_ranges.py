"""Parts of files by `Range`: against a model of the specification, and what is not understood means the whole file.

Plan
- Any first and last byte, and any number of last bytes, of any size (Hypothesis): what slicing gives.
- Headers that are malformed, ask for several parts or in other units, and `If-Range` of another content.
- The validator changes with the content, also when code sets the file's times back.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_kernel.errors import RangeNotSatisfiable
from carrel_kernel.ranges import Part, etag_of, part_of

NUMBERS = st.integers(0, 30)


def cut(data: bytes, header: str) -> bytes | None:
    """Return the bytes that a header asks for; none when it cannot be satisfied."""
    try:
        part = part_of(header, None, size=len(data), etag='"e"')
    except RangeNotSatisfiable:
        return None
    if part is None:
        return data
    assert part.content_range == f"bytes {part.start}-{part.start + part.length - 1}/{len(data)}"
    return data[part.start : part.start + part.length]


@given(st.binary(max_size=30), NUMBERS, NUMBERS | st.none())
def test_from_a_byte_on(data: bytes, first: int, last: int | None) -> None:
    found = cut(data, f"bytes={first}-{'' if last is None else last}")
    if last is not None and last < first:
        assert found == data
    elif first >= len(data):
        assert found is None
    else:
        assert found == data[first : len(data) if last is None else last + 1]


@given(st.binary(max_size=30), NUMBERS)
def test_the_last_bytes(data: bytes, count: int) -> None:
    assert cut(data, f"bytes=-{count}") == (data[-count:] if count and data else None)


def test_a_refusal_says_how_large_the_file_is() -> None:
    with pytest.raises(RangeNotSatisfiable) as refused:
        part_of("bytes=10-", None, size=10, etag='"e"')
    assert refused.value.headers == {"Content-Range": "bytes */10"}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1-2,4-5",
        "bytes=0-0,-1",
        "items=0-1",
        "bytes=1",
        "bytes=--1",
        "bytes=\u0660-\u0661",
        "bytes=0-" + "9" * 1000,
        "bytes=5-1",
        "bytes=0-1x",
    ],
)
def test_what_is_not_understood_is_answered_with_the_whole_file(header: str | None) -> None:
    assert part_of(header, None, size=10, etag='"e"') is None


def test_a_part_is_of_the_content_that_the_caller_knows_or_not_given() -> None:
    assert part_of("bytes=1-2", '"e"', size=10, etag='"e"') == Part(1, 2, 10)
    for other in ('"f"', 'W/"e"', "Wed, 21 Oct 2015 07:28:00 GMT", ""):
        assert part_of("bytes=1-2", other, size=10, etag='"e"') is None
        assert part_of("bytes=99-", other, size=10, etag='"e"') is None


def test_the_validator_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    before = path.stat()
    assert etag_of(before) == etag_of(path.stat())
    other = tmp_path / "g"
    other.write_bytes(b"two")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert etag_of(path.stat()) != etag_of(before)
