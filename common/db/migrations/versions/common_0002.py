"""The inbox of exactly-once requests."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "common_0002"
down_revision = "common_0001"
branch_labels = None
depends_on = None

_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
_BODY = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")


def upgrade() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("lease_until", _MOMENT, nullable=False),
        sa.Column("is_done", sa.Boolean(), nullable=False),
        sa.Column("body", _BODY, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbox")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_inbox_created_at"), "inbox", ["created_at"], unique=False)


def downgrade() -> None:
    op.drop_table("inbox")
