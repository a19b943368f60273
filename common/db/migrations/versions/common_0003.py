"""Flows that outlive their process: leases and fences, the outbox, and the history of states."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "common_0003"
down_revision = "common_0002"
branch_labels = None
depends_on = None

_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
_JSON = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("flows") as table:
        table.add_column(sa.Column("context", _JSON, nullable=True))
        table.add_column(sa.Column("home", sa.String(length=255), nullable=False, server_default=""))
        table.add_column(sa.Column("fence", sa.Integer(), nullable=False, server_default="1"))
        table.add_column(sa.Column("deadline", _MOMENT, nullable=True))
    # The defaults were for the rows that were there.
    with op.batch_alter_table("flows") as table:
        table.alter_column("home", existing_type=sa.String(length=255), existing_nullable=False, server_default=None)
        table.alter_column("fence", existing_type=sa.Integer(), existing_nullable=False, server_default=None)
    op.create_index(op.f("ix_flows_home_state"), "flows", ["home", "state"], unique=False)
    op.create_index(op.f("ix_flows_request_id"), "flows", ["request_id"], unique=False)
    # A journal without `seq` is of a release that could not go on after a crash: its flows have ended, or never will.
    op.drop_table("journal")
    op.execute("UPDATE flows SET home = owner, state = 'parked', error = 'begun by an older release' WHERE state = 'running'")
    op.create_table(
        "journal",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("flow_id", sa.String(length=255), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("step", sa.String(length=255), nullable=False),
        sa.Column("mark", sa.String(length=32), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("output", _JSON, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["flow_id"], ["flows.id"], name=op.f("fk_journal_flow_id_flows")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal")),
        sa.UniqueConstraint("flow_id", "seq", name=op.f("uniq_journal0flow_id_seq")),
        **_MYSQL,
    )
    op.create_table(
        "leases",
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("lease_until", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_leases")),
        **_MYSQL,
    )
    op.create_table(
        "outbox",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("home", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("exchange", _JSON, nullable=True),
        sa.Column("routing_key", sa.String(length=255), nullable=False),
        sa.Column("body", _JSON, nullable=False),
        sa.Column("headers", _JSON, nullable=True),
        sa.Column("request_id", sa.String(length=255), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
        **_MYSQL,
    )
    op.create_index(op.f("ix_outbox_owner_id"), "outbox", ["owner", "id"], unique=False)
    op.create_index(op.f("ix_outbox_home_owner"), "outbox", ["home", "owner"], unique=False)
    op.create_index(op.f("ix_outbox_request_id"), "outbox", ["request_id"], unique=False)
    op.create_table(
        "state_history",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("event", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=255), nullable=False),
        sa.Column("flow_id", sa.String(length=255), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_state_history")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_state_history_subject"), "state_history", ["subject"], unique=False)


def downgrade() -> None:
    op.drop_table("state_history")
    op.drop_table("outbox")
    op.drop_table("leases")
    op.drop_table("journal")
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
    op.drop_index(op.f("ix_flows_request_id"), table_name="flows")
    op.drop_index(op.f("ix_flows_home_state"), table_name="flows")
    with op.batch_alter_table("flows") as table:
        for name in ("deadline", "fence", "home", "context"):
            table.drop_column(name)
