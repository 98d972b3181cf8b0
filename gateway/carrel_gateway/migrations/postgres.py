"""What migrations do on Postgres alone: roles, row-level security, partitions.

Used by the steps in `versions`; a step that makes a table calls `protect` for it, and a test fails when one does not.
"""

from __future__ import annotations

from typing import Final

from alembic import op

POLICY: Final = "tenant_id = NULLIF(current_setting('app.tenant', true), '')::uuid"
"""An unset tenant is null, and null is no row: forgetting to set it shows nothing."""


def create_roles() -> None:
    """Make the roles that are not there yet, and let the role that migrates act as them."""
    for role, options in (
        ("carrel_app", "NOLOGIN NOBYPASSRLS"),
        ("carrel_worker", "NOLOGIN NOBYPASSRLS"),
        ("carrel_migrator", "NOLOGIN BYPASSRLS"),
    ):
        # Roles belong to the whole server: another database's migration may make them at the same moment.
        op.execute(f"""
            DO $$ BEGIN
                IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{role}') THEN
                    CREATE ROLE {role} {options};
                END IF;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
            END $$
        """)  # noqa: S608  constants
    op.execute("GRANT carrel_app, carrel_worker TO CURRENT_USER")
    op.execute("GRANT USAGE ON SCHEMA public TO carrel_app, carrel_worker")


def partition_by_session(table: str, count: int) -> None:
    """Make the partitions of a table that is partitioned by hash, each as closed as the table itself."""
    for place in range(count):
        part = f"{table}_p{place:02d}"
        op.execute(f"CREATE TABLE {part} PARTITION OF {table} FOR VALUES WITH (MODULUS {count}, REMAINDER {place})")
        _force(part)


def protect(table: str) -> None:
    """Force row-level security on a table and give the application its own tenant's rows."""
    _force(table)
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO carrel_app")


def _force(table: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON {table} TO carrel_app USING ({POLICY}) WITH CHECK ({POLICY})")
