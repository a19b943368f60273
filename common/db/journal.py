"""The durable memory of flows: what was started, who carries it on, and what happened to each step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Double, Insert, Row, Select, and_, bindparam, func, insert, not_, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.base.clock import Clock
from common.base.errors import Conflict, NotFound
from common.base.limits import LIST_ROWS_MAX
from common.db import fence
from common.db.engine import Database
from common.db.errors import Duplicate
from common.db.fence import RUNNING, Superseded
from common.db.lease import is_alive
from common.db.now import NOW, database_time
from common.db.outbox import Letter, Outbox
from common.db.owner import ME, Owner, is_predecessor
from common.db.tables import flows, journal
from common.db.url import SQLITE
from common.machine.decide import Entry, Mark


class FlowState(StrEnum):
    """flows.state. `parked` waits for a person; `abandoned` is what a person gave up."""

    RUNNING = RUNNING
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    PARKED = "parked"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRow:
    """A row of flows. `arguments` and `context` must be JSON; what the database fills in is None until the row is stored.

    fence     its number now: who holds an older one can write no more
    is_over   its deadline has passed, by the database's clock when the row was read
    """

    id: str
    saga: str
    subject: str
    owner: str
    home: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    context: Mapping[str, Any] | None = field(default=None, repr=False)
    request_id: str | None = None
    state: FlowState = FlowState.RUNNING
    fence: int = 1
    deadline: datetime | None = None
    error: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    is_over: bool = False

    @property
    def is_refusal(self) -> bool:
        """A flow that was never begun: its row keeps everybody from beginning it. `error` says why."""
        return self.state is FlowState.COMPENSATED and not self.subject


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRow:
    """A row of journal. `attempt` counts from 1; `output` is JSON, or None: of a failure, the error as it crosses the wire."""

    id: int
    flow_id: str
    seq: int
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRow:
    """A row that is to be added to a journal. `output` must be JSON."""

    step: str
    mark: Mark
    attempt: int
    final: bool = False
    output: Any = field(default=None, repr=False)
    error: str | None = None

    def values(self, flow_id: str, seq: int, now: datetime) -> dict[str, Any]:
        """Its columns."""
        return {
            "flow_id": flow_id,
            "seq": seq,
            "step": self.step,
            "mark": str(self.mark),
            "final": self.final,
            "attempt": self.attempt,
            "output": self.output,
            "error": self.error,
            "created_at": now,
        }


@dataclass(frozen=True, slots=True)
class Ending:
    """How a flow ends, and under which fence it ran."""

    state: FlowState
    error: str | None
    fence: int


_STORED = [name for name in FlowRow.__dataclass_fields__ if name != "is_over"]
_INSERT_FLOW = insert(flows).values(created_at=NOW, updated_at=NOW)
_INSERT_FLOW_UNTIL = _INSERT_FLOW.values(deadline=database_time(bindparam("left_s", type_=Double())))
_INSERT_ENTRY = insert(journal)
_ENTRIES = select(journal).where(journal.c.flow_id == bindparam("flow_id")).order_by(journal.c.seq)
_HELD = update(flows).where(flows.c.id == bindparam("flow_id"), flows.c.fence == bindparam("held")).values(updated_at=NOW)
_FLOWS: Select[Any] = select(
    *(flows.c[name] for name in _STORED), func.coalesce(flows.c.deadline < database_time(), False).label("is_over")
)
_IS_FREE = (flows.c.owner == ME) | is_predecessor(flows.c.owner) | not_(is_alive(flows.c.owner))
_LEFT_BEHIND = _FLOWS.where(flows.c.home == bindparam("of_home"), flows.c.state == RUNNING, _IS_FREE).order_by(
    flows.c.created_at, flows.c.id
)
_ADOPT = _HELD.where(flows.c.state == RUNNING, _IS_FREE).values(owner=ME)
_FLOW = _FLOWS.where(flows.c.id == bindparam("flow_id"))


class Journal:
    """Every method is one transaction; all raise what `Database.begin` raises.

    What changes a flow is asked for its fence like every other write of its work (common.db.fence); a person's verbs are not.
    """

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def open(self, flow: FlowRow, *, deadline_s: float | None = None) -> bool:
        """True when the flow was stored; False when there is one of that id, which stays as it is.

        deadline_s   seconds that are left to begin it in; None: no limit
        """
        row = _row_of(flow)
        statement, row["deadline"] = _INSERT_FLOW, None
        if deadline_s is not None:
            del row["deadline"]
            statement, row["left_s"] = _INSERT_FLOW_UNTIL, deadline_s
        try:
            await self._db.execute(statement, row)
        except Duplicate:
            return False
        return True

    async def enter(self, conn: AsyncConnection, flow: FlowRow) -> None:
        """Stores the flow in a transaction of the caller's. Raises SQLAlchemy's IntegrityError when there is one of that id."""
        await conn.execute(_INSERT_FLOW, {**_row_of(flow), "deadline": None})

    async def flow(self, flow_id: str) -> FlowRow | None:
        """The flow, or None."""
        found = await _flows(self._db, _FLOW, {"flow_id": flow_id})
        return found[0] if found else None

    async def entries(self, flow_id: str) -> list[JournalRow]:
        """The flow's journal, oldest row first."""
        async with self._db.begin(read_only=True) as conn:
            return [_journal_row(row) for row in await conn.execute(_ENTRIES, {"flow_id": flow_id})]

    async def last_entries(self, flow_ids: Sequence[str]) -> dict[str, JournalRow]:
        """The newest row of each flow that has one."""
        newest = select(func.max(journal.c.id)).where(journal.c.flow_id.in_(flow_ids)).group_by(journal.c.flow_id)
        async with self._db.begin(read_only=True) as conn:
            rows = [_journal_row(row) for row in await conn.execute(select(journal).where(journal.c.id.in_(newest)))]
        return {row.flow_id: row for row in rows}

    async def write(self, flow_id: str, *, seq: int, step: str, mark: Mark, attempt: int, **more: Any) -> None:
        """`append` of one row."""
        await self.append(flow_id, [NewRow(step=step, mark=mark, attempt=attempt, **more)], seq=seq)

    async def append(
        self, flow_id: str, rows: Sequence["NewRow"], *, seq: int, letters: Sequence[Letter] = (), outbox: Outbox | None = None,
        ending: "Ending | None" = None,
    ) -> None:  # fmt: skip
        """Adds rows to the flow's journal, the first as number `seq`, counted from 0; durable, all of them, when it returns.

        letters   what `outbox` is to send because of it, entered in the same transaction
        ending    the flow ends with it
        There already, by an earlier try whose outcome was unknown: nothing happens. Raises Superseded when the flow's fence is
        another one than `ending` says.
        """
        values = [row.values(flow_id, seq + place, self._clock.utcnow()) for place, row in enumerate(rows)]
        held = fence.held()
        # SQLite's round trips cost nothing, and its writers wait for their turn in any case.
        is_alone = self._db.dialect != SQLITE and held is not None and held.flow_id == flow_id and not letters and ending is None

        async def work(conn: AsyncConnection) -> None:
            if held is not None and is_alone:
                await _insert_fenced(conn, values, held)
                return
            if values:
                await conn.execute(_INSERT_ENTRY, values)
            if outbox is not None:
                await outbox.put(conn, letters)
            if ending is not None:
                await self._end(conn, flow_id, ending)

        try:
            await self._db.run(work, alone=is_alone)
        except Superseded:
            found = await self.flow(flow_id)
            if ending is None or found is None or (found.state, found.fence) != (ending.state, ending.fence):
                raise
        except Duplicate:
            there = [entry for entry in await self.entries(flow_id) if seq <= entry.seq < seq + len(rows)]
            if [(entry.step, entry.mark, entry.attempt) for entry in there] != [(row.step, row.mark, row.attempt) for row in rows]:
                raise

    async def _end(self, conn: AsyncConnection, flow_id: str, ending: "Ending") -> None:
        found_by = {"flow_id": flow_id, "held": ending.fence}
        values = {"state": str(ending.state), "error": ending.error}
        if not (await conn.execute(_HELD, {**found_by, **values})).rowcount:
            raise Superseded(flow_id=flow_id, fence=ending.fence)

    async def finish(self, flow_id: str, state: FlowState, error: str | None = None, *, fence: int) -> None:
        """The flow ends in `state`. The same again: nothing happens. Raises Superseded when its fence is another one now."""
        await self._db.run(lambda conn: self._end(conn, flow_id, Ending(state, error, fence)))

    async def left_behind(self, owner: Owner) -> list[FlowRow]:
        """The running flows of `owner.home` that nobody carries on, oldest first: of processes that are gone, and `owner`'s own.

        All of them, since what is left out would never be carried on.
        """
        return await _flows(self._db, _LEFT_BEHIND, {**owner.parameters, "of_home": owner.home})

    async def adopt(self, flow: FlowRow, owner: Owner) -> int | None:
        """The flow's new fence, when from now on `owner` carries it on; None when somebody else does, or it has ended."""
        found_by = {**owner.parameters, "flow_id": flow.id, "held": flow.fence}
        change = {**found_by, "fence": flow.fence + 1}
        if (await self._db.execute(_ADOPT, change)).rowcount:
            return flow.fence + 1
        found = await self.flow(flow.id)
        is_ours = found is not None and (found.owner, found.fence, found.state) == (str(owner), flow.fence + 1, FlowState.RUNNING)
        return flow.fence + 1 if is_ours else None

    async def resume(self, flow_id: str) -> None:
        """A person says that a parked flow may go on: its tries count anew, and whoever may carries it on within moments.

        Raises NotFound, and Conflict when it is not parked.
        """

        async def work(conn: AsyncConnection) -> None:
            await _take_parked(conn, flow_id, RUNNING)
            last = (
                await conn.execute(select(journal).where(journal.c.flow_id == flow_id).order_by(journal.c.seq.desc()).limit(1))
            ).one_or_none()
            if last is None:  # nothing was tried yet that could count
                return
            row = {
                "flow_id": flow_id,
                "seq": last.seq + 1,
                "step": last.step,
                "mark": str(Mark.RESUMED),
                "final": False,
                "attempt": 1,
            }
            await conn.execute(insert(journal).values({**row, "created_at": self._clock.utcnow()}))

        await self._db.run(work)

    async def abandon(self, flow_id: str, reason: str) -> None:
        """A person gives a parked flow up, and says why. Raises NotFound, and Conflict when it is not parked."""
        await self._db.run(lambda conn: _take_parked(conn, flow_id, FlowState.ABANDONED, reason))

    async def was_done(self, request_id: str, saga: str, subject: str | None = None) -> bool:
        """True when this very request has completed such a flow: asked again, since its answer was lost, it finds no more to do."""
        where = [flows.c.request_id == request_id, flows.c.saga == saga, flows.c.state == FlowState.COMPLETED]
        where += [] if subject is None else [flows.c.subject == subject]
        async with self._db.begin(read_only=True) as conn:
            return (await conn.execute(select(flows.c.id).where(*where).limit(1))).first() is not None

    async def is_open(self, saga: str, subject: str) -> bool:
        """True while such a flow of that subject runs or is parked, whoever carries it on."""
        where = [flows.c.state.in_([FlowState.RUNNING, FlowState.PARKED]), flows.c.saga == saga, flows.c.subject == subject]
        async with self._db.begin(read_only=True) as conn:
            return (await conn.execute(select(flows.c.id).where(*where).limit(1))).first() is not None

    async def list(self, *where: ColumnElement[bool]) -> list[FlowRow]:
        """The newest LIST_ROWS_MAX flows for which `where` holds, oldest first."""
        query = _FLOWS.where(*where).order_by(flows.c.created_at.desc(), flows.c.id.desc()).limit(LIST_ROWS_MAX)
        async with self._db.begin(read_only=True) as conn:
            return [_flow_row(row) for row in await conn.execute(query)][::-1]


