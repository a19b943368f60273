"""The durable memory of flows: what was started, and what happened to each step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, insert, select, update

from common.base.clock import Clock
from common.base.errors import NotFound
from common.base.limits import LIST_ROWS_MAX
from common.db.engine import Database
from common.db.errors import Duplicate
from common.db.tables import flows, journal
from common.machine.decide import Entry, Mark


class FlowState(StrEnum):
    """flows.state. `parked` waits for a person."""

    RUNNING = "running"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    PARKED = "parked"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRow:
    """A row of flows. `arguments` must be JSON; the times are None until the row is stored."""

    id: str
    saga: str
    subject: str
    owner: str
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    request_id: str | None = None
    state: FlowState = FlowState.RUNNING
    error: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRow:
    """A row of journal. `attempt` counts from 1; `output` is JSON, or None."""

    id: int
    flow_id: str
    step: str
    mark: Mark
    final: bool
    attempt: int
    output: Any = field(default=None, repr=False)
    error: str | None = None
    created_at: datetime

    @property
    def entry(self) -> Entry:
        """The row as the engine sees it."""
        return Entry(self.step, self.mark, self.final)


class Journal:
    """Every method is one transaction; all raise what `Database.begin` raises."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def open(self, flow: FlowRow) -> bool:
        """True when the flow was stored; False when there is one of that id, which stays as it is."""
        now = self._clock.utcnow()
        row = {
            "id": flow.id,
            "saga": flow.saga,
            "subject": flow.subject,
            "arguments": dict(flow.arguments),
            "request_id": flow.request_id,
            "owner": flow.owner,
            "state": str(flow.state),
            "error": flow.error,
            "created_at": now,
            "updated_at": now,
        }
        try:
            await self._db.run(lambda conn: conn.execute(insert(flows).values(row)))
        except Duplicate:
            return False
        return True

    async def flow(self, flow_id: str) -> FlowRow | None:
        """The flow, or None."""
        found = await _flows(self._db, flows.c.id == flow_id)
        return found[0] if found else None

    async def entries(self, flow_id: str) -> list[JournalRow]:
        """The flow's journal, oldest row first."""
        query = select(journal).where(journal.c.flow_id == flow_id).order_by(journal.c.id)
        async with self._db.begin(read_only=True) as conn:
            return [_journal_row(row) for row in await conn.execute(query)]

    async def write(
        self,
        flow_id: str,
        *,
        step: str,
        mark: Mark,
        attempt: int,
        final: bool = False,
        output: Any = None,
        error: str | None = None,
    ) -> None:
        """Adds a row; durable when it returns. `output` must be JSON."""
        row = {
            "flow_id": flow_id,
            "step": step,
            "mark": str(mark),
            "final": final,
            "attempt": attempt,
            "output": output,
            "error": error,
            "created_at": self._clock.utcnow(),
        }
        await self._db.run(lambda conn: conn.execute(insert(journal).values(row)))

    async def finish(self, flow_id: str, state: FlowState, error: str | None = None) -> None:
        """Sets the flow's state and error; `running` takes a parked flow up again. Raises NotFound."""
        change = update(flows).where(flows.c.id == flow_id)
        change = change.values(state=str(state), error=error, updated_at=self._clock.utcnow())
        if not (await self._db.run(lambda conn: conn.execute(change))).rowcount:
            raise NotFound(kind="flow", name=flow_id)

    async def unfinished(self, owner: str) -> list[FlowRow]:
        """The owner's running flows, oldest first: all of them, since what is left out would never be carried on."""
        return await _flows(self._db, flows.c.owner == owner, flows.c.state == str(FlowState.RUNNING))

    async def list(self, subject: str | None = None) -> list[FlowRow]:
        """The newest LIST_ROWS_MAX flows, of one subject or of all, oldest first."""
        where = [] if subject is None else [flows.c.subject == subject]
        query = select(flows).where(*where).order_by(flows.c.created_at.desc(), flows.c.id.desc()).limit(LIST_ROWS_MAX)
        async with self._db.begin(read_only=True) as conn:
            return [_flow_row(row) for row in await conn.execute(query)][::-1]


async def _flows(db: Database, *where: ColumnElement[bool]) -> list[FlowRow]:
    """Oldest first."""
    query = select(flows).where(*where).order_by(flows.c.created_at, flows.c.id)
    async with db.begin(read_only=True) as conn:
        return [_flow_row(row) for row in await conn.execute(query)]


def _flow_row(row: Row[Any]) -> FlowRow:
    values = dict(row._mapping)
    return FlowRow(**{**values, "state": FlowState(values["state"])})


def _journal_row(row: Row[Any]) -> JournalRow:
    values = dict(row._mapping)
    return JournalRow(**{**values, "mark": Mark(values["mark"])})
