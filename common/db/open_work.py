"""What the tables that everybody writes hold of work that is not done: flows, messages to be sent, requests in hand. Read only."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select

from common.base.clock import Clock
from common.db.engine import Database
from common.db.journal import FlowState
from common.db.tables import METADATA, flows, inbox


@dataclass(frozen=True, slots=True)
class OpenFlow:
    """A flow that has not ended: `running`, or `parked` for a person."""

    id: str
    saga: str
    subject: str
    owner: str
    state: str
    error: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """Messages of the outbox that one address has not been sent yet, since when the oldest waits, and what an attempt failed of."""

    address: str
    number: int
    since: datetime
    error: str | None = None


class OpenWork:
    """Every method is one transaction; all raise what `Database.begin` raises."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def flows(self) -> list[OpenFlow]:
        """Oldest first."""
        columns = [flows.c[name] for name in OpenFlow.__dataclass_fields__]
        open_ = flows.c.state.in_([FlowState.RUNNING, FlowState.PARKED])
        async with self._db.begin(read_only=True) as conn:
            rows = await conn.execute(select(*columns).where(open_).order_by(flows.c.created_at, flows.c.id))
            return [OpenFlow(**row._mapping) for row in rows]

    async def moving(self, *, since: datetime, younger_than_s: float) -> list[str]:
        """What flows are about, as texts that name ids: those that changed since then, and those that run and are that young."""
        young = self._clock.utcnow() - timedelta(seconds=younger_than_s)
        runs = (flows.c.state == FlowState.RUNNING) & (flows.c.created_at >= young)
        query = select(flows.c.subject, flows.c.arguments).where(or_(flows.c.updated_at >= since, runs))
        async with self._db.begin(read_only=True) as conn:
            return [f"{row.subject} {json.dumps(row.arguments)}" for row in await conn.execute(query)]

    async def outbox(self, *, before: datetime) -> list[Waiting]:
        """Messages that were promised before then and that the bus has not confirmed."""
        outbox = METADATA.tables.get("outbox")
        if outbox is None:
            return []
        columns = (outbox.c.routing_key, func.count(), func.min(outbox.c.created_at), func.max(outbox.c.error))
        query = select(*columns).where(outbox.c.created_at < before)
        async with self._db.begin(read_only=True) as conn:
            rows = await conn.execute(query.group_by(outbox.c.routing_key).order_by(outbox.c.routing_key))
            return [Waiting(*row) for row in rows]

    async def held(self, *, before: datetime) -> list[str]:
        """Owners of exactly-once requests that they began before then and still have in hand."""
        now = self._clock.utcnow()
        query = select(inbox.c.owner).where(inbox.c.is_done.is_(False), inbox.c.lease_until > now, inbox.c.created_at < before)
        async with self._db.begin(read_only=True) as conn:
            return list((await conn.execute(query.distinct().order_by(inbox.c.owner))).scalars())


def is_named(subject: str, texts: Iterable[str]) -> bool:
    """True when one of the texts names what the subject is about: "volume:<id>" is named where <id> stands."""
    _, _, name = subject.partition(":")
    return any(name in text for text in texts)
