"""Nova's tables, under nova's names. `deleted` is 0 while a row lives, then the row's own id.

Columns are those of nova that this project uses; block_device_mapping has every column of Ocata, and `uuid` (Queens) and
`attachment_id` (Pike). Two departures: instances.flavor holds the flavor's name where nova has a key into a table of flavors,
and block_device_mapping has unique keys, so that two racing requests cannot enter one disk twice.
"""

from pathlib import Path

from sqlalchemy import Boolean, Column, ForeignKey, Integer, String, Table, Text, UniqueConstraint

from common.db.branch import Branch
from common.db.model import MYSQL_TABLE, JsonText, moment, new_metadata, nova_soft_delete, timestamps

METADATA = new_metadata()

BRANCH = Branch("nova", Path(__file__).parent / "migrations", head="nova_0001")
"""The migrations that make these tables, for `common.db.migrate.upgrade`."""

instances = Table(
    "instances",
    METADATA,
    *timestamps(),
    *nova_soft_delete(),
    Column("id", Integer, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("user_id", String(255)),
    Column("project_id", String(255), index=True),
    Column("image_ref", String(255)),
    Column("display_name", String(255), nullable=False, index=True),
    Column("vm_state", String(255), nullable=False),
    Column("task_state", String(255)),
    Column("power_state", Integer, nullable=False, default=0),
    Column("host", String(255), index=True),
    Column("node", String(255)),
    Column("availability_zone", String(255)),
    Column("flavor", String(255), nullable=False, default=""),
    Column("memory_mb", Integer, nullable=False, default=0),
    Column("vcpus", Integer, nullable=False, default=0),
    Column("root_gb", Integer, nullable=False, default=0),
    Column("root_device_name", String(255)),
    Column("launched_at", moment()),
    Column("terminated_at", moment()),
    **MYSQL_TABLE,
)

instance_faults = Table(
    "instance_faults",
    METADATA,
    *timestamps(),
    *nova_soft_delete(),
    Column("id", Integer, primary_key=True),
    Column("instance_uuid", String(36), ForeignKey("instances.uuid"), nullable=False, index=True),
    Column("code", Integer, nullable=False),
    Column("message", Text, nullable=False),
    Column("details", Text),
    Column("host", String(255)),
    Column("request_id", String(255)),
    **MYSQL_TABLE,
)
"""`request_id` is ours: which request failed."""

block_device_mapping = Table(
    "block_device_mapping",
    METADATA,
    *timestamps(),
    *nova_soft_delete(),
    Column("id", Integer, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("instance_uuid", String(36), ForeignKey("instances.uuid"), nullable=False),
    Column("device_name", String(255)),
    Column("delete_on_termination", Boolean, nullable=False, default=False),
    Column("snapshot_id", String(36), index=True),
    Column("volume_id", String(36), index=True),
    Column("volume_size", Integer),
    Column("no_device", Boolean),
    Column("connection_info", JsonText),
    Column("source_type", String(255)),
    Column("destination_type", String(255)),
    Column("guest_format", String(255)),
    Column("device_type", String(255)),
    Column("disk_bus", String(255)),
    Column("boot_index", Integer),
    Column("image_id", String(36)),
    Column("attachment_id", String(36)),
    UniqueConstraint("instance_uuid", "device_name", "deleted"),
    UniqueConstraint("instance_uuid", "volume_id", "deleted"),
    UniqueConstraint("attachment_id", "deleted"),
    **MYSQL_TABLE,
)
"""A disk of a server. The three keys hold among live rows: a name, a volume, an attachment are there once."""
