"""`/api/me/usage` and `/api/usage`: what one has used, and what everybody in the tenant has."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Final, get_args
from uuid import UUID

from fastapi import APIRouter, Query

from carrel_gateway.dependencies import Usage
from carrel_gateway.errors import InvalidInput
from carrel_gateway.usage.schemas import UsageReport, UsageRow
from carrel_gateway.usage.service import Filter, Key, Used

me = APIRouter(prefix="/api/me/usage", tags=["identity"])
router = APIRouter(prefix="/api/usage", tags=["administration"])

_KEYS: Final[dict[str, Key]] = {key: key for key in get_args(Key)}
By = Annotated[str, Query(max_length=40, description="Any of day, user, session, model, separated by commas.")]
Model = Annotated[str | None, Query(max_length=200)]


@me.get("")
async def get_own_usage(
    usage: Usage,
    since: date | None = None,
    until: date | None = None,
    by: By = "day",
    session_id: UUID | None = None,
    model: Model = None,
) -> UsageReport:
    """Return what one has used of models, this month unless said otherwise."""
    wanted = _filter(since, until, session_id=session_id, model=model)
    return _report(wanted, await usage.own(wanted, _keys(by)))


@router.get("")
async def get_usage(
    usage: Usage,
    since: date | None = None,
    until: date | None = None,
    by: By = "user",
    user_id: UUID | None = None,
    team_id: UUID | None = None,
    session_id: UUID | None = None,
    model: Model = None,
) -> UsageReport:
    """Return what everybody in the tenant has used of models, this month unless said otherwise."""
    wanted = _filter(since, until, user_id=user_id, team_id=team_id, session_id=session_id, model=model)
    return _report(wanted, await usage.of_tenant(wanted, _keys(by)))


def _filter(
    since: date | None,
    until: date | None,
    *,
    user_id: UUID | None = None,
    team_id: UUID | None = None,
    session_id: UUID | None = None,
    model: str | None,
) -> Filter:
    last = until or max(datetime.now(UTC).date(), since or date.min)
    first = since or last.replace(day=1)
    if first > last:
        raise InvalidInput("`since` is after `until`; both are days in UTC, and both are included")
    return Filter(first, last, user_id=user_id, team_id=team_id, session_id=session_id, model=model)


def _keys(by: str) -> list[Key]:
    words = list(dict.fromkeys(by.split(",")))
    unknown = [word for word in words if word not in _KEYS]
    if unknown:
        raise InvalidInput(f"`by` is any of {', '.join(_KEYS)}, separated by commas, and not {unknown[0]!r}")
    return [_KEYS[word] for word in words]


def _report(wanted: Filter, found: list[Used]) -> UsageReport:
    return UsageReport(since=wanted.since, until=wanted.until, items=[UsageRow.of(used) for used in found])
