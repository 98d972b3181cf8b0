"""Table of uploads in parts: what has come of a file that is not one yet.

`open` → `done` (its artifact is named) or `ended` (given up). A row outlives its end for a while, so that parts which
came late are found below its prefix and removed.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKeyConstraint, Index, String, Table, Text

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import JsonText, UtcDateTime

uploads = Table(
    "uploads",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("session_id"),
    Column("name", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("parts", JsonText, nullable=False),
    Column("state", String(8), nullable=False),
    uuid_column("artifact_id", nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    CheckConstraint("state IN ('open', 'done', 'ended')", name="state"),
    ForeignKeyConstraint(["tenant_id", "session_id"], ["sessions.tenant_id", "sessions.id"], ondelete="CASCADE"),
)
"""`parts` are the last components of the keys of the parts, in order."""

Index("ix_uploads_session", uploads.c.tenant_id, uploads.c.session_id)
Index("ix_uploads_updated", uploads.c.tenant_id, uploads.c.updated_at)
