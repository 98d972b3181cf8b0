"""Tables of snapshots and of their contents.

A content is an object of the store, one for each digest of a session: `pending` (row, maybe an object) → `ready` →
`unused` (object to be removed). A session has at most one snapshot: what a later one still has is not stored again.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKeyConstraint, Index, String, Table, Text, text

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import UtcDateTime


def _session() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant_id", "session_id"], ["sessions.tenant_id", "sessions.id"], ondelete="CASCADE")


snapshots = Table(
    "snapshots",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("session_id"),
    Column("session_uid", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("incarnation", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("manifest", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    _session(),
)
Index("ix_snapshots_session", snapshots.c.tenant_id, snapshots.c.session_id)

blobs = Table(
    "snapshot_blobs",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("session_id"),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("state IN ('pending', 'ready', 'unused')", name="state"),
    _session(),
)
Index("ix_snapshot_blobs_content", blobs.c.tenant_id, blobs.c.session_id, blobs.c.sha256)
_UNSETTLED = text("state IN ('pending', 'unused')")
Index(
    "ix_snapshot_blobs_unsettled",
    blobs.c.tenant_id,
    blobs.c.created_at,
    postgresql_where=_UNSETTLED,
    sqlite_where=_UNSETTLED,
)
