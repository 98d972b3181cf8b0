"""A time limit for questions that are answered in a kernel's main thread, by objects of the user's.

What takes longer is interrupted by an exception that no ordinary handler catches, again and again until it gives in.
What catches even that, or runs in a compiled function that looks for no signals, is left to the host.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

SECONDS: Final = 1.5
"""Below the host's own limit (`carrel_kernel.introspection`), which sees only that no answer comes."""
_AGAIN_SECONDS: Final = 0.1
_LEAST_SECONDS: Final = 0.001


class TooLong(BaseException):
    """The question has taken too long. Like KeyboardInterrupt no `Exception`, for user code catches those."""


def answered(question: Callable[..., T], *arguments: Any, otherwise: T) -> T:
    """Return the answer, or the other one when it takes too long or whatever is raised: a kernel does not end by it.

    The user's own alarm, if there is one, is kept. Outside of the main thread there is no limit.
    """
    alarm = _Alarm() if threading.current_thread() is threading.main_thread() else None
    try:
        try:
            if alarm:
                alarm.set()
            return question(*arguments)
        finally:
            if alarm:
                alarm.armed = False
    except BaseException:  # noqa: BLE001  user objects raise anything, SystemExit too
        return otherwise
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

    def set(self) -> None:
        signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, SECONDS, _AGAIN_SECONDS)

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
