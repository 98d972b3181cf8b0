"""A time limit for what the host asks of a kernel's main thread, and objects of the user's answer.

What takes longer is interrupted by an exception that no ordinary handler catches, again and again until it gives in.
What catches even that, or runs in a compiled function that looks for no signals, is left to the host.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")

SECONDS: Final = 1.5
"""Of a question. Below the host's own limit (`carrel_kernel.introspection`), which sees only that no answer comes."""
_AGAIN_SECONDS: Final = 0.1
_LEAST_SECONDS: Final = 0.001


class TooLong(BaseException):
    """It has taken too long. Like KeyboardInterrupt no `Exception`, for user code catches those."""


def answered(question: Callable[..., T], *arguments: Any, otherwise: T) -> T:
    """Return the answer, or the other one when it takes too long or whatever is raised: a kernel does not end by it."""
    try:
        with limit(SECONDS):
            return question(*arguments)
    except BaseException:  # noqa: BLE001  user objects raise anything, SystemExit too
        return otherwise


@contextmanager
def limit(seconds: float) -> Generator[None]:
    """Raise `TooLong` in the block after so many seconds, and again until that helps.

    The user's own alarm, if there is one, is kept. Outside of the main thread there is no limit.
    """
    if seconds <= 0:
        raise TooLong
    alarm = _Alarm() if threading.current_thread() is threading.main_thread() else None
    try:
        try:
            if alarm:
                alarm.set(seconds)
            yield
        finally:
            if alarm:
                alarm.armed = False  # an alarm from here on must not keep the user's from being given back
    finally:
        if alarm:
            alarm.give_back()


class _Alarm:
    """The process's alarm clock, borrowed."""

    def __init__(self) -> None:
        self.armed = True
        self._handler = signal.getsignal(signal.SIGALRM)
        self._left, self._interval = signal.getitimer(signal.ITIMER_REAL)
        self._began = time.monotonic()

    def set(self, seconds: float) -> None:
        signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)

    def _ring(self, *_: object) -> None:
        if self.armed:
            raise TooLong

    def give_back(self) -> None:
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if self._handler is None else self._handler)
        if self._left:
            left = max(_LEAST_SECONDS, self._left - (time.monotonic() - self._began))
            signal.setitimer(signal.ITIMER_REAL, left, self._interval)
