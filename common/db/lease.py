"""Leases: which processes are alive, by the database's clock. What belongs to a process without a lease may be taken over.

One row for a process, not one for each piece of work: a process that stops answering loses everything at once. A lease gives nobody
the right to act (fences do, common.db.fence); it only says when others may take over. So a process that was asleep for longer than its
lease loses what was taken meanwhile, and goes on with the rest.
"""

from sqlalchemy import ColumnElement, Double, bindparam, delete, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.base.limits import LEASE_S, LEASES_KEPT_S
from common.db.engine import Database
from common.db.errors import Duplicate
from common.db.now import database_time
from common.db.tables import leases

_UNTIL = database_time(bindparam("plus_s", type_=Double()))
_RENEW = update(leases).where(leases.c.owner == bindparam("of_owner")).values(lease_until=_UNTIL)
_BEGIN = insert(leases).values(lease_until=_UNTIL)


class Leases:
    """Every method is one transaction; all raise what `Database.begin` raises."""

    def __init__(self, db: Database, *, lease_s: float = LEASE_S) -> None:
        self._db = db
        self._lease_s = lease_s

    async def renew(self, owner: str) -> None:
        """The process lives for another `lease_s` seconds."""
        mine = {"of_owner": owner, "plus_s": self._lease_s}

        async def work(conn: AsyncConnection) -> None:
            if not (await conn.execute(_RENEW, mine)).rowcount:
                await conn.execute(_BEGIN, {"owner": owner, "plus_s": self._lease_s})

        try:
            await self._db.run(work)
        except Duplicate:  # a statement whose outcome was unknown had entered it
            await self._db.execute(_RENEW, mine)

    async def release(self, owner: str) -> None:
        """The process has ended: what it leaves may be taken over now."""
        await self._db.execute(delete(leases).where(leases.c.owner == owner))

    async def is_alive(self, owner: str) -> bool:
        """True while the process holds its lease."""
        async with self._db.begin(read_only=True) as conn:
            return bool((await conn.execute(select(is_alive(leases.c.owner)).where(leases.c.owner == owner))).scalar())

    async def living(self) -> frozenset[str]:
        """Every process that holds its lease."""
        query = select(leases.c.owner).where(leases.c.lease_until > database_time())
        async with self._db.begin(read_only=True) as conn:
            return frozenset((await conn.execute(query)).scalars())

    async def sweep(self) -> None:
        """Forget processes that are long gone."""
        await self._db.execute(delete(leases).where(leases.c.lease_until < database_time(-LEASES_KEPT_S)))


def is_alive(owner: ColumnElement[str]) -> ColumnElement[bool]:
    """In a statement: the process that `owner` names holds its lease."""
    held = leases.alias("held")
    return exists().where(held.c.owner == owner, held.c.lease_until > database_time()).correlate_except(held)
