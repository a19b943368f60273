"""Flows and their journal, on each database."""

import asyncio
from dataclasses import replace
from datetime import datetime

import pytest

from common.db.engine import Database
from common.db.errors import Duplicate
from common.db.fence import Fence, Superseded, fenced
from common.db.journal import FlowRow, FlowState, Journal, NewRow
from common.db.owner import Owner
from common.db.tables import flows
from common.host.clock import SystemClock
from common.machine.decide import Entry, Mark

NOW = datetime(2026, 11, 23)  # noqa: DTZ001 - rows hold naive UTC
CMP1 = Owner(process="cmp1", home="cmp1", is_alone=True, boot="1")
CMP2 = Owner(process="cmp2", home="cmp2", is_alone=True, boot="1")
FLOW = FlowRow(
    id="attach_volume/a", saga="attach_volume", subject="a", owner=str(CMP1), home="cmp1", arguments={"volume_id": "v", "ü": [1]}
)


@pytest.fixture
def journal(database: Database) -> Journal:
    return Journal(database, SystemClock())


async def test_a_flow_is_stored_once_and_stays_as_it_was(journal: Journal) -> None:
    assert await journal.open(FLOW)
    first = await journal.flow(FLOW.id)
    assert first is not None
    assert not await journal.open(replace(FLOW, owner=str(CMP2), arguments={}))
    assert await journal.flow(FLOW.id) == first
    assert replace(first, created_at=None, updated_at=None) == FLOW
    assert first.created_at is not None


ROWS = [
    NewRow(step="one", mark=Mark.DONE, attempt=2, output={"device": "/dev/vdb", "ü": [None, 1.5, True]}),
    NewRow(step="two", mark=Mark.BEGUN, attempt=1),
    NewRow(step="two", mark=Mark.FAILED, attempt=1, final=True, error="it's \\ 100 % wrong: ü"),
]


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_rows_are_the_same_whether_a_fence_is_held_or_not(journal: Journal, number: int) -> None:
    other = replace(FLOW, id="attach_volume/b")
    for flow in (FLOW, other):
        await journal.open(flow)
    await journal.append(other.id, ROWS[:number], seq=4)
    with fenced(Fence(FLOW.id, 1)):
        await journal.append(FLOW.id, ROWS[:number], seq=4)
    plain, held = [
        [replace(row, id=0, flow_id="", created_at=NOW) for row in await journal.entries(flow.id)] for flow in (other, FLOW)
    ]
    assert held == plain
    assert [(row.seq, row.output, row.error) for row in held] == [
        (4 + place, row.output, row.error) for place, row in enumerate(ROWS[:number])
    ]


async def test_rows_under_a_fence_twice_are_there_once(journal: Journal) -> None:
    await journal.open(FLOW)
    with fenced(Fence(FLOW.id, 1)):
        for _ in range(2):
            await journal.append(FLOW.id, ROWS, seq=0)
        with pytest.raises(Duplicate):
            await journal.append(FLOW.id, ROWS[1:], seq=0)
    assert [row.seq for row in await journal.entries(FLOW.id)] == [0, 1, 2]


@pytest.mark.parametrize("number", [1, 3])
async def test_of_rows_under_a_fence_that_fell_none_is_written(journal: Journal, number: int) -> None:
    await journal.open(FLOW)
    assert await journal.adopt(FLOW, replace(CMP1, boot="2")) == 2
    with fenced(Fence(FLOW.id, 1)), pytest.raises(Superseded):
        await journal.append(FLOW.id, ROWS[:number], seq=0)
    assert await journal.entries(FLOW.id) == []
    with fenced(Fence(FLOW.id, 2)):
        await journal.append(FLOW.id, ROWS[:number], seq=0)
        await journal.finish(FLOW.id, FlowState.COMPLETED, fence=2)
        with pytest.raises(Superseded):
            await journal.append(FLOW.id, ROWS[:number], seq=7)
    assert len(await journal.entries(FLOW.id)) == number


async def test_of_many_that_open_one_flow_at_once_one_is_told_that_it_did(journal: Journal) -> None:
    opened = await asyncio.gather(*(journal.open(FLOW) for _ in range(10)))
    assert sorted(opened) == [False] * 9 + [True]


