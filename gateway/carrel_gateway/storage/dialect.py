"""Every difference between SQLite and Postgres, and the tenant's boundary on each.

SQLite belongs to one process and knows no roles, so repositories filter by tenant and that is all. On Postgres the same
filters are there, and below them row-level security: a transaction works as `carrel_app` for one tenant, or as
`carrel_worker`, which can take live jobs, read expired runs, and nothing else, or as `carrel_login`, which can look
accounts up. All are members' roles of whoever logs in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, cast, func, literal, null, text, type_coerce
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import BigInteger, Interval, LargeBinary, String, Text, Uuid

from carrel_gateway.storage.search import Found, SearchQuery, search_postgres, search_sqlite
from carrel_gateway.storage.steps import Steps, scalar
from carrel_gateway.storage.types import UtcDateTime

APP_ROLE: Final = "carrel_app"
WORKER_ROLE: Final = "carrel_worker"
LOGIN_ROLE: Final = "carrel_login"
MIGRATOR_ROLE: Final = "carrel_migrator"


@dataclass(frozen=True, slots=True)
class NewEvents:
    """Events to append, in order, as columns; the numbers are given by the database."""

    tenant_id: UUID
    session_id: UUID
    actor: str
    created_at: datetime
    ids: list[UUID]
    parent_ids: list[UUID | None]
    types: list[str]
    payloads: list[str]
    run_id: UUID | None = None
    """With `generation`: append only while this run goes on under this generation."""
    generation: int | None = None


class Dialect(Protocol):
    """What differs."""

    name: str
    shared: bool
    """Whether other processes may use the database at the same time."""

    def now(self) -> ColumnElement[datetime]:
        """Return the time by the clock that all processes share."""
        ...

    def clock(self) -> ColumnElement[datetime | None]:
        """Return the same for a statement that is built once; null where it is this process's own clock."""
        ...

    def later(self, seconds: float) -> ColumnElement[datetime]:
        """Return that time in so many seconds."""
        ...

    async def begin(self, connection: AsyncConnection, tenant_id: UUID) -> None:
        """Bind the transaction to a tenant."""
        ...

    async def begin_worker(self, connection: AsyncConnection) -> None:
        """Bind the transaction to the rights of the worker."""
        ...

    async def begin_login(self, connection: AsyncConnection) -> None:
        """Bind the transaction to the rights of the lookup of accounts."""
        ...

    def octets(self, column: ColumnElement[str]) -> ColumnElement[int]:
        """Return the size of a text in bytes, which is known without reading the text where it is long."""
        ...

    async def search(self, connection: AsyncConnection, query: SearchQuery) -> list[Found]:
        """Return the messages and cells that have all words, newest first."""
        ...

    def append(self, new: NewEvents) -> Steps[int | None]:
        """Append, and return the last number; none when there is no such session, or the run is another's."""
        ...


_BEGIN: Final = text(f"SELECT set_config('role', '{APP_ROLE}', true), set_config('app.tenant', :tenant_id, true)")
_BEGIN_WORKER: Final = text(f"SELECT set_config('role', '{WORKER_ROLE}', true)")
_BEGIN_LOGIN: Final = text(f"SELECT set_config('role', '{LOGIN_ROLE}', true)")


def _append_statement(fenced: bool) -> str:
    """Return the one statement of an append.

    The run is locked before the session, as everywhere: whoever takes the run over waits for this append, or this
    append sees the new generation and adds nothing.
    """
    held = (
        "held AS (SELECT 1 AS one FROM runs WHERE tenant_id = :tenant_id AND id = :run_id AND generation = :generation"
        " AND status = 'running' FOR SHARE),"
        if fenced
        else ""
    )
    return f"""
        WITH {held} moved AS (
            UPDATE sessions SET last_seq = last_seq + :count, updated_at = :now
            {"FROM held" if fenced else ""}
            WHERE tenant_id = :tenant_id AND id = :session_id AND status <> 'deleted'
            RETURNING last_seq
        ), added AS (
            INSERT INTO events (tenant_id, session_id, seq, id, parent_id, type, actor, payload, created_at)
            SELECT :tenant_id, :session_id, moved.last_seq - :count + item.place,
                item.id, item.parent_id, item.type, :actor, item.payload, :now
            FROM moved, unnest(:ids, :parent_ids, :types, :payloads)
                WITH ORDINALITY AS item(id, parent_id, type, payload, place)
        )
        SELECT last_seq FROM moved
    """  # noqa: S608  built of constants


_APPEND_BINDS: Final = (
    bindparam("tenant_id", type_=Uuid()),
    bindparam("session_id", type_=Uuid()),
    bindparam("count", type_=BigInteger()),
    bindparam("now", type_=UtcDateTime()),
    bindparam("actor", type_=String()),
    bindparam("ids", type_=ARRAY(Uuid())),
    bindparam("parent_ids", type_=ARRAY(Uuid())),
    bindparam("types", type_=ARRAY(Text())),
    bindparam("payloads", type_=ARRAY(Text())),
)
_FENCE_BINDS: Final = (bindparam("run_id", type_=Uuid()), bindparam("generation", type_=BigInteger()))
_APPEND: Final = text(_append_statement(fenced=False)).bindparams(*_APPEND_BINDS)
_APPEND_FENCED: Final = text(_append_statement(fenced=True)).bindparams(*_APPEND_BINDS, *_FENCE_BINDS)


