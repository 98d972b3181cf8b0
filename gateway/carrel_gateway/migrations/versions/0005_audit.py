"""The audit log: entries that can be added and not changed, and of each tenant the last one, which only moves on.

On Postgres the application has no right to more; triggers refuse it to SQLite, and to owners of the tables on both.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from carrel_gateway.migrations.postgres import protect_appended, protect_kept

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

REFUSAL = "the audit log is only added to"
MOVED = "NEW.seq <> OLD.seq + 1 OR NEW.tenant_id <> OLD.tenant_id"


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("actor", sa.String(36), nullable=False),
        sa.Column("credential", sa.String(36), nullable=True),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "seq", name="pk_audit"),
    )
    for columns in (["actor", "seq"], ["action", "seq"], ["at"]):
        op.create_index(f"ix_audit_tenant_id_{'_'.join(columns)}", "audit", ["tenant_id", *columns])
    op.create_table(
        "audit_heads",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_audit_heads"),
    )
    if op.get_bind().dialect.name == "postgresql":
        protect_appended("audit")
        protect_kept("audit_heads")
        _refuse_on_postgres()
    else:
        _refuse_on_sqlite()


def _refuse_on_postgres() -> None:
    op.execute(f"""
        CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'insufficient_privilege'; END $$
    """)
    op.execute(f"""
        CREATE FUNCTION require_next_audit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NOT EXISTS (SELECT 1 FROM audit_heads WHERE tenant_id = NEW.tenant_id AND seq = NEW.seq - 1) THEN
                RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'insufficient_privilege';
            END IF;
            RETURN NEW;
        END $$
    """)
    call = "EXECUTE FUNCTION refuse_audit_change()"
    op.execute(f"CREATE TRIGGER kept BEFORE UPDATE OR DELETE ON audit FOR EACH ROW {call}")
    op.execute(f"CREATE TRIGGER whole BEFORE TRUNCATE ON audit FOR EACH STATEMENT {call}")
    op.execute("CREATE TRIGGER next BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION require_next_audit()")
    op.execute(f"CREATE TRIGGER onwards BEFORE UPDATE ON audit_heads FOR EACH ROW WHEN ({MOVED}) {call}")
    op.execute(f"CREATE TRIGGER first BEFORE INSERT ON audit_heads FOR EACH ROW WHEN (NEW.seq <> 0) {call}")
    op.execute(f"CREATE TRIGGER kept BEFORE DELETE ON audit_heads FOR EACH ROW {call}")
    op.execute(f"CREATE TRIGGER whole BEFORE TRUNCATE ON audit_heads FOR EACH STATEMENT {call}")


def _refuse_on_sqlite() -> None:
    refuse = f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    follows = "EXISTS (SELECT 1 FROM audit_heads WHERE tenant_id = NEW.tenant_id AND seq = NEW.seq - 1)"
    there = "EXISTS (SELECT 1 FROM audit_heads WHERE tenant_id = NEW.tenant_id)"  # INSERT OR REPLACE is no DELETE
    op.execute(f"CREATE TRIGGER audit_changed BEFORE UPDATE ON audit {refuse}")
    op.execute(f"CREATE TRIGGER audit_deleted BEFORE DELETE ON audit {refuse}")
    op.execute(f"CREATE TRIGGER audit_added BEFORE INSERT ON audit WHEN NOT {follows} {refuse}")
    op.execute(f"CREATE TRIGGER audit_heads_changed BEFORE UPDATE ON audit_heads WHEN {MOVED} {refuse}")
    op.execute(f"CREATE TRIGGER audit_heads_added BEFORE INSERT ON audit_heads WHEN NEW.seq <> 0 OR {there} {refuse}")
    op.execute(f"CREATE TRIGGER audit_heads_deleted BEFORE DELETE ON audit_heads {refuse}")
