"""The tables that both services write: services (heartbeats), flows and their journal, and the inbox."""

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint
from sqlalchemy.dialects import mysql

from common.db.model import MYSQL_TABLE, JsonText, big_id, moment, new_metadata, nova_soft_delete, timestamps

METADATA = new_metadata()

services = Table(
    "services",
    METADATA,
    *timestamps(),
    *nova_soft_delete(),
    Column("id", Integer, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("host", String(255), nullable=False),
    Column("binary", String(255), nullable=False),
    Column("topic", String(255), nullable=False),
    Column("availability_zone", String(255)),
    Column("report_count", Integer, nullable=False, default=0),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("disabled_reason", String(255)),
    Column("last_seen_up", moment()),
    Column("forced_down", Boolean, nullable=False, default=False),
    Column("version", Integer, nullable=False, default=0),
    UniqueConstraint("host", "binary", "deleted"),
    UniqueConstraint("host", "topic", "deleted"),
    **MYSQL_TABLE,
)
"""nova.services and cinder.services in one: a row for each process's binary on a host."""

flows = Table(
    "flows",
    METADATA,
    *timestamps(),
    Column("id", String(255), primary_key=True),
    Column("saga", String(255), nullable=False),
    Column("subject", String(255), nullable=False, index=True),
    Column("arguments", JsonText, nullable=False),
    Column("request_id", String(255)),
    Column("owner", String(255), nullable=False),
    Column("state", String(32), nullable=False),
    Column("error", Text),
    Index(None, "owner", "state"),
    **MYSQL_TABLE,
)
"""One run of a saga. `subject` is what it is about (an attachment, a server); `owner` is the host that carries it on."""

journal = Table(
    "journal",
    METADATA,
    Column("id", big_id(), primary_key=True),
    Column("flow_id", String(255), ForeignKey("flows.id"), nullable=False, index=True),
    Column("step", String(255), nullable=False),
    Column("mark", String(32), nullable=False),
    Column("final", Boolean, nullable=False, default=False),
    Column("attempt", Integer, nullable=False),
    Column("output", JsonText),
    Column("error", Text),
    Column("created_at", moment(), nullable=False),
    **MYSQL_TABLE,
)
"""What happened to each step, in order of `id`. Rows are only added."""

inbox = Table(
    "inbox",
    METADATA,
    Column("id", String(255), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("created_at", moment(), nullable=False, index=True),
    Column("lease_until", moment(), nullable=False),
    Column("is_done", Boolean, nullable=False, default=False),
    Column("body", Text().with_variant(mysql.MEDIUMTEXT(), "mysql")),
    **MYSQL_TABLE,
)
"""Exactly-once requests by `_unique_id`: who began it, until when that counts without a sign of life, and the reply."""
