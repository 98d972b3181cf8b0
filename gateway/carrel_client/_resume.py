"""Where the stream of a run is, and when to ask for the rest of it. Sends nothing and waits for nothing itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from carrel_client import _calls as calls
from carrel_client._errors import ApiProblem, CarrelClientError, ConnectionFailed, UnexpectedReply
from carrel_client._models import Event

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 60.0
"""A gateway that is replaced is back within that; it counts from the last event on."""
RUN_HEADER: Final = "Carrel-Run-Id"
_PASSING: Final = frozenset({429, 502, 503, 504})
"""What a server that starts or stops, or a proxy before it, answers."""


class RunStream:
    """The stream of the run that a message begins.

    Parameters
    ----------
    session_id, message
        What is sent, once.
    begins_after
        Number of the session's last event before the message.
    queue
        It may wait for the end of a run that is going on.
    clock
        Seconds that only go on.
    """

    def __init__(
        self,
        session_id: str,
        message: str,
        begins_after: int,
        *,
        queue: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session_id = session_id
        self._message = message
        self._queue = queue
        self._after = begins_after
        self._clock = clock
        self._run_id: str | None = None
        self._asking_since: float | None = None
        self._without = 0.0
        self._next_pause = FIRST_PAUSE_SECONDS

    def call(self) -> calls.Call:
        """Return what to ask now: to send the message, or for what comes after the last event."""
        self._asking_since = self._clock()
        if self._run_id is None:
            return calls.chat_stream(self._session_id, self._message, queue=self._queue)
        return calls.resumed_stream(self._session_id, self._after, self._run_id)

    def opened(self, headers: Mapping[str, str]) -> None:
        """Take note that the stream began; a run may be silent for long, so how long it stands does not count."""
        self._asking_since = None
        self._run_id = headers.get(RUN_HEADER, self._run_id)

    def took(self, event: Event) -> bool:
        """Take note of an event, and return whether it is the last one."""
        self._after = event.seq or self._after
        self._without, self._next_pause = 0.0, FIRST_PAUSE_SECONDS
        return event.type == "run.finished" and event.payload.get("run_id") == self._run_id

    def pause(self, error: CarrelClientError | None) -> float:
        """Return how many seconds to wait before asking for the rest of a stream that failed or just ended.

        Raises
        ------
        CarrelClientError
            The message may not have arrived, the server refuses, or nothing came for too long.
        """
        if self._run_id is None:
            raise error or ConnectionFailed("the stream ended before the run did")
        if error is not None and not _passes(error):
            raise error
        if self._asking_since is not None:
            self._without += self._clock() - self._asking_since
        if self._without >= PATIENCE_SECONDS:
            raise ConnectionFailed("the stream was cut again and again; the run goes on, see its events") from error
        pause = self._next_pause
        self._without += pause
        self._next_pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return pause


def _passes(error: CarrelClientError) -> bool:
    """Return whether waiting may help."""
    if isinstance(error, ApiProblem | UnexpectedReply):
        return error.status in _PASSING
    return isinstance(error, ConnectionFailed)