def _row_of(flow: FlowRow) -> dict[str, Any]:
    """Its columns, but for what the database fills in."""
    row = {name: getattr(flow, name) for name in _STORED if name not in {"created_at", "updated_at"}}
    row |= {"arguments": dict(flow.arguments), "context": None if flow.context is None else dict(flow.context)}
    return row | {"state": str(flow.state)}


async def _insert_fenced(conn: AsyncConnection, values: Sequence[Mapping[str, Any]], held: fence.Fence) -> None:
    """The rows and the question for the fence in one statement: one round trip in the place of four. Raises Superseded."""
    given = {f"{name}_{place}": value for place, row in enumerate(values) for name, value in row.items()}
    stored = await conn.execute(_fenced_insert(len(values)), {**given, "held_flow": held.flow_id, "held": held.number})
    if stored.rowcount != len(values):
        raise Superseded(flow_id=held.flow_id, fence=held.number)


@cache
def _fenced_insert(rows: int) -> Insert:
    """So many rows, if the flow runs under the fence; its row is locked until they are committed, as by `fence.check`."""
    columns = [column for column in journal.c if column.name != "id"]
    each = [
        select(*(bindparam(f"{column.name}_{place}", type_=column.type).label(column.name) for column in columns))
        for place in range(rows)
    ]
    given = (union_all(*each) if rows > 1 else each[0]).subquery("given")
    stands = (flows.c.id == bindparam("held_flow"), flows.c.fence == bindparam("held"), flows.c.state == RUNNING)
    found = select(*given.c).select_from(given.join(flows, and_(*stands))).order_by(given.c.seq)
    return insert(journal).from_select([column.name for column in columns], found.with_for_update(read=True, of=flows))


