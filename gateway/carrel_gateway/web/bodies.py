"""What is looked at of a request's body before anything is made of it: who sends it, its size, how much JSON it is.

A parser goes by the number of values, not by bytes: some MiB of `[],[],…` take it more than a second, in which nobody
else is answered. So values are counted while the body comes, without a parser; text within strings does not count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from carrel_gateway.errors import TooLarge

Admit: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[bool]]
"""Called with the scope before anything of the body is read: raises for a caller that the route would refuse, and
returns whether it knows who calls."""

ANONYMOUS_MAX_BYTES: Final = 64 * 1024
"""Of a body that somebody unknown sends: a registration or a login is a few hundred bytes."""
JSON_MAX_VALUES: Final = 50_000
"""Values and names; parsing so many takes some 20 ms, and no request but a notebook with its outputs has as many."""


class BodyMeter:
    """Counts one body; the limits are asked for again with every part."""

    def __init__(self, content_type: bytes, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        kind = content_type.partition(b";")[0].strip().lower()
        self._json = JsonMeter() if kind.endswith((b"/json", b"+json")) else None

    def take(self, part: bytes) -> None:
        """Count the next part.

        Raises
        ------
        TooLarge
            It is more than is allowed.
        """
        self.bytes += len(part)
        if self.bytes > self.limit:
            raise TooLarge(f"the body may have at most {self.limit} bytes")
        if self._json and part:
            self._json.take(part)
            if self._json.values > JSON_MAX_VALUES:
                raise TooLarge(
                    f"the JSON may hold at most {JSON_MAX_VALUES} values; of a notebook, leave the outputs out",
                    code="too_many_values",
                )


class JsonMeter:
    """Counts commas and opening brackets outside of strings, and strings. What is no JSON has some number too."""

    def __init__(self) -> None:
        self._marks = 0
        self._quotes = 0
        self._rest = b""
        """Of the last part: a backslash whose character has not come yet."""

    @property
    def values(self) -> int:
        """What was counted so far."""
        return self._marks + (self._quotes + 1) // 2

    def take(self, part: bytes) -> None:
        """Count the next part."""
        text = self._rest + part
        backslashes = len(text) - len(text.rstrip(b"\\"))
        self._rest = b"\\" if backslashes % 2 else b""
        if self._rest:
            text = text[:-1]
        if b"\\" in text and b'"' in text:
            text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = text.split(b'"')
        outside = b"".join(pieces[self._quotes % 2 :: 2])
        self._marks += len(outside) - len(outside.translate(None, b",[{"))
        self._quotes += len(pieces) - 1
