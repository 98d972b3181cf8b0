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
    _create_role("carrel_app", "NOLOGIN NOBYPASSRLS")
    _create_role("carrel_worker", "NOLOGIN NOBYPASSRLS")
    _create_role("carrel_migrator", "NOLOGIN BYPASSRLS")
    op.execute("GRANT carrel_app, carrel_worker TO CURRENT_USER")
    op.execute("GRANT USAGE ON SCHEMA public TO carrel_app, carrel_worker")


def create_login_role() -> None:
    """Make the role that looks accounts up before there is a tenant."""
    _create_role("carrel_login", "NOLOGIN NOBYPASSRLS")
    op.execute("GRANT carrel_login TO CURRENT_USER")
    op.execute("GRANT USAGE ON SCHEMA public TO carrel_login")


def open_to_login(table: str) -> None:
    """Close a table without a tenant to everybody but the role that looks accounts up; it may delete nothing."""
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY lookup ON {table} TO carrel_login USING (true) WITH CHECK (true)")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON {table} TO carrel_login")


def open_to_worker(table: str, live: str, columns: str) -> None:
    """Let the worker see the live rows of all tenants, and change only who has them; they are alive after it, too."""
    op.execute(f"CREATE POLICY work ON {table} TO carrel_worker USING ({live}) WITH CHECK ({live})")
    op.execute(f"GRANT SELECT, UPDATE ({columns}) ON {table} TO carrel_worker")


def _create_role(role: str, options: str) -> None:
    # Roles belong to the whole server: another database's migration may make them at the same moment.
    op.execute(f"""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{role}') THEN
                CREATE ROLE {role} {options};
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END $$
    """)  # noqa: S608  constants


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


def protect_appended(table: str) -> None:
    """Force row-level security on a table of which the application may add and read its own tenant's rows, only."""
    _force(table)
    op.execute(f"GRANT SELECT, INSERT ON {table} TO carrel_app")


def protect_kept(table: str) -> None:
    """Force row-level security on a table of which the application may delete nothing."""
    _force(table)
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON {table} TO carrel_app")


def _force(table: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON {table} TO carrel_app USING ({POLICY}) WITH CHECK ({POLICY})")
