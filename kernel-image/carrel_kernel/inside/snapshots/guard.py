"""Bounds on what objects of the session's do while they are pickled and unpickled: they may raise, hang, or lie."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

_AGAIN_SECONDS: Final = 0.5
"""Code that catches the first alarm gets another."""
_MAX_REASON: Final = 200
NO_TIME: Final = "there was no time left for it"


class DeadlinePassed(BaseException):
    """The time is up; no `except Exception` of an object's catches it."""


@contextmanager
def deadline(seconds: float) -> Generator[None]:
    """Raise `DeadlinePassed` in the block after so many seconds; a user's own timer is put back afterwards.

    Main thread only: that is where signals are handled.
    """
    armed = True

    def alarm(_signal: int, _frame: object) -> None:
        if armed:
            raise DeadlinePassed

    if seconds <= 0:
        raise DeadlinePassed
    before = signal.signal(signal.SIGALRM, alarm)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
    try:
        try:
            yield
        finally:
            armed = False  # an alarm from here on must not keep the timer from being put back
    finally:
        signal.setitimer(signal.ITIMER_REAL, remaining, interval)
        signal.signal(signal.SIGALRM, before)


def reason_of(error: BaseException) -> str:
    """Return a short text of an error, whose own text may fail."""
    if isinstance(error, DeadlinePassed):
        return NO_TIME
    kind = type_name(error)
    try:
        return f"{kind}: {error}"[:_MAX_REASON]
    except Exception:  # noqa: BLE001  the error is one of the session's
        return kind


def type_name(value: Any) -> str:
    """Return the name of an object's type, whatever its metaclass says of it."""
    return str(type.__dict__["__name__"].__get__(type(value)))[:_MAX_REASON]
