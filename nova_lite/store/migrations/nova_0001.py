"""The first tables of nova: instances, instance_faults and block_device_mapping."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "nova_0001"
down_revision = None
branch_labels = ("nova",)
depends_on = None

_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
_JSON = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")


def upgrade() -> None:
    op.create_table(
        "instances",
        sa.Column("created_at", _MOMENT, nullable=True),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.Column("deleted_at", _MOMENT, nullable=True),
        sa.Column("deleted", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=True),
        sa.Column("project_id", sa.String(length=255), nullable=True),
        sa.Column("image_ref", sa.String(length=255), nullable=True),
        sa.Column("display_name", sa.String(length=255), nullable=False),
        sa.Column("vm_state", sa.String(length=255), nullable=False),
        sa.Column("task_state", sa.String(length=255), nullable=True),
        sa.Column("power_state", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("node", sa.String(length=255), nullable=True),
        sa.Column("availability_zone", sa.String(length=255), nullable=True),
        sa.Column("flavor", sa.String(length=255), nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("root_gb", sa.Integer(), nullable=False),
        sa.Column("root_device_name", sa.String(length=255), nullable=True),
        sa.Column("launched_at", _MOMENT, nullable=True),
        sa.Column("terminated_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
        sa.UniqueConstraint("uuid", name=op.f("uniq_instances0uuid")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_instances_display_name"), "instances", ["display_name"], unique=False)
    op.create_index(op.f("ix_instances_host"), "instances", ["host"], unique=False)
    op.create_index(op.f("ix_instances_project_id"), "instances", ["project_id"], unique=False)
    op.create_table(
        "block_device_mapping",
        sa.Column("created_at", _MOMENT, nullable=True),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.Column("deleted_at", _MOMENT, nullable=True),
        sa.Column("deleted", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("instance_uuid", sa.String(length=36), nullable=False),
        sa.Column("device_name", sa.String(length=255), nullable=True),
        sa.Column("delete_on_termination", sa.Boolean(), nullable=False),
        sa.Column("snapshot_id", sa.String(length=36), nullable=True),
        sa.Column("volume_id", sa.String(length=36), nullable=True),
        sa.Column("volume_size", sa.Integer(), nullable=True),
        sa.Column("no_device", sa.Boolean(), nullable=True),
        sa.Column("connection_info", _JSON, nullable=True),
        sa.Column("source_type", sa.String(length=255), nullable=True),
        sa.Column("destination_type", sa.String(length=255), nullable=True),
        sa.Column("guest_format", sa.String(length=255), nullable=True),
        sa.Column("device_type", sa.String(length=255), nullable=True),
        sa.Column("disk_bus", sa.String(length=255), nullable=True),
        sa.Column("boot_index", sa.Integer(), nullable=True),
        sa.Column("image_id", sa.String(length=36), nullable=True),
        sa.Column("attachment_id", sa.String(length=36), nullable=True),
        sa.ForeignKeyConstraint(
            ["instance_uuid"], ["instances.uuid"], name=op.f("fk_block_device_mapping_instance_uuid_instances")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_block_device_mapping")),
        sa.UniqueConstraint("attachment_id", "deleted", name=op.f("uniq_block_device_mapping0attachment_id_deleted")),
        sa.UniqueConstraint(
            "instance_uuid", "device_name", "deleted", name=op.f("uniq_block_device_mapping0instance_uuid_device_name_deleted")
        ),
        sa.UniqueConstraint(
            "instance_uuid", "volume_id", "deleted", name=op.f("uniq_block_device_mapping0instance_uuid_volume_id_deleted")
        ),
        sa.UniqueConstraint("uuid", name=op.f("uniq_block_device_mapping0uuid")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_block_device_mapping_snapshot_id"), "block_device_mapping", ["snapshot_id"], unique=False)
    op.create_index(op.f("ix_block_device_mapping_volume_id"), "block_device_mapping", ["volume_id"], unique=False)
    op.create_table(
        "instance_faults",
        sa.Column("created_at", _MOMENT, nullable=True),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.Column("deleted_at", _MOMENT, nullable=True),
        sa.Column("deleted", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_uuid", sa.String(length=36), nullable=False),
        sa.Column("code", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("request_id", sa.String(length=255), nullable=True),
        sa.ForeignKeyConstraint(["instance_uuid"], ["instances.uuid"], name=op.f("fk_instance_faults_instance_uuid_instances")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance_faults")),
        **_MYSQL,
    )
    op.create_index(op.f("ix_instance_faults_instance_uuid"), "instance_faults", ["instance_uuid"], unique=False)


def downgrade() -> None:
    op.drop_table("instance_faults")
    op.drop_table("block_device_mapping")
    op.drop_table("instances")
