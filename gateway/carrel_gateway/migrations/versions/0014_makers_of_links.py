"""Who stood behind whoever made a link: one of a service account shows no more than that person may read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("share_links", sa.Column("maker_id", sa.Uuid(), nullable=True))
