"""Lines of NDJSON.

Plan: however the bytes are cut into chunks, the lines are the same; a torn end is an error, not a short line; a line
over the limit is refused before more of it is held.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_gateway.kernels.ndjson import LineTooLongError, TornLineError, lines


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=10), st.data())
async def test_chunking_makes_no_difference(wanted: list[bytes], data: st.DataObject):
    whole = b"".join(line + b"\n" for line in wanted)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    parts = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert [line async for line in lines(chunks(*parts))] == [line for line in wanted if line]


async def test_a_torn_end_is_an_error():
    seen: list[bytes] = []

    async def read() -> None:
        async for line in lines(chunks(b"a\nb")):
            seen.append(line)  # noqa: PERF401  what came before the error counts

    with pytest.raises(TornLineError):
        await read()
    assert seen == [b"a"]


async def test_a_line_over_the_limit_is_refused():
    stream = lines(chunks(*([b"x" * 10] * 11)), max_bytes=100)
    with pytest.raises(LineTooLongError):
        await anext(stream)
