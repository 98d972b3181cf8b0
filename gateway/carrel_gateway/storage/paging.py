"""Pages of lists: opaque cursors, and what a page is.

A cursor says which list it belongs to and where the next page begins. It is no secret and no right: the tenant, the
session and the filters come from the request alone, so that a cursor that somebody made up reads at most what its
maker could read anyway. One that was made for another list, or for another session, is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

import msgspec

from carrel_gateway.errors import InvalidInput

T = TypeVar("T")
U = TypeVar("U")

MAX_CURSOR: Final = 4096
"""Characters; a cursor may hold the name of a file."""
_CHECK_BYTES: Final = 6

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00]*$")]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list; `next_cursor` is none on the last page."""

    items: list[T]
    next_cursor: str | None = None


@dataclass(frozen=True)
class Cursors(Generic[T]):
    """The cursors of one kind of list."""

    kind: str
    """Name of the list; a cursor of another list is refused."""
    shape: Any
    """What a place in the list is, as msgspec checks it."""

    def write(self, place: T, *scope: UUID | str | None) -> str:
        """Return the cursor of the page after a place.

        Parameters
        ----------
        scope
            What the list is of, such as a session, and how it is filtered: the same for all of its pages.
        """
        packed = msgspec.msgpack.encode(place)
        return base64.urlsafe_b64encode(self._check(scope, packed) + packed).rstrip(b"=").decode()

    def read(self, cursor: str, *scope: UUID | str | None) -> T:
        """Return the place that a cursor stands for.

        Raises
        ------
        InvalidInput
            It is none that this list gave out.
        """
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            check, packed = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
            place: T = msgspec.msgpack.decode(packed, type=self.shape)
        except (ValueError, binascii.Error, msgspec.DecodeError) as error:
            raise _not_ours() from error
        if check != self._check(scope, packed):
            raise _not_ours()
        return place

    def page(self, found: Sequence[U], limit: int, place: Callable[[U], T], *scope: UUID | str | None) -> Page[U]:
        """Return the page of a query that asked for one more than `limit`."""
        items = list(found[:limit])
        return Page(items, self.write(place(items[-1]), *scope) if len(found) > limit else None)

    def _check(self, scope: Sequence[UUID | str | None], packed: bytes) -> bytes:
        text = "\n".join([self.kind, *("" if part is None else str(part) for part in scope)])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass") + b"\0" + packed).digest()[:_CHECK_BYTES]


def _not_ours() -> InvalidInput:
    return InvalidInput("this cursor is not one that this list returned; start again without it", code="invalid_cursor")
