"""When a session ends by itself: its shutdown time, its longest life, its idleness. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from carrel_api.session import AgentSession
from carrel_api.session_class import LifeLimits


@dataclass(frozen=True)
class Ending:
    """The earliest end that the clock alone decides."""

    at: datetime
    message: str


def ending(session: AgentSession, limits: LifeLimits) -> Ending | None:
    """Return when the session's life is over, idle or not."""
    spec, made = session.spec, session.metadata.creation_timestamp
    ends: list[Ending] = []
    if spec.shutdown_time is not None:
        ends.append(Ending(spec.shutdown_time, "the session's shutdownTime has come"))
    longest = lower(spec.max_lifetime_seconds, limits.max_lifetime_seconds)
    if longest is not None and made is not None:
        ends.append(Ending(made + timedelta(seconds=longest), f"the session is older than {longest} s"))
    return min(ends, key=lambda end: end.at, default=None)


def idle_timeout(session: AgentSession, limits: LifeLimits) -> timedelta | None:
    """Return how long the session may idle; none means for ever."""
    seconds = lower(session.spec.idle_timeout_seconds, limits.idle_timeout_seconds)
    return None if seconds is None else timedelta(seconds=seconds)


def lower(first: int | None, second: int | None) -> int | None:
    """Return the lower of two bounds, either of which may be missing."""
    return min((bound for bound in (first, second) if bound is not None), default=None)
