"""The tables that both services write: heartbeats, flows and their journal, leases, outbox, inbox, and what changed when."""

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
    Column("context", JsonText),
    Column("home", String(255), nullable=False, default=""),
    Column("owner", String(255), nullable=False),
    Column("fence", Integer, nullable=False, default=1),
    Column("deadline", moment()),
    Column("state", String(32), nullable=False),
    Column("error", Text),
    Index(None, "owner", "state"),
    Index(None, "home", "state"),
    Index(None, "state", "updated_at"),
    Index(None, "request_id"),
    **MYSQL_TABLE,
)
"""One run of a saga. `subject` is what it is about (a volume, a server); `home` is who may carry it on, `owner` the process that does,
and `fence` how many there were: what an earlier owner still writes is refused. `deadline`: nobody waits for it behind that, and what
has not begun by then does not begin. A row that ended without a `subject` is a request that was refused, and keeps everybody from it.
"""

journal = Table(
    "journal",
    METADATA,
    Column("id", big_id(), primary_key=True),
    Column("flow_id", String(255), ForeignKey("flows.id"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("step", String(255), nullable=False),
    Column("mark", String(32), nullable=False),
    Column("final", Boolean, nullable=False, default=False),
    Column("attempt", Integer, nullable=False),
    Column("output", JsonText),
    Column("error", Text),
    Column("created_at", moment(), nullable=False),
    UniqueConstraint("flow_id", "seq"),
    **MYSQL_TABLE,
)
"""What happened to each step, in order of `seq`, which makes a write whose outcome was unknown safe to repeat. Rows are only added."""

leases = Table(
    "leases",
    METADATA,
    Column("owner", String(255), primary_key=True),
    Column("lease_until", moment(), nullable=False),
    **MYSQL_TABLE,
)
"""Which processes are alive: one row each, by the database's clock. What belongs to an owner without a lease may be taken over."""

outbox = Table(
    "outbox",
    METADATA,
    Column("id", big_id(), primary_key=True),
    Column("home", String(255), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("exchange", JsonText),
    Column("routing_key", String(255), nullable=False),
    Column("body", Text().with_variant(mysql.MEDIUMTEXT(), "mysql"), nullable=False),
    Column("headers", JsonText),
    Column("request_id", String(255), index=True),
    Column("attempts", Integer, nullable=False, default=0),
    Column("error", Text),
    Column("created_at", moment(), nullable=False),
    Index(None, "owner", "id"),
    Index(None, "home", "owner"),
    sqlite_autoincrement=True,
    **MYSQL_TABLE,
)
"""Messages that were promised together with a change of state, until the bus has confirmed them. `id` is their order.

No id is given twice: a process that stood still may strike off a letter that another has sent and struck off meanwhile.
"""

state_history = Table(
    "state_history",
    METADATA,
    Column("id", big_id(), primary_key=True),
    Column("kind", String(255), nullable=False),
    Column("subject", String(255), nullable=False, index=True),
    Column("event", String(255), nullable=False),
    Column("state", String(255), nullable=False),
    Column("flow_id", String(255)),
    Column("created_at", moment(), nullable=False),
    **MYSQL_TABLE,
)
"""Every change of a status: which event led to which state, and for which flow. Rows are only added, with the change itself."""

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
