"""Snapshots, and what a volume was made of."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "cinder_0002"
down_revision = "cinder_0001"
branch_labels = None
depends_on = None

_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def upgrade() -> None:
    op.add_column("volumes", sa.Column("snapshot_id", sa.String(length=36), nullable=True))
    op.add_column("volumes", sa.Column("source_volid", sa.String(length=36), nullable=True))
    op.add_column("volumes", sa.Column("extend_new_size", sa.Integer(), nullable=True))
    op.create_table(
        "snapshots",
        sa.Column("created_at", _MOMENT, nullable=True),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.Column("deleted_at", _MOMENT, nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=True),
        sa.Column("project_id", sa.String(length=255), nullable=True),
        sa.Column("volume_id", sa.String(length=36), nullable=False),
        sa.Column("status", sa.String(length=255), nullable=False),
        sa.Column("progress", sa.String(length=255), nullable=True),
        sa.Column("volume_size", sa.Integer(), nullable=False),
        sa.Column("display_name", sa.String(length=255), nullable=True),
        sa.Column("display_description", sa.String(length=255), nullable=True),
        sa.Column("provider_location", sa.String(length=255), nullable=True),
        sa.ForeignKeyConstraint(["volume_id"], ["volumes.id"], name=op.f("fk_snapshots_volume_id_volumes")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_snapshots_display_name"), "snapshots", ["display_name"], unique=False)
    op.create_index(op.f("ix_snapshots_project_id"), "snapshots", ["project_id"], unique=False)
    op.create_index(op.f("ix_snapshots_volume_id"), "snapshots", ["volume_id"], unique=False)


def downgrade() -> None:
    op.drop_table("snapshots")
    op.drop_column("volumes", "extend_new_size")
    op.drop_column("volumes", "source_volid")
    op.drop_column("volumes", "snapshot_id")
