"""Queries of the ledger: how a call gets into it, and sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from sqlalchemy import BigInteger, Executable, Integer, String, Uuid, bindparam, cast, func, select
from sqlalchemy.dialects import postgresql, sqlite

from carrel_gateway.history.events import StoredEvent
from carrel_gateway.identity.tables import team_members
from carrel_gateway.runs.tables import runs
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.types import PlainText, UtcDateTime
from carrel_gateway.usage.tables import usage
from carrel_wire.log import ModelCalled

Key: TypeAlias = Literal["day", "user", "session", "model"]
MICROS: Final = 1_000_000
_COLUMNS: Final = {
    "day": usage.c.day,
    "user": usage.c.user_id,
    "session": usage.c.session_id,
    "model": usage.c.model,
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls; none means all."""

    since: date
    until: date
    """The last day."""
    user_id: UUID | None = None
    team_id: UUID | None = None
    """Those of who is a member now."""
    session_id: UUID | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """What some calls add up to; a key is none where they were not told apart by it."""

    day: str | None
    user_id: UUID | None
    session_id: UUID | None
    model: str | None
    calls: int
    input_tokens: int
    output_tokens: int
    cost_micros: int
    """Of the calls whose price is known."""
    unpriced: int
    """Calls whose price is not known."""


def entry(dialect: str, tenant_id: UUID, event: StoredEvent, called: ModelCalled) -> tuple[Executable, dict[str, Any]]:
    """Return the statement that enters a call, once, for whoever asked in its run.

    A call that a fork has taken over from another session is entered there alone: its run is not the fork's.
    """
    return _insert(dialect), {
        "tenant_id_of": tenant_id,
        "of_run": called.run_id,
        "of_session": event.session_id,
        "entry": event.id,
        "on_day": event.created_at.date().isoformat(),
        "of_model": called.model,
        "tokens_in": called.input_tokens or 0,
        "tokens_out": called.output_tokens or 0,
        "micros": None if called.cost is None else round(called.cost * MICROS),
        "at": event.created_at,
    }


@cache
def _insert(dialect: str) -> Executable:
    columns = {
        "tenant_id": runs.c.tenant_id,
        "id": bindparam("entry", type_=Uuid()),
        "session_id": runs.c.session_id,
        "run_id": runs.c.id,
        "user_id": runs.c.user_id,
        "day": bindparam("on_day", type_=String(10)),
        "model": bindparam("of_model", type_=PlainText()),
        "input_tokens": bindparam("tokens_in", type_=BigInteger()),
        "output_tokens": bindparam("tokens_out", type_=BigInteger()),
        "cost_micros": bindparam("micros", type_=BigInteger()),
        "created_at": bindparam("at", type_=UtcDateTime()),
    }
    called = select(*columns.values()).where(
        runs.c.tenant_id == bindparam("tenant_id_of"),
        runs.c.id == bindparam("of_run"),
        runs.c.session_id == bindparam("of_session"),
    )
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(usage).from_select(list(columns), called).on_conflict_do_nothing()


async def sums(tx: Transaction, wanted: Filter, by: Sequence[Key], *, limit: int) -> list[Used]:
    """Return the sums of some calls, told apart by some keys and sorted by them."""
    keys = [_COLUMNS[key] for key in by]
    query = select(
        *keys,
        func.count(),
        cast(func.sum(usage.c.input_tokens), BigInteger),
        cast(func.sum(usage.c.output_tokens), BigInteger),
        cast(func.coalesce(func.sum(usage.c.cost_micros), 0), BigInteger),
        cast(func.count() - func.count(usage.c.cost_micros), Integer),
    ).where(
        usage.c.tenant_id == tx.tenant_id,
        usage.c.day >= wanted.since.isoformat(),
        usage.c.day <= wanted.until.isoformat(),
    )
    for column, value in (
        (usage.c.user_id, wanted.user_id),
        (usage.c.session_id, wanted.session_id),
        (usage.c.model, wanted.model),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.team_id is not None:
        members = select(team_members.c.user_id).where(
            team_members.c.tenant_id == tx.tenant_id, team_members.c.team_id == wanted.team_id
        )
        query = query.where(usage.c.user_id.in_(members))
    rows = await tx.connection.execute(query.group_by(*keys).order_by(*keys).having(func.count() > 0).limit(limit))
    return [_used(by, row) for row in rows]


def _used(by: Sequence[Key], row: Sequence[Any]) -> Used:
    known = dict(zip(by, row, strict=False))
    return Used(known.get("day"), known.get("user"), known.get("session"), known.get("model"), *row[len(by) :])
