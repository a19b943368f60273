"""The table of services: who runs where, and when it was last heard of, by the database's clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.base.clock import Clock
from common.base.errors import NotFound
from common.base.ids import new_uuid
from common.db.engine import Database
from common.db.errors import Duplicate
from common.db.model import live
from common.db.now import database_time
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


class Hosts:
    """Every method is one transaction; all raise what `Database.begin` raises."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def register(self, *, binary: str, host: str, topic: str, availability_zone: str | None) -> None:
        """Enters the service, or renews its row; either way it was heard of just now."""
        now = database_time()
        facts = {"topic": topic, "availability_zone": availability_zone, "last_seen_up": now, "updated_at": now}
        renewed = update(services).where(services.c.binary == binary, services.c.host == host, live(services)).values(facts)
        entered = insert(services).values(**facts, uuid=new_uuid(), binary=binary, host=host, created_at=now)

        async def work(conn: AsyncConnection) -> None:
            if not (await conn.execute(renewed)).rowcount:
                await conn.execute(entered)

        try:
            await self._db.run(work)
        except Duplicate:
            # Another process of that name entered it between the two statements.
            await self._db.run(work)

    async def report_state(self, *, binary: str, host: str) -> None:
        """A heartbeat. Raises NotFound when the service was not registered or was removed."""
        now = database_time()
        beat = update(services).where(services.c.binary == binary, services.c.host == host, live(services))
        beat = beat.values(report_count=services.c.report_count + 1, last_seen_up=now, updated_at=now)
        if not (await self._db.run(lambda conn: conn.execute(beat))).rowcount:
            raise NotFound(kind="service", name=f"{binary} on {host}")

    async def list(self, binary: str | None = None) -> list[ServiceRow]:
        """Every service, or those of one binary, by binary and host."""
        query = (
            select(*_COLUMNS, database_time().label("read_at")).where(live(services)).order_by(services.c.binary, services.c.host)
        )
        if binary is not None:
            query = query.where(services.c.binary == binary)
        async with self._db.begin(read_only=True) as conn:
            return [ServiceRow(**row._mapping) for row in await conn.execute(query)]

    def is_up(self, row: ServiceRow, service_down_time_s: float) -> bool:
        """True when the service was heard of within `service_down_time_s` and nobody forced it down."""
        return is_up(row, now=row.read_at or self._clock.utcnow(), service_down_time_s=service_down_time_s)


def is_up(row: ServiceRow, *, now: datetime, service_down_time_s: float) -> bool:
    """As `Hosts.is_up`. A heartbeat from the future, by a clock that differs, counts by its distance (nova.servicegroup)."""
    heard = row.last_seen_up or row.created_at
    if row.forced_down or heard is None:
        return False
    return abs(now - heard) <= timedelta(seconds=service_down_time_s)
