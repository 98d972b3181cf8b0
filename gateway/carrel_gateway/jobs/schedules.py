"""Jobs that come again and again: one for each due time, however many gateways there are.

Due times are multiples of an interval by the database's clock, and a job's id is made of its kind, its tenant and its
due time. So gateways need not agree on who stores it: of several that do, one finds it new. Nothing drifts, and what
came due while no gateway was there comes once, not once for each time that was missed.

Every ten minutes one job is stored that stores all others, for each tenant: that there are many tenants is work for one
gateway, and not for each of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog

from carrel_gateway.context import ProcessContext
from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.identity.tenants import all_tenants, worker_of
from carrel_gateway.jobs.model import ATTEMPTS, NORMAL, Job, Kind
from carrel_gateway.jobs.service import JobService, NewJob

TICK_SECONDS: Final = 600
PLAN: Final = "jobs.plan"
_KEY: Final = "schedule"
"""What is not done when its next time comes is not stored a second time."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often there is a job of a kind."""

    kind: str
    every_seconds: int
    """A multiple of `TICK_SECONDS`."""
    once: bool = False
    """One for the installation, in the default tenant, and not one for each tenant."""


def begin_of(time: datetime, every_seconds: int) -> int:
    """Return the due time that is now, or was last, in seconds since 1970."""
    now = int(time.timestamp())
    return now - now % every_seconds


def id_of(tenant_id: UUID, kind: str, due: int) -> UUID:
    """Return the id of the job of a due time: a UUIDv7 of that time, the same for whoever asks."""
    drawn = int.from_bytes(hashlib.sha256(f"{tenant_id}\n{kind}\n{due}".encode()).digest()[:10], "big")
    version, variant = 0x7 << 76, 0b10 << 62
    return UUID(int=(due * 1000) << 80 | version | (drawn >> 68 & 0xFFF) << 64 | variant | drawn & (1 << 62) - 1)


class Planner:
    """Stores the jobs of schedules.

    Parameters
    ----------
    tenants
        Returns the tenants that there are.
    plan
        Name of the kind of the job that stores the others.
    """

    def __init__(
        self,
        context: ProcessContext,
        schedules: Sequence[Schedule],
        *,
        tenants: Callable[[], Awaitable[Sequence[UUID]]] | None = None,
        plan: str = PLAN,
    ) -> None:
        self._context = context
        self._schedules = schedules
        self._tenants = tenants or (lambda: all_tenants(context.database))
        self._plan = plan
        self._planned = 0

    @property
    def kind(self) -> Kind:
        """The kind of the job that stores the others."""
        return Kind(self._plan, self._store_all)

    async def tick(self, now: datetime) -> None:
        """Store the job that stores the others when its next time has come.

        Parameters
        ----------
        now
            Time by the database's clock.
        """
        due = begin_of(now, TICK_SECONDS)
        if due != self._planned:
            await self._jobs(DEFAULT_TENANT_ID).add([_job(DEFAULT_TENANT_ID, self._plan, due, key=None)])
            self._planned = due

    async def _store_all(self, job: Job) -> dict[str, Any]:
        now = job.started_at or job.created_at
        stored = failed = 0
        for tenant_id in await self._tenants():
            try:
                stored += await self._jobs(tenant_id).add(self._due(tenant_id, now))
            except Exception as error:  # noqa: BLE001 - the other tenants must have their turn; this one has the next
                _log.warning("jobs_not_planned", tenant=str(tenant_id), error=type(error).__name__)
                failed += 1
        return {"stored": stored, "tenants_failed": failed}

    def _due(self, tenant_id: UUID, now: datetime) -> list[NewJob]:
        return [
            _job(tenant_id, schedule.kind, begin_of(now, schedule.every_seconds), key=_KEY)
            for schedule in self._schedules
            if tenant_id == DEFAULT_TENANT_ID or not schedule.once
        ]

    def _jobs(self, tenant_id: UUID) -> JobService:
        return JobService(self._context, worker_of(tenant_id))


def _job(tenant_id: UUID, kind: str, due: int, *, key: str | None) -> NewJob:
    return NewJob(id_of(tenant_id, kind, due), kind, {}, max_attempts=ATTEMPTS, priority=NORMAL, key=key)
