"""What a job is, what kinds of jobs there are, and when one that failed is tried again. Pure.

A kind is known by its name, which is stored: a gateway takes only jobs of kinds that it knows, so an older and a newer
version can share a database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

Status: TypeAlias = Literal["queued", "running", "succeeded", "cancelled", "dead"]
Outcome: TypeAlias = Literal["succeeded", "retried", "dead", "cancelled", "handed_back", "lost"]

NORMAL: Final = 100
"""Priority; a lower number is taken first."""
ATTEMPTS: Final = 8
"""With the waits between them, a part may be away for five to ten minutes."""
TIMEOUT_SECONDS: Final = 600.0
_FIRST_WAIT: Final = 5.0
_LONGEST_WAIT: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Job:
    """A job, as it is stored."""

    tenant_id: UUID
    id: UUID
    kind: str
    key: str | None
    """While a job of a kind is live, there is no other one of that kind with its key in the tenant."""
    payload: dict[str, Any]
    priority: int
    status: Status
    attempts: int
    """How many were begun; one that a gateway gave back as it ended is not counted."""
    max_attempts: int
    due_at: datetime
    """While it runs: end of the lease."""
    owner: UUID | None
    """Gateway that works on it, or did last."""
    generation: int
    """Grows by one each time that a gateway takes it: what an earlier owner would write is refused."""
    cancel_requested: bool
    result: dict[str, Any] | None
    error_code: str | None
    """Of the last attempt that failed."""
    error: str | None
    request_id: str | None
    """The request that asked for it, or for its last retry."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Fence:
    """What an owner shows when it writes about a job."""

    tenant_id: UUID
    id: UUID
    generation: int


def fence_of(job: Job) -> Fence:
    """Return the fence of whoever holds this job."""
    return Fence(job.tenant_id, job.id, job.generation)


Work: TypeAlias = Callable[[Job], Awaitable[Mapping[str, Any] | None]]
"""Does a job, and returns what to keep of it: numbers, and never a secret. It may be done again after a fault."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of jobs."""

    name: str
    work: Work
    max_attempts: int = ATTEMPTS
    timeout_seconds: float = TIMEOUT_SECONDS
    """Of one attempt."""


def by_name(kinds: Sequence[Kind]) -> Mapping[str, Kind]:
    """Return kinds by their names."""
    found = {kind.name: kind for kind in kinds}
    if len(found) != len(kinds):
        raise ValueError("two kinds of jobs have the same name")
    return MappingProxyType(found)


def wait_seconds(attempts: int, draw: float) -> float:
    """Return how long a job waits after so many failed attempts.

    It doubles with each, up to an hour; half of it is drawn, so that what failed together is not tried again together.

    Parameters
    ----------
    draw
        A number from 0 to 1.
    """
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(attempts - 1, 30))
    return longest * (0.5 + draw / 2)
