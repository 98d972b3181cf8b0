"""Splits a stream of bytes into lines of NDJSON, with a bound on the length of one line."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

MAX_LINE_BYTES = 96 * 1024 * 1024
"""Above the kernel host's own cap of one execution's output (64 MiB), with room for JSON escapes of a display."""


class LineTooLongError(Exception):
    """The other side sent more than `MAX_LINE_BYTES` without an end of line."""


class TornLineError(Exception):
    """The stream ended in the middle of a line: the connection was cut."""


async def lines(chunks: AsyncIterable[bytes], *, max_bytes: int = MAX_LINE_BYTES) -> AsyncGenerator[bytes, None]:
    """Yield each line without its end; an empty line is skipped.

    Raises
    ------
    LineTooLongError
        One line is longer than `max_bytes`.
    TornLineError
        The last line has no end.
    """
    held: list[bytes] = []  # pieces of the line that has no end yet; joined once, so a long line costs no copies
    held_bytes = 0
    async for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            line = b"".join([*held, chunk[start:end]]) if held else chunk[start:end]
            held.clear()
            held_bytes = 0
            start = end + 1
            if line:
                yield line
        if start < len(chunk):
            held.append(chunk[start:])
            held_bytes += len(chunk) - start
            if held_bytes > max_bytes:
                raise LineTooLongError(f"a line is longer than {max_bytes} bytes")
    if held:
        raise TornLineError("the stream ended within a line")
