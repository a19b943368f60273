"""Fences on each database: what is written for a flow that somebody else carries on is refused, and leaves nothing."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import insert, select, update

from common.db import fence
from common.db.engine import Database
from common.db.fence import Fence, Superseded, fenced
from common.db.journal import FlowRow, FlowState, Journal
from common.db.owner import Owner
from common.db.tables import flows, leases
from common.host.clock import SystemClock
from common.machine.decide import Mark

ME = Owner(process="api.h1", home="api", boot="1")
OTHER = Owner(process="api.h2", home="api", boot="1")
ENDS = [state for state in FlowState if state is not FlowState.RUNNING]
FLOW = FlowRow(id="f#1", saga="s", subject="x:1", owner=str(ME), home="api")


@pytest.fixture
async def journal(database: Database) -> Journal:
    made = Journal(database, SystemClock())
    await made.open(FLOW)
    return made


async def write(db: Database, name: str, held: Fence | None, before: Callable[[], object] = lambda: None) -> None:
    """Some row of no flow's, under a fence."""
    with fenced(held):
        async with db.begin() as conn:
            before()
            await conn.execute(insert(leases).values(owner=name, lease_until=SystemClock().utcnow()))


async def written(db: Database) -> set[str]:
    async with db.begin(read_only=True) as conn:
        return set((await conn.execute(select(leases.c.owner))).scalars())


async def test_a_write_under_the_flow_s_fence_is_done(database: Database, journal: Journal) -> None:
    await write(database, "a", Fence(FLOW.id, 1))
    assert await written(database) == {"a"}


async def test_a_write_under_another_number_is_refused_before_it_begins(database: Database, journal: Journal) -> None:
    begun: list[str] = []
    for held in (Fence(FLOW.id, 0), Fence(FLOW.id, 2), Fence("none", 1)):
        with pytest.raises(Superseded, match=f"Flow {held.flow_id} .* fence {held.number}"):
            await write(database, "a", held, lambda: begun.append("a"))
    assert begun == []
    assert await written(database) == set()


async def test_after_a_takeover_the_old_owner_writes_nothing_and_the_new_one_does(database: Database, journal: Journal) -> None:
    assert await journal.adopt(FLOW, OTHER) == 2
    with pytest.raises(Superseded):
        await write(database, "old", Fence(FLOW.id, 1))
    with fenced(Fence(FLOW.id, 1)), pytest.raises(Superseded):
        await journal.write(FLOW.id, seq=0, step="a", mark=Mark.BEGUN, attempt=1)
    await write(database, "new", Fence(FLOW.id, 2))
    assert await written(database) == {"new"}
    assert await journal.entries(FLOW.id) == []


async def test_for_a_flow_that_has_ended_nothing_more_is_written(database: Database, journal: Journal) -> None:
    for state in ENDS:
        await journal.open(replace(FLOW, id=state))
        await journal.finish(state, state, fence=1)
        with pytest.raises(Superseded):
            await write(database, "late", Fence(state, 1))
    assert await written(database) == set()


async def test_a_read_is_not_asked_for_a_fence(database: Database, journal: Journal) -> None:
    with fenced(Fence("none", 1)):
        assert await written(database) == set()


async def test_a_takeover_waits_for_a_fenced_transaction_that_is_under_way(database: Database, journal: Journal) -> None:
    """So nothing of the old owner's is committed behind the takeover."""
    order: list[str] = []

    async def take() -> None:
        assert await journal.adopt(FLOW, OTHER) == 2
        order.append("taken")

    async with asyncio.TaskGroup() as group:
        with fenced(Fence(FLOW.id, 1)):
            async with database.begin() as conn:
                with fenced(None):
                    task = group.create_task(take())
                assert await asyncio.wait([task], timeout=0.1) == (set(), {task})
                await conn.execute(insert(leases).values(owner="in time", lease_until=SystemClock().utcnow()))
                order.append("written")
    assert order == ["written", "taken"]
    assert await written(database) == {"in time"}


async def test_a_fenced_transaction_that_waits_for_a_takeover_is_refused_behind_it(database: Database, journal: Journal) -> None:
    begun = asyncio.Event()

    async def late() -> None:
        begun.set()
        await write(database, "late", Fence(FLOW.id, 1))

    async with database.begin() as conn:
        await conn.execute(update(flows).where(flows.c.id == FLOW.id).values(owner=str(OTHER), fence=2))
        task = asyncio.ensure_future(late())
        await begun.wait()
        assert await asyncio.wait([task], timeout=0.1) == (set(), {task})
    with pytest.raises(Superseded):
        await task
    assert await written(database) == set()


async def test_a_journal_row_that_waits_for_a_takeover_is_refused_behind_it(database: Database, journal: Journal) -> None:
    async def late() -> None:
        with fenced(Fence(FLOW.id, 1)):
            await journal.write(FLOW.id, seq=0, step="a", mark=Mark.BEGUN, attempt=1)

    async with database.begin() as conn:
        await conn.execute(update(flows).where(flows.c.id == FLOW.id).values(owner=str(OTHER), fence=2))
        task = asyncio.ensure_future(late())
        assert await asyncio.wait([task], timeout=0.1) == (set(), {task})
    with pytest.raises(Superseded):
        await task
    assert await journal.entries(FLOW.id) == []


async def test_transactions_of_one_flow_under_one_fence_do_not_wait_for_each_other(database: Database, journal: Journal) -> None:
    """SQLite has one writer at a time in any case."""
    if database.dialect == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    with fenced(Fence(FLOW.id, 1)):
        async with asyncio.timeout(5), database.begin(), database.begin() as conn:
            await conn.execute(insert(leases).values(owner="second", lease_until=SystemClock().utcnow()))
    assert await written(database) == {"second"}


async def test_the_fence_of_one_task_is_not_that_of_another(database: Database, journal: Journal) -> None:
    other = replace(FLOW, id="f#2")
    await journal.open(other)
    await journal.adopt(other, ME)
    async with asyncio.TaskGroup() as group:
        group.create_task(write(database, "a", Fence(FLOW.id, 1)))
        group.create_task(write(database, "b", Fence(other.id, 2)))
        group.create_task(write(database, "c", None))
    assert fence.held() is None
    assert await written(database) == {"a", "b", "c"}


@pytest.mark.parametrize("flow_id", ["f", "f#1", "attach/ü#"])
def test_a_fence_is_read_as_it_was_written(flow_id: str) -> None:
    assert Fence.parse(str(Fence(flow_id, 12))) == Fence(flow_id, 12)


@pytest.mark.parametrize("text", ["", "f", "f#", "f#x", "f#-1", "f#1.5", "f#²", "f# 1"])
def test_what_is_no_fence_is_none(text: str) -> None:
    assert Fence.parse(text) is None
