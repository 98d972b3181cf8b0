"""Looks at every statement of a database: each must be bound to a tenant, save the few that are named here."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from carrel_gateway.storage.compiled import Compiled
from carrel_gateway.storage.database import Database

WITHOUT_TENANT = re.compile(
    r"BEGIN( IMMEDIATE)?$|SELECT 1$|SELECT set_config\('role', 'carrel_(worker|login)', true\)$"
    # the lookup of accounts, which comes before there is a tenant
    r"|(SELECT [^;]*\sFROM|INSERT INTO|UPDATE) accounts\b(?![^;]*\b(FROM|JOIN|SELECT)\b)"
    # the worker's: live jobs and expired runs of all tenants
    r"|WITH due AS\s+\(SELECT jobs\.tenant_id [^;]*\sFROM jobs\s+WHERE status IN \('queued', 'running'\) AND [^;]*\)\s+"
    r"UPDATE jobs SET status=[^;]*\sFROM due WHERE jobs\.tenant_id = due\.tenant_id AND jobs\.id = due\.id RETURNING"
    r"|UPDATE jobs SET due_at=[^;]*\sWHERE jobs\.owner = \S+ AND jobs\.status = \S+ AND jobs\.id IN \("
    r"|SELECT min\(jobs\.due_at\) [^;]*\sFROM jobs\s+WHERE status IN \('queued', 'running'\) AND jobs\.kind IN \("
    r"|SELECT runs\.tenant_id, runs\.id\s+FROM runs\s+WHERE runs\.status = \S+ AND [^;]*runs\.lease_until <"
)


@contextmanager
def statements_without_tenant(database: Database) -> Generator[list[str]]:
    """Collect the statements that have no tenant among their parameters."""
    found: list[str] = []

    def look(_connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        rows = context.compiled_parameters if context.compiled is not None else [{}]
        bound = all(any(name.startswith("tenant_id") and row[name] is not None for name in row) for row in rows)
        if not (rows and bound) and not WITHOUT_TENANT.match(statement):
            found.append(statement)

    arguments = Compiled.arguments

    def look_at_step(step: Compiled, values: Mapping[str, Any]) -> list[Any]:
        if not any(name.startswith("tenant_id") and values[name] is not None for name in values):
            found.append(step.sql)
        return arguments(step, values)

    engine = database._engine.sync_engine  # pyright: ignore[reportPrivateUsage]
    event.listen(engine, "before_cursor_execute", look)
    Compiled.arguments = look_at_step  # of steps that go to the driver itself
    try:
        yield found
    finally:
        Compiled.arguments = arguments
        event.remove(engine, "before_cursor_execute", look)


@contextmanager
def statements_of(database: Database) -> Generator[list[str]]:
    """Collect the statements that are carried out, by steps and otherwise."""
    found: list[str] = []

    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    arguments = Compiled.arguments

    def look_at_step(step: Compiled, values: Mapping[str, Any]) -> list[Any]:
        found.append(step.sql)
        return arguments(step, values)

    engine = database._engine.sync_engine  # pyright: ignore[reportPrivateUsage]
    event.listen(engine, "before_cursor_execute", look)
    Compiled.arguments = look_at_step
    try:
        yield found
    finally:
        Compiled.arguments = arguments
        event.remove(engine, "before_cursor_execute", look)
