"""Pages of lists: opaque cursors, and what a page is."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from carrel_gateway.errors import InvalidInput

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list; `next_cursor` is none on the last page."""

    items: list[T]
    next_cursor: str | None = None


def cursor_of(last: UUID) -> str:
    """Return the cursor of the page after the item with this id."""
    return base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def read_cursor(cursor: str) -> UUID:
    """Return the id that a cursor stands for.

    Raises
    ------
    InvalidInput
        It is none of ours.
    """
    try:
        return UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True))
    except (ValueError, binascii.Error) as error:
        raise InvalidInput(
            "this cursor is not one that a list returned; start again without it", code="invalid_cursor"
        ) from error
