"""SQLAlchemy's statements, compiled once to what a driver takes: text, the order of parameters, conversions of types.

So each query has one definition, whichever way it goes: through SQLAlchemy's connection, or to the driver itself.
Statements that change their text with their values (`IN` over a list) or that have defaults made in Python are not for
this, and are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

from sqlalchemy import Dialect, Executable
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.sql.compiler import SQLCompiler

from carrel_gateway.storage.steps import Rows, Values

Convert: TypeAlias = Callable[[Any], Any]

_DIALECTS: Final[dict[str, Dialect]] = {"postgresql": PGDialect_asyncpg(), "sqlite": SQLiteDialect_aiosqlite()}
_KEPT: Final = 512
"""Statements are built once, so there are not many; one that is built again and again pushes out only others."""


class Compiled:
    """One statement for one driver."""

    __slots__ = ("_converted", "_parameters", "sql")

    def __init__(self, compiler: SQLCompiler, dialect: Dialect, names: frozenset[str]) -> None:
        self.sql = str(compiler)
        if compiler.post_compile_params or compiler.insert_prefetch or compiler.update_prefetch:
            raise ValueError(f"a statement whose text or values are made anew each time: {self.sql}")
        constants = compiler.construct_params(_check=False)
        binds = [(name, compiler.binds[name]) for name in compiler.positiontup or ()]
        missing = [name for name, bind in binds if bind.required and name not in names]
        if missing:
            raise ValueError(f"no value for {', '.join(missing)} of: {self.sql}")
        self._parameters: list[tuple[str, Any, Convert | None]] = [
            (name, constants[name], bind.type.dialect_impl(dialect).bind_processor(dialect)) for name, bind in binds
        ]
        columns: list[Convert | None] = [
            column.type.dialect_impl(dialect).result_processor(dialect, None)
            for column in compiler._result_columns  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  there is no other way to the types of what a statement returns
        ]
        self._converted = [(place, convert) for place, convert in enumerate(columns) if convert is not None]

    def arguments(self, values: Values) -> list[Any]:
        """Return the parameters in the order in which the driver wants them."""
        found: list[Any] = []
        for name, constant, convert in self._parameters:
            value = values.get(name, constant)
            found.append(value if convert is None else convert(value))
        return found

    def rows(self, fetched: Sequence[Sequence[Any]]) -> Rows:
        """Return the rows with the types of their columns."""
        if not self._converted:
            return fetched
        found = [list(row) for row in fetched]
        for place, convert in self._converted:
            for row in found:
                row[place] = convert(row[place])
        return found


@lru_cache(_KEPT)
def compiled(statement: Executable, names: frozenset[str], dialect: str) -> Compiled:
    """Return a statement that is given values of these names, for `postgresql` (asyncpg) or `sqlite`.

    Raises
    ------
    ValueError
        Its text or its values depend on more than that.
    """
    known = _DIALECTS[dialect]
    compile_: Any = getattr(statement, "compile")  # noqa: B009  every statement has it; `Executable` does not say so
    made = compile_(dialect=known, column_keys=sorted(names))
    return Compiled(made, known, names)
