"""Compare-and-swap, over every pair of state and event of every table."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Table, insert, select, update

from cinder_lite.domain.attachment import ATTACHMENT
from cinder_lite.domain.volume import VOLUME, Event as VolumeEvent
from cinder_lite.store.tables import volume_attachment, volumes
from common.base.errors import Conflict, NotFound
from common.db.cas import advance
from common.db.engine import Database
from common.host.clock import SystemClock
from common.machine.table import Machine
from nova_lite.domain.instance import INSTANCE
from nova_lite.store.tables import instances

CLOCK = SystemClock()


@dataclass(frozen=True)
class Case:
    """A machine and where its state stands."""

    machine: Machine[Any, Any]
    table: Table
    columns: tuple[str, ...]
    key: dict[str, object]
    others: dict[str, object]


CASES = [
    Case(VOLUME, volumes, ("status",), {"id": "v"}, {"size": 1, "attach_status": "detached"}),
    Case(ATTACHMENT, volume_attachment, ("attach_status",), {"id": "a"}, {"volume_id": "v"}),
    Case(INSTANCE, instances, ("vm_state", "task_state"), {"uuid": "i"}, {"display_name": "vm"}),
]


def parts(state: Any) -> tuple[str | None, ...]:
    return tuple(None if part is None else str(part) for part in (state if isinstance(state, tuple) else (state,)))


async def stored(db: Database, case: Case) -> tuple[Any, ...]:
    async with db.begin() as conn:
        return tuple((await conn.execute(select(*(case.table.c[name] for name in case.columns)))).one())


async def outcome(db: Database, case: Case, event: Any) -> object:
    """The state after the event, or what a refusal says of the state found."""
    try:
        async with db.begin() as conn:
            await advance(conn, case.table, case.machine, event, kind="thing", key=case.key, columns=case.columns, clock=CLOCK)
    except Conflict as refused:
        return refused.found
    return await stored(db, case)


@pytest.fixture
async def rows(sqlite_database: Database) -> Database:
    """One live row of each table."""
    async with sqlite_database.begin() as conn:
        for case in CASES:
            state = dict(zip(case.columns, parts(case.machine.start), strict=True))
            await conn.execute(insert(case.table).values(**case.key, **case.others, **state))
    return sqlite_database


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.table.name)
async def test_every_event_moves_a_row_from_exactly_the_states_of_the_table(rows: Database, case: Case) -> None:
    for state in sorted(case.machine.states, key=str):
        for event in sorted(case.machine.events):
            async with rows.begin() as conn:
                await conn.execute(update(case.table).values(dict(zip(case.columns, parts(state), strict=True))))
            found = await outcome(rows, case, event)
            if case.machine.allows(state, event):
                assert found == parts(case.machine.after(state, event)), (state, event)
            else:
                assert found == ", ".join(part for part in parts(state) if part), (state, event)
                assert await stored(rows, case) == parts(state)


async def test_a_row_that_is_not_there_is_not_found(rows: Database) -> None:
    with pytest.raises(NotFound, match="Volume other could not be found"):
        async with rows.begin() as conn:
            await advance(conn, volumes, VOLUME, next(iter(VOLUME.events)), kind="Volume", key={"id": "other"}, clock=CLOCK)


async def test_a_soft_deleted_row_is_not_found(rows: Database) -> None:
    async with rows.begin() as conn:
        await conn.execute(update(instances).values(deleted=instances.c.id))
        await conn.execute(update(volumes).values(deleted=True))
    for case in (CASES[0], CASES[2]):
        event = next(event for state, event in case.machine.rows if state == case.machine.start)
        with pytest.raises(NotFound):
            async with rows.begin() as conn:
                await advance(conn, case.table, case.machine, event, kind="x", key=case.key, columns=case.columns, clock=CLOCK)


async def test_a_conflict_names_the_states_that_were_wanted(rows: Database) -> None:
    with pytest.raises(Conflict) as caught:
        async with rows.begin() as conn:
            await advance(conn, volumes, VOLUME, VolumeEvent.DELETE, kind="Volume", key={"id": "v"}, clock=CLOCK)
    assert str(caught.value) == "Volume v is in state creating; wanted: available or error or error_deleting or error_extending."


async def test_a_further_condition_that_does_not_hold_refuses_the_event_and_changes_nothing(rows: Database) -> None:
    with pytest.raises(Conflict):
        async with rows.begin() as conn:
            await advance(
                conn, volumes, VOLUME, VolumeEvent.CREATED, kind="Volume", key={"id": "v"}, where=[volumes.c.host == "x"],
                values={"size": 7}, clock=CLOCK,
            )  # fmt: skip
    async with rows.begin() as conn:
        assert tuple((await conn.execute(select(volumes.c.status, volumes.c.size))).one()) == ("creating", 1)


class _Ahead(SystemClock):
    """Of a host whose clock is wrong by an hour."""

    def utcnow(self) -> datetime:
        return super().utcnow() + timedelta(hours=1)


async def test_when_a_row_changed_is_told_by_the_databases_clock(rows: Database) -> None:
    """Others ask by it how old the change is."""
    async with rows.begin() as conn:
        await advance(conn, volumes, VOLUME, VolumeEvent.CREATED, kind="Volume", key={"id": "v"}, clock=_Ahead())
        changed_at = (await conn.execute(select(volumes.c.updated_at))).scalar_one()
    assert abs(changed_at - CLOCK.utcnow()) < timedelta(minutes=30)


async def test_other_columns_change_in_the_same_statement(rows: Database) -> None:
    async with rows.begin() as conn:
        await advance(conn, volumes, VOLUME, VolumeEvent.CREATED, kind="Volume", key={"id": "v"}, values={"size": 7}, clock=CLOCK)
        row = (await conn.execute(select(volumes))).one()
    assert (row.status, row.size) == ("available", 7)
    assert row.updated_at is not None
