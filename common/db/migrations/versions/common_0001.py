"""The first tables of common: services, flows and journal."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "common_0001"
down_revision = None
branch_labels = ("common",)
depends_on = None

_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
_JSON = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "flows",
        sa.Column("created_at", _MOMENT, nullable=True),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("saga", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("arguments", _JSON, nullable=False),
        sa.Column("request_id", sa.String(length=255), nullable=True),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flows")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_flows_owner_state"), "flows", ["owner", "state"], unique=False)
    op.create_index(op.f("ix_flows_subject"), "flows", ["subject"], unique=False)
    op.create_table(
        "services",
        sa.Column("created_at", _MOMENT, nullable=True),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.Column("deleted_at", _MOMENT, nullable=True),
        sa.Column("deleted", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("binary", sa.String(length=255), nullable=False),
        sa.Column("topic", sa.String(length=255), nullable=False),
        sa.Column("availability_zone", sa.String(length=255), nullable=True),
        sa.Column("report_count", sa.Integer(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.String(length=255), nullable=True),
        sa.Column("last_seen_up", _MOMENT, nullable=True),
        sa.Column("forced_down", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_services")),
        sa.UniqueConstraint("host", "binary", "deleted", name=op.f("uniq_services0host_binary_deleted")),
        sa.UniqueConstraint("host", "topic", "deleted", name=op.f("uniq_services0host_topic_deleted")),
        sa.UniqueConstraint("uuid", name=op.f("uniq_services0uuid")),
        **_MYSQL,
    )
    op.create_table(
        "journal",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("flow_id", sa.String(length=255), nullable=False),
        sa.Column("step", sa.String(length=255), nullable=False),
        sa.Column("mark", sa.String(length=32), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("output", _JSON, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["flow_id"], ["flows.id"], name=op.f("fk_journal_flow_id_flows")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_journal_flow_id"), "journal", ["flow_id"], unique=False)


def downgrade() -> None:
    op.drop_table("journal")
    op.drop_table("services")
    op.drop_table("flows")