async def _take_parked(conn: AsyncConnection, flow_id: str, state: str, error: str | None = None) -> None:
    """A parked flow goes to `state`, with a new fence and without an owner, so that nobody's old claim is left."""
    change = update(flows).where(flows.c.id == flow_id, flows.c.state == FlowState.PARKED)
    change = change.values(state=str(state), owner="", fence=flows.c.fence + 1, updated_at=NOW, error=error)
    if (await conn.execute(change)).rowcount:
        return
    found = (await conn.execute(select(flows.c.state).where(flows.c.id == flow_id))).scalar_one_or_none()
    if found is None:
        raise NotFound(kind="Flow", name=flow_id)
    raise Conflict(kind="Flow", name=flow_id, found=found, expected=FlowState.PARKED)


async def _flows(db: Database, query: Select[Any], parameters: Mapping[str, Any] | None = None) -> list[FlowRow]:
    async with db.begin(read_only=True) as conn:
        return [_flow_row(row) for row in await conn.execute(query, parameters)]


def _flow_row(row: Row[Any]) -> FlowRow:
    values = dict(row._mapping)
    return FlowRow(**{**values, "state": FlowState(values["state"]), "is_over": bool(values["is_over"])})


def _journal_row(row: Row[Any]) -> JournalRow:
    values = dict(row._mapping)
    return JournalRow(**{**values, "mark": Mark(values["mark"])})