class PostgresDialect:
    """Postgres: many processes, row-level security, one statement for an append."""

    name = "postgresql"
    shared = True

    def now(self) -> ColumnElement[datetime]:
        """Return the server's clock, which moves on within a transaction."""
        return func.clock_timestamp(type_=UtcDateTime())

    def clock(self) -> ColumnElement[datetime | None]:
        """Return the server's clock."""
        return func.clock_timestamp(type_=UtcDateTime())

    def later(self, seconds: float) -> ColumnElement[datetime]:
        """Return the server's clock in so many seconds."""
        later = func.clock_timestamp() + literal(timedelta(seconds=seconds), Interval())
        return type_coerce(later, UtcDateTime())

    async def begin(self, connection: AsyncConnection, tenant_id: UUID) -> None:
        """Take the application's role and the tenant, for this transaction only."""
        await connection.execute(_BEGIN, {"tenant_id": str(tenant_id)})

    async def begin_worker(self, connection: AsyncConnection) -> None:
        """Take the worker's role, for this transaction only."""
        await connection.execute(_BEGIN_WORKER)

    async def begin_login(self, connection: AsyncConnection) -> None:
        """Take the role that looks accounts up, for this transaction only."""
        await connection.execute(_BEGIN_LOGIN)

    def octets(self, column: ColumnElement[str]) -> ColumnElement[int]:
        """Return the size; a text that is stored elsewhere has it in its row."""
        return func.octet_length(column, type_=BigInteger())

    async def search(self, connection: AsyncConnection, query: SearchQuery) -> list[Found]:
        """Ask the index."""
        return await search_postgres(connection, query)

    def append(self, new: NewEvents) -> Steps[int | None]:
        """Append in one statement."""
        values = {
            "tenant_id": new.tenant_id,
            "session_id": new.session_id,
            "count": len(new.ids),
            "now": new.created_at,
            "actor": new.actor,
            "ids": new.ids,
            "parent_ids": new.parent_ids,
            "types": new.types,
            "payloads": new.payloads,
        }
        if new.run_id is None:
            return scalar(_APPEND, values)
        return scalar(_APPEND_FENCED, {**values, "run_id": new.run_id, "generation": new.generation})


_MOVE = """
    UPDATE sessions SET last_seq = last_seq + :count, updated_at = :now
    WHERE tenant_id = :tenant_id AND id = :session_id AND status <> 'deleted'
"""
_HELD = """
    AND EXISTS (SELECT 1 FROM runs WHERE tenant_id = :tenant_id AND id = :run_id
        AND generation = :generation AND status = 'running')
"""
_MOVE_BINDS: Final = _APPEND_BINDS[:4]
_SQLITE_MOVE: Final = text(f"{_MOVE} RETURNING last_seq").bindparams(*_MOVE_BINDS)
_SQLITE_MOVE_FENCED: Final = text(f"{_MOVE} {_HELD} RETURNING last_seq").bindparams(*_MOVE_BINDS, *_FENCE_BINDS)
_SQLITE_ADD: Final = text(
    "INSERT INTO events (tenant_id, session_id, seq, id, parent_id, type, actor, payload, created_at)"
    " VALUES (:tenant_id, :session_id, :seq, :id, :parent_id, :type, :actor, :payload, :now)"
).bindparams(
    bindparam("tenant_id", type_=Uuid()),
    bindparam("session_id", type_=Uuid()),
    bindparam("id", type_=Uuid()),
    bindparam("parent_id", type_=Uuid()),
    bindparam("now", type_=UtcDateTime()),
)


class SqliteDialect:
    """SQLite: this process alone, one writer at a time; its UPDATE cannot stand in a common table expression."""

    name = "sqlite"
    shared = False

    def now(self) -> ColumnElement[datetime]:
        """Return this process's clock."""
        return bindparam(None, datetime.now(UTC), type_=UtcDateTime())

    def clock(self) -> ColumnElement[datetime | None]:
        """Return null: whoever reads it looks at the clock."""
        return type_coerce(null(), UtcDateTime())

    def later(self, seconds: float) -> ColumnElement[datetime]:
        """Return this process's clock in so many seconds."""
        return bindparam(None, datetime.now(UTC) + timedelta(seconds=seconds), type_=UtcDateTime())

    async def begin(self, connection: AsyncConnection, tenant_id: UUID) -> None:
        """Do nothing: repositories filter by tenant."""

    async def begin_worker(self, connection: AsyncConnection) -> None:
        """Do nothing: there are no roles."""

    async def begin_login(self, connection: AsyncConnection) -> None:
        """Do nothing: there are no roles."""

    def octets(self, column: ColumnElement[str]) -> ColumnElement[int]:
        """Return the size; older versions of SQLite have a function for blobs alone."""
        return func.length(cast(column, LargeBinary()), type_=BigInteger())

    async def search(self, connection: AsyncConnection, query: SearchQuery) -> list[Found]:
        """Read the texts."""
        return await search_sqlite(connection, query)

    def append(self, new: NewEvents) -> Steps[int | None]:
        """Append in two statements; nobody can come between in a write transaction."""
        count = len(new.ids)
        same = {"tenant_id": new.tenant_id, "session_id": new.session_id, "now": new.created_at}
        move = {**same, "count": count}
        if new.run_id is None:
            last: int | None = yield from scalar(_SQLITE_MOVE, move)
        else:
            fence = {"run_id": new.run_id, "generation": new.generation}
            last = yield from scalar(_SQLITE_MOVE_FENCED, {**move, **fence})
        if last is None:
            return None
        columns = zip(new.ids, new.parent_ids, new.types, new.payloads, strict=True)
        rows = [
            {**same, "actor": new.actor, "seq": seq, "id": own, "parent_id": parent, "type": kind, "payload": payload}
            for seq, (own, parent, kind, payload) in enumerate(columns, last - count + 1)
        ]
        yield _SQLITE_ADD, rows
        return last
