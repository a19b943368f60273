"""The table of services: who runs where, and when it was last heard of, by the database's clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.base.clock import Clock
from common.base.errors import NotFound
from common.base.ids import new_uuid
from common.db.engine import Database
from common.db.errors import Duplicate
from common.db.model import live
from common.db.now import NOW
from common.db.tables import services


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRow:
    """A live row of services."""

    uuid: str
    host: str
    binary: str
    topic: str
    availability_zone: str | None
    report_count: int
    disabled: bool
    disabled_reason: str | None
    last_seen_up: datetime | None
    forced_down: bool
    version: int
    created_at: datetime | None
    updated_at: datetime | None
    read_at: datetime | None = None
    """The database's time when the row was read, which is what `last_seen_up` is compared with."""


_COLUMNS = [services.c[name] for name in ServiceRow.__dataclass_fields__ if name != "read_at"]
_ONE = update(services).where(services.c.binary == bindparam("of_binary"), services.c.host == bindparam("on_host"), live(services))
_RENEW = _ONE.values(last_seen_up=NOW, updated_at=NOW)
_BEAT = _RENEW.values(report_count=services.c.report_count + 1)
_ENTER = insert(services).values(last_seen_up=NOW, updated_at=NOW, created_at=NOW)
_LIST = select(*_COLUMNS, NOW.label("read_at")).where(live(services)).order_by(services.c.binary, services.c.host)
_LIST_OF_BINARY = _LIST.where(services.c.binary == bindparam("of_binary"))


class Hosts:
    """Every method is one transaction; all raise what `Database.begin` raises."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def register(self, *, binary: str, host: str, topic: str, availability_zone: str | None) -> None:
        """Enters the service, or renews its row; either way it was heard of just now."""
        facts = {"topic": topic, "availability_zone": availability_zone}
        found_by = {"of_binary": binary, "on_host": host}
        entry = {**facts, "uuid": new_uuid(), "binary": binary, "host": host}

        async def work(conn: AsyncConnection) -> None:
            if not (await conn.execute(_RENEW, {**found_by, **facts})).rowcount:
                await conn.execute(_ENTER, entry)

        try:
            await self._db.run(work)
        except Duplicate:
            # Another process of that name entered it between the two statements.
            await self._db.run(work)

    async def report_state(self, *, binary: str, host: str) -> None:
        """A heartbeat. Raises NotFound when the service was not registered or was removed."""
        found_by = {"of_binary": binary, "on_host": host}
        if not (await self._db.execute(_BEAT, found_by)).rowcount:
            raise NotFound(kind="service", name=f"{binary} on {host}")

    async def list(self, binary: str | None = None) -> list[ServiceRow]:
        """Every service, or those of one binary, by binary and host."""
        query, parameters = (_LIST, None) if binary is None else (_LIST_OF_BINARY, {"of_binary": binary})
        async with self._db.begin(read_only=True) as conn:
            return [ServiceRow(**row._mapping) for row in await conn.execute(query, parameters)]

    def is_up(self, row: ServiceRow, service_down_time_s: float) -> bool:
        """True when the service was heard of within `service_down_time_s` and nobody forced it down."""
        return is_up(row, now=row.read_at or self._clock.utcnow(), service_down_time_s=service_down_time_s)


def is_up(row: ServiceRow, *, now: datetime, service_down_time_s: float) -> bool:
    """As `Hosts.is_up`. A heartbeat from the future, by a clock that differs, counts by its distance (nova.servicegroup)."""
    heard = row.last_seen_up or row.created_at
    if row.forced_down or heard is None:
        return False
    return abs(now - heard) <= timedelta(seconds=service_down_time_s)
