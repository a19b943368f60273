"""Cinder's tables, under cinder's names. `deleted` is a boolean; a deleted volume also has status deleted.

Columns are those of cinder that this project uses; volume_attachment has all of Ocata's, and `connection_info` (Pike) and
`connector` (Queens). Three departures: extend_new_size, GiB that an extending volume is to have, is a row of cinder's admin metadata; volume_type_id holds the type's name, and messages.id is a counter, so that the latest
message is the latest even within one microsecond.
"""

from pathlib import Path

from sqlalchemy import Boolean, Column, ForeignKey, Integer, String, Table, Text

from common.db.branch import Branch
from common.db.model import MYSQL_TABLE, JsonText, cinder_soft_delete, moment, new_metadata, timestamps

METADATA = new_metadata()

BRANCH = Branch("cinder", Path(__file__).parent / "migrations", head="cinder_0002")
"""The migrations that make these tables, for `common.db.migrate.upgrade`."""

volumes = Table(
    "volumes",
    METADATA,
    *timestamps(),
    *cinder_soft_delete(),
    Column("id", String(36), primary_key=True),
    Column("user_id", String(255)),
    Column("project_id", String(255), index=True),
    Column("host", String(255), index=True),
    Column("size", Integer, nullable=False),
    Column("availability_zone", String(255)),
    Column("status", String(255), nullable=False),
    Column("attach_status", String(255), nullable=False),
    Column("scheduled_at", moment()),
    Column("launched_at", moment()),
    Column("terminated_at", moment()),
    Column("display_name", String(255), index=True),
    Column("display_description", String(255)),
    Column("provider_location", String(256)),
    Column("provider_auth", String(256)),
    Column("volume_type_id", String(36)),
    Column("snapshot_id", String(36)),
    Column("source_volid", String(36)),
    Column("extend_new_size", Integer),
    Column("bootable", Boolean, nullable=False, default=False),
    Column("multiattach", Boolean, nullable=False, default=False),
    **MYSQL_TABLE,
)

volume_attachment = Table(
    "volume_attachment",
    METADATA,
    *timestamps(),
    *cinder_soft_delete(),
    Column("id", String(36), primary_key=True),
    Column("volume_id", String(36), ForeignKey("volumes.id"), nullable=False, index=True),
    Column("attached_host", String(255)),
    Column("instance_uuid", String(36), index=True),
    Column("mountpoint", String(255)),
    Column("attach_time", moment()),
    Column("detach_time", moment()),
    Column("attach_mode", String(36)),
    Column("attach_status", String(255), nullable=False),
    Column("connection_info", JsonText),
    Column("connector", JsonText),
    **MYSQL_TABLE,
)
"""`id` is made by who attaches and is the fencing token: a deleted row is never revived."""

snapshots = Table(
    "snapshots",
    METADATA,
    *timestamps(),
    *cinder_soft_delete(),
    Column("id", String(36), primary_key=True),
    Column("user_id", String(255)),
    Column("project_id", String(255), index=True),
    Column("volume_id", String(36), ForeignKey("volumes.id"), nullable=False, index=True),
    Column("status", String(255), nullable=False),
    Column("progress", String(255)),
    Column("volume_size", Integer, nullable=False),
    Column("display_name", String(255), index=True),
    Column("display_description", String(255)),
    Column("provider_location", String(255)),
    **MYSQL_TABLE,
)

messages = Table(
    "messages",
    METADATA,
    *timestamps(),
    *cinder_soft_delete(),
    Column("id", Integer, primary_key=True),
    Column("project_id", String(255)),
    Column("request_id", String(255)),
    Column("resource_type", String(255)),
    Column("resource_uuid", String(36), index=True),
    Column("event_id", String(255), nullable=False),
    Column("action_id", String(10)),
    Column("detail_id", String(10)),
    Column("message_level", String(255)),
    Column("expires_at", moment()),
    Column("user_message", Text, nullable=False),
    **MYSQL_TABLE,
)
"""Upstream makes the text from action_id and detail_id; here it is kept as it was said."""
