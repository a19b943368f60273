"""The outbox: messages that are promised in the transaction that changes the state, and published afterwards, in order.

A message is a row until the bus has confirmed it. Dying between the confirm and the row's end publishes it twice: its `_unique_id`
and the flow that it begins are the same, so the receiver does nothing the second time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, insert, not_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.base.clock import Clock
from common.base.limits import FAULT_TEXT_MAX, LIST_ROWS_MAX, OUTBOX_BATCH
from common.db.engine import Database, when_committed
from common.db.lease import is_alive
from common.db.owner import ME, Owner, is_predecessor
from common.db.tables import outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message as the outbox keeps it. `exchange` is its declaration, None for the default exchange; `body` may hold secrets."""

    exchange: dict[str, Any] | None
    routing_key: str
    body: str = field(repr=False)
    headers: dict[str, Any]
    request_id: str | None = None
    id: int = 0
    owner: str = ""
    attempts: int = 0
    error: str | None = None
    created_at: datetime | None = None

    @property
    def address(self) -> str:
        """Where it goes, for people, and for order: letters to one address stay behind one another."""
        return f"{(self.exchange or {}).get('name', '')}/{self.routing_key}"


_COLUMNS = [outbox.c[name] for name in Letter.__dataclass_fields__]
_INSERT = insert(outbox)
_PENDING = (
    select(*_COLUMNS)
    .where(outbox.c.owner == bindparam("mine"), outbox.c.id > bindparam("after"))
    .order_by(outbox.c.id)
    .limit(OUTBOX_BATCH)
)
_GONE = is_predecessor(outbox.c.owner) | not_(is_alive(outbox.c.owner))
_ADOPT = update(outbox).where(outbox.c.home == bindparam("of_home"), outbox.c.owner != ME, _GONE).values(owner=ME)
_DELETE = delete(outbox).where(outbox.c.id.in_(bindparam("ids", expanding=True)))


class Outbox:
    """The letters of one process. Every method but `put` is one transaction; all raise what `Database.begin` raises.

    owner   this process, and who may publish them when it cannot
    """

    def __init__(self, db: Database, clock: Clock, *, owner: Owner) -> None:
        self._db = db
        self._clock = clock
        self._owner = owner
        self.on_put: Callable[[], None] = _nobody
        """Called when letters were entered and committed."""

    async def put(self, conn: AsyncConnection, letters: Sequence[Letter]) -> None:
        """Enter letters in a transaction of the caller's."""
        now = self._clock.utcnow()
        rows = [
            {
                "home": self._owner.home,
                "owner": str(self._owner),
                "exchange": letter.exchange,
                "routing_key": letter.routing_key,
                "body": letter.body,
                "headers": letter.headers,
                "request_id": letter.request_id,
                "attempts": 0,
                "created_at": now,
            }
            for letter in letters
        ]
        if rows:
            await conn.execute(_INSERT, rows)
            when_committed(conn, self.on_put)

    async def pending(self, after: int = 0) -> list[Letter]:
        """This process's OUTBOX_BATCH oldest letters behind the one with id `after`."""
        return await _letters(self._db, _PENDING, {"mine": str(self._owner), "after": after})

    async def sent(self, ids: Sequence[int]) -> None:
        """The bus has confirmed them."""
        await self._db.execute(_DELETE, {"ids": ids})

    async def failed(self, letter_id: int, error: str) -> None:
        """One more attempt that was not confirmed, for those who look for it."""
        change = update(outbox).where(outbox.c.id == letter_id)
        change = change.values(attempts=outbox.c.attempts + 1, error=error[:FAULT_TEXT_MAX])
        await self._db.execute(change)

    async def adopt(self) -> int:
        """Take over the letters of this home's processes that are gone; how many."""
        parameters = {**self._owner.parameters, "of_home": self._owner.home}
        return (await self._db.execute(_ADOPT, parameters)).rowcount


def _nobody() -> None:
    """Nobody wants to know."""


async def waiting(db: Database, *where: ColumnElement[bool]) -> list[Letter]:
    """The oldest LIST_ROWS_MAX letters of every process, for people."""
    return await _letters(db, select(*_COLUMNS).where(*where).order_by(outbox.c.id).limit(LIST_ROWS_MAX))


async def _letters(db: Database, query: Any, parameters: dict[str, Any] | None = None) -> list[Letter]:
    async with db.begin(read_only=True) as conn:
        return [Letter(**row._mapping) for row in await conn.execute(query, parameters)]
