"""The first tables of cinder: volumes, volume_attachment and messages."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "cinder_0001"
down_revision = None
branch_labels = ("cinder",)
depends_on = None

_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
_JSON = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")


def upgrade() -> None:
    op.create_table(
        "messages",
        sa.Column("created_at", _MOMENT, nullable=True),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.Column("deleted_at", _MOMENT, nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=True),
        sa.Column("request_id", sa.String(length=255), nullable=True),
        sa.Column("resource_type", sa.String(length=255), nullable=True),
        sa.Column("resource_uuid", sa.String(length=36), nullable=True),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("action_id", sa.String(length=10), nullable=True),
        sa.Column("detail_id", sa.String(length=10), nullable=True),
        sa.Column("message_level", sa.String(length=255), nullable=True),
        sa.Column("expires_at", _MOMENT, nullable=True),
        sa.Column("user_message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_messages_resource_uuid"), "messages", ["resource_uuid"], unique=False)
    op.create_table(
        "volumes",
        sa.Column("created_at", _MOMENT, nullable=True),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.Column("deleted_at", _MOMENT, nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=True),
        sa.Column("project_id", sa.String(length=255), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("availability_zone", sa.String(length=255), nullable=True),
        sa.Column("status", sa.String(length=255), nullable=False),
        sa.Column("attach_status", sa.String(length=255), nullable=False),
        sa.Column("scheduled_at", _MOMENT, nullable=True),
        sa.Column("launched_at", _MOMENT, nullable=True),
        sa.Column("terminated_at", _MOMENT, nullable=True),
        sa.Column("display_name", sa.String(length=255), nullable=True),
        sa.Column("display_description", sa.String(length=255), nullable=True),
        sa.Column("provider_location", sa.String(length=256), nullable=True),
        sa.Column("provider_auth", sa.String(length=256), nullable=True),
        sa.Column("volume_type_id", sa.String(length=36), nullable=True),
        sa.Column("bootable", sa.Boolean(), nullable=False),
        sa.Column("multiattach", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volumes")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_volumes_display_name"), "volumes", ["display_name"], unique=False)
    op.create_index(op.f("ix_volumes_host"), "volumes", ["host"], unique=False)
    op.create_index(op.f("ix_volumes_project_id"), "volumes", ["project_id"], unique=False)
    op.create_table(
        "volume_attachment",
        sa.Column("created_at", _MOMENT, nullable=True),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.Column("deleted_at", _MOMENT, nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("volume_id", sa.String(length=36), nullable=False),
        sa.Column("attached_host", sa.String(length=255), nullable=True),
        sa.Column("instance_uuid", sa.String(length=36), nullable=True),
        sa.Column("mountpoint", sa.String(length=255), nullable=True),
        sa.Column("attach_time", _MOMENT, nullable=True),
        sa.Column("detach_time", _MOMENT, nullable=True),
        sa.Column("attach_mode", sa.String(length=36), nullable=True),
        sa.Column("attach_status", sa.String(length=255), nullable=False),
        sa.Column("connection_info", _JSON, nullable=True),
        sa.Column("connector", _JSON, nullable=True),
        sa.ForeignKeyConstraint(["volume_id"], ["volumes.id"], name=op.f("fk_volume_attachment_volume_id_volumes")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volume_attachment")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_volume_attachment_instance_uuid"), "volume_attachment", ["instance_uuid"], unique=False)
    op.create_index(op.f("ix_volume_attachment_volume_id"), "volume_attachment", ["volume_id"], unique=False)


def downgrade() -> None:
    op.drop_table("volume_attachment")
    op.drop_table("volumes")
    op.drop_table("messages")
