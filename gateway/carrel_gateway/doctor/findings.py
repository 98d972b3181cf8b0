"""What a check found, and the exception that ends one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "missing", "unknown"]
"""`unknown` is what cannot be told from here."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    status: Status
    found: str
    """What is so; without secrets."""
    advice: str = ""
    """How to get what is missing, or to know what is unknown."""


class Missing(Exception):
    """Something is not there."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.found = found
        self.advice = advice


class Unknown(Exception):
    """It cannot be told from here."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.found = found
        self.advice = advice
