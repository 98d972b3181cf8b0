"""The one `MetaData` of all tables; the tables themselves are in the features' `tables.py`.

Every table has `tenant_id`, first in every unique key and part of every foreign key.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Column, MetaData, Uuid

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def tenant_column() -> Column[UUID]:
    """Return the column that every table begins with."""
    return Column("tenant_id", Uuid(), primary_key=True)


def uuid_column(name: str, **options: Any) -> Column[UUID]:
    """Return a column of ids; not null unless said otherwise."""
    return Column(name, Uuid(), nullable=options.pop("nullable", False), **options)
