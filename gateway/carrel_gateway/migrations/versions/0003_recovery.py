"""What a gateway must know to save sessions at rest, and to bring them back after a loss.

Which host has a session's state, up to where its log has been looked at for a snapshot, and which gateway is at it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("boot_id", sa.Text(), nullable=True))
    op.add_column("sessions", sa.Column("checked_seq", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.add_column("sessions", sa.Column("keeper", sa.Uuid(), nullable=True))
    op.add_column("sessions", sa.Column("keeper_until", sa.DateTime(timezone=True), nullable=True))
