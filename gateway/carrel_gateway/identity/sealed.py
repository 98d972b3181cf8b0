"""Columns of encrypted text: how what is in one is bound to its row, and encrypted anew by another key. Pure.

A row that is copied to where it does not belong cannot be opened there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Table

from carrel_gateway.identity.secrets import MasterKeys

Row: TypeAlias = Mapping[Any, Any]
"""Column → value."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A table with a column `sealed`."""

    table: Table
    use: str
    """Name of the use, for which each of the installation's keys gives a key of its own."""
    bound_to: Callable[[Row], str]
    """Returns what the text of a row is bound to."""
    told: Callable[[Row], str]
    """Returns what people call a row; holds nothing of the text."""

    def seal(self, secrets: MasterKeys, row: Row, plain: bytes) -> str:
        """Return what a row is to hold, encrypted by the installation's newest key."""
        return secrets.seal(self.use, plain, bound_to=self.bound_to(row))

    def unseal(self, secrets: MasterKeys, row: Row) -> bytes:
        """Return what a row holds.

        Raises
        ------
        Unsealable
            It was encrypted by a key that is gone, or for something else, or is damaged.
        """
        return secrets.unseal(self.use, row["sealed"], bound_to=self.bound_to(row))

    def resealed(self, secrets: MasterKeys, row: Row) -> str | None:
        """Return what a row holds, encrypted by the newest key; none where it is already.

        Raises
        ------
        Unsealable
            It cannot be opened.
        """
        if secrets.sealed_by_newest(row["sealed"]):
            return None
        return self.seal(secrets, row, self.unseal(secrets, row))
