"""The inbox in the shared database: which exactly-once requests were begun, by whom, and what they came to.

It implements `common.rpc.inbox.Inbox`. Leases compare the hosts' clocks: they must agree to within a small part of the lease.
"""

import hashlib
from datetime import timedelta

from sqlalchemy import delete, insert, select, update

from common.base.clock import Clock
from common.base.limits import INBOX_KEPT_S, INBOX_LEASE_S
from common.db.engine import Database
from common.db.errors import Duplicate
from common.db.tables import inbox
from common.wire.callee import Answer, Entry, Standing

_ID_MAX = 255


class SqlInbox:
    """Every method is one transaction; all raise what `Database.begin` raises."""

    def __init__(self, db: Database, clock: Clock, *, lease_s: float = INBOX_LEASE_S) -> None:
        self._db = db
        self._clock = clock
        self._lease = timedelta(seconds=lease_s)

    async def begin(self, message_id: str, *, owner: str) -> Entry:
        """NEW for the one who entered it; else how it stands."""
        now = self._clock.utcnow()
        row = {"id": _key(message_id), "owner": owner, "created_at": now, "lease_until": now + self._lease, "is_done": False}
        try:
            await self._db.execute(insert(inbox).values(row))
        except Duplicate:
            return await self._standing(message_id)
        return Entry(Standing.NEW, owner)

    async def renew(self, message_id: str, *, owner: str) -> bool:
        """False when the lease had run out: others were told so, or will be."""
        now = self._clock.utcnow()
        mine = (inbox.c.id == _key(message_id), inbox.c.owner == owner, inbox.c.is_done.is_(False), inbox.c.lease_until > now)
        change = update(inbox).where(*mine).values(lease_until=now + self._lease)
        return bool((await self._db.execute(change)).rowcount)

    async def finish(self, message_id: str, *, owner: str, body: bytes | None) -> None:
        """Its outcome is known from now on, even after the lease. `body` is JSON, and kept as text."""
        mine = (inbox.c.id == _key(message_id), inbox.c.owner == owner)
        change = update(inbox).where(*mine).values(is_done=True, body=None if body is None else body.decode())
        await self._db.execute(change)

    async def sweep(self, *, kept_s: float = INBOX_KEPT_S) -> int:
        """Drop rows that are older than any caller's patience; how many they were."""
        old = delete(inbox).where(inbox.c.created_at < self._clock.utcnow() - timedelta(seconds=kept_s))
        return (await self._db.execute(old)).rowcount

    async def _standing(self, message_id: str) -> Entry:
        query = select(inbox.c.owner, inbox.c.lease_until, inbox.c.is_done, inbox.c.body).where(inbox.c.id == _key(message_id))
        async with self._db.begin(read_only=True) as conn:
            row = (await conn.execute(query)).one_or_none()
        if row is None:  # swept in this moment: it was old enough to be nobody's
            return Entry(Standing.LOST)
        if row.is_done:
            return Entry(Standing.DONE, row.owner, Answer(None if row.body is None else row.body.encode()))
        return Entry(Standing.HELD if row.lease_until > self._clock.utcnow() else Standing.LOST, row.owner)


def _key(message_id: str) -> str:
    """A foreign peer's id may be of any length."""
    return message_id if len(message_id) <= _ID_MAX else hashlib.sha256(message_id.encode()).hexdigest()