async def test_a_flow_that_nobody_opened_is_none(journal: Journal) -> None:
    assert await journal.flow("none") is None


async def test_the_journal_gives_back_its_rows_in_order_as_the_engine_reads_them(journal: Journal) -> None:
    await journal.open(FLOW)
    await journal.write(FLOW.id, seq=0, step="one", mark=Mark.BEGUN, attempt=1)
    await journal.write(FLOW.id, seq=1, step="one", mark=Mark.DONE, attempt=1, output={"device": "/dev/vdb"})
    await journal.write(FLOW.id, seq=2, step="two", mark=Mark.BEGUN, attempt=1)
    await journal.write(FLOW.id, seq=3, step="two", mark=Mark.FAILED, attempt=1, final=True, error="no")
    rows = await journal.entries(FLOW.id)
    assert [row.entry for row in rows] == [
        Entry("one", Mark.BEGUN),
        Entry("one", Mark.DONE),
        Entry("two", Mark.BEGUN),
        Entry("two", Mark.FAILED, final=True),
    ]
    assert [(row.output, row.error) for row in rows] == [(None, None), ({"device": "/dev/vdb"}, None), (None, None), (None, "no")]


async def test_the_rows_of_one_flow_are_not_those_of_another(journal: Journal) -> None:
    other = replace(FLOW, id="other")
    await journal.open(FLOW)
    await journal.open(other)
    await journal.write(other.id, seq=0, step="one", mark=Mark.BEGUN, attempt=1)
    assert await journal.entries(FLOW.id) == []


async def test_secrets_of_a_flow_do_not_show_in_its_repr(journal: Journal) -> None:
    await journal.open(replace(FLOW, arguments={"password": "hunter2"}))
    await journal.write(FLOW.id, seq=0, step="one", mark=Mark.DONE, attempt=1, output="hunter2")
    assert "hunter2" not in repr(await journal.flow(FLOW.id))
    assert "hunter2" not in repr(await journal.entries(FLOW.id))


async def test_only_running_flows_of_the_home_are_left_behind(journal: Journal) -> None:
    for name, state in (
        ("a", None),
        ("b", FlowState.COMPLETED),
        ("c", FlowState.COMPENSATED),
        ("d", FlowState.PARKED),
        ("e", None),
    ):
        await journal.open(replace(FLOW, id=name))
        if state is not None:
            await journal.finish(name, state, fence=1)
    await journal.open(replace(FLOW, id="f", owner=str(CMP2), home="cmp2"))
    assert [flow.id for flow in await journal.left_behind(CMP1)] == ["a", "e"]


async def test_a_finished_flow_tells_its_end_and_finishing_it_again_changes_nothing(journal: Journal) -> None:
    await journal.open(FLOW)
    await journal.finish(FLOW.id, FlowState.PARKED, error="the target does not answer", fence=1)
    await journal.finish(FLOW.id, FlowState.PARKED, error="the target does not answer", fence=1)
    found = await journal.flow(FLOW.id)
    assert found is not None
    assert (found.state, found.error) == (FlowState.PARKED, "the target does not answer")


async def test_an_unknown_flow_or_one_under_another_fence_cannot_be_finished(journal: Journal) -> None:
    with pytest.raises(Superseded, match="Flow none"):
        await journal.finish("none", FlowState.COMPLETED, fence=1)
    await journal.open(FLOW)
    assert await journal.adopt(FLOW, CMP1) == 2
    with pytest.raises(Superseded, match="fence 1"):
        await journal.finish(FLOW.id, FlowState.COMPLETED, fence=1)
    await journal.finish(FLOW.id, FlowState.COMPLETED, fence=2)


async def test_flows_are_listed_by_subject_oldest_first(journal: Journal) -> None:
    for name, subject in (("a", "s1"), ("b", "s2"), ("c", "s1")):
        await journal.open(replace(FLOW, id=name, subject=subject))
    assert [flow.id for flow in await journal.list(flows.c.subject == "s1")] == ["a", "c"]
    assert [flow.id for flow in await journal.list()] == ["a", "b", "c"]
