"""Who may carry a flow on, who does, and what its journal refuses, on each database."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from common.base.errors import Conflict, NotFound
from common.db.engine import Database
from common.db.errors import Duplicate
from common.db.journal import FlowRow, FlowState, Journal
from common.db.lease import Leases
from common.db.owner import Owner
from common.db.tables import flows
from common.host.clock import SystemClock
from common.machine.decide import Mark

ME = Owner(process="api.h1", home="api", boot="me")
FLOW = FlowRow(id="f1", saga="s", subject="x:1", owner=str(ME), home="api")


@pytest.fixture
def journal(database: Database) -> Journal:
    return Journal(database, SystemClock())


async def left(journal: Journal, owner: Owner) -> list[str]:
    return [row.id for row in await journal.left_behind(owner)]


async def the(journal: Journal, name: str = FLOW.id) -> FlowRow:
    found = await journal.flow(name)
    assert found is not None
    return found


# -- rows of the journal ----------------------------------------------------------------------------------------------


async def test_a_row_that_was_written_already_may_be_written_again(journal: Journal) -> None:
    await journal.open(FLOW)
    for _ in range(2):
        await journal.write(FLOW.id, seq=0, step="one", mark=Mark.BEGUN, attempt=1)
    await asyncio.gather(*(journal.write(FLOW.id, seq=1, step="one", mark=Mark.DONE, attempt=1, output={"a": 1}) for _ in range(5)))
    assert [(row.seq, row.mark) for row in await journal.entries(FLOW.id)] == [(0, Mark.BEGUN), (1, Mark.DONE)]


async def test_another_row_in_the_same_place_is_refused_and_the_first_stays(journal: Journal) -> None:
    row = {"seq": 0, "step": "one", "mark": Mark.BEGUN, "attempt": 1}
    await journal.open(FLOW)
    await journal.write(FLOW.id, **row)  # type: ignore[arg-type]  # by their names
    for other in ({"step": "two"}, {"mark": Mark.DONE}, {"attempt": 2}):
        with pytest.raises(Duplicate):
            await journal.write(FLOW.id, **{**row, **other})  # type: ignore[arg-type]
    assert [(each.step, each.mark, each.attempt) for each in await journal.entries(FLOW.id)] == [("one", Mark.BEGUN, 1)]


# -- what is left behind ----------------------------------------------------------------------------------------------


async def test_flows_of_living_processes_are_left_to_them(database: Database, journal: Journal) -> None:
    other = Owner(process="api.h2", home="api")
    await journal.open(replace(FLOW, owner=str(other)))
    await Leases(database).renew(str(other))
    assert await left(journal, ME) == []


async def test_flows_of_a_process_whose_lease_ran_out_or_that_has_none_are_left_behind(
    database: Database, journal: Journal
) -> None:
    late, never = Owner(process="api.h2", home="api"), Owner(process="api.h3", home="api")
    await Leases(database, lease_s=-1).renew(str(late))
    await journal.open(replace(FLOW, id="late", owner=str(late)))
    await journal.open(replace(FLOW, id="never", owner=str(never)))
    assert await left(journal, ME) == ["late", "never"]


async def test_flows_of_another_home_are_not_ours_whoever_is_dead(journal: Journal) -> None:
    await journal.open(replace(FLOW, owner="compute.h1#1", home="compute.h1"))
    assert await left(journal, ME) == []


async def test_a_process_that_is_alone_by_name_takes_its_predecessor_for_dead_at_once(database: Database, journal: Journal) -> None:
    before, now = (Owner(process="compute.h_1", home="compute.h_1", is_alone=True) for _ in range(2))
    await Leases(database).renew(str(before))
    await Leases(database).renew("compute.hx1#1")
    await journal.open(replace(FLOW, id="before", owner=str(before), home=before.home))
    # In SQL's LIKE the underscore is any character.
    await journal.open(replace(FLOW, id="of another name", owner="compute.hx1#1", home=before.home))
    assert await left(journal, now) == ["before"]
    shared = replace(now, is_alone=False)
    assert await left(journal, shared) == []


async def test_boots_that_are_known_dead_are_not_waited_for(database: Database, journal: Journal) -> None:
    for boot in ("b1", "b2"):
        await Leases(database).renew(f"api.h1#{boot}")
        await journal.open(replace(FLOW, id=boot, owner=f"api.h1#{boot}"))
    assert await left(journal, replace(ME, dead=frozenset({"b1"}))) == ["b1"]
    assert await left(journal, replace(ME, process="api.h2", dead=frozenset({"b1"}))) == []


async def test_its_own_flows_are_left_behind_too_though_it_lives(database: Database, journal: Journal) -> None:
    """Whether it drives them is its own to know."""
    await Leases(database).renew(str(ME))
    await journal.open(FLOW)
    assert await left(journal, ME) == [FLOW.id]


async def test_what_is_left_behind_comes_oldest_first(database: Database, journal: Journal) -> None:
    at = SystemClock().utcnow()
    for number, name in enumerate(("c", "a", "b")):
        await journal.open(replace(FLOW, id=name))
        async with database.begin() as conn:
            await conn.execute(update(flows).where(flows.c.id == name).values(created_at=at + timedelta(seconds=number)))
    assert await left(journal, ME) == ["c", "a", "b"]


async def test_a_deadline_is_over_when_the_database_s_clock_has_passed_it(journal: Journal) -> None:
    for name, deadline_s, is_over in (("none", None, False), ("far", 3600.0, False), ("past", -1.0, True), ("now", 0.0, True)):
        await journal.open(replace(FLOW, id=name), deadline_s=deadline_s)
        found = await the(journal, name)
        assert found.is_over is is_over
        assert (found.deadline is None) is (deadline_s is None)


# -- taking over ------------------------------------------------------------------------------------------------------


async def test_of_ten_who_would_carry_a_flow_on_one_does(journal: Journal) -> None:
    await journal.open(replace(FLOW, owner="api.h0#dead"))
    row = await the(journal)
    owners = [replace(ME, process=f"api.h{number}") for number in range(10)]
    fences = await asyncio.gather(*(journal.adopt(row, owner) for owner in owners))
    assert sorted(each for each in fences if each is not None) == [2]
    found = await the(journal)
    assert found.owner == str(owners[next(number for number, each in enumerate(fences) if each)])


async def test_asked_again_since_the_answer_was_lost_the_one_who_took_it_has_it_and_no_other(
    database: Database, journal: Journal
) -> None:
    other = replace(ME, process="api.h2")
    await journal.open(replace(FLOW, owner="api.h0#dead"))
    row = await the(journal)
    await Leases(database).renew(str(ME))
    assert await journal.adopt(row, ME) == 2
    assert await journal.adopt(row, ME) == 2
    assert await journal.adopt(row, other) is None
    assert (await the(journal)).fence == 2


async def test_a_flow_of_a_living_process_cannot_be_taken(database: Database, journal: Journal) -> None:
    await journal.open(FLOW)
    await Leases(database).renew(str(ME))
    assert await journal.adopt(await the(journal), replace(ME, process="api.h2")) is None


async def test_a_flow_whose_owner_came_back_to_life_since_it_was_looked_at_stays_its_own(
    database: Database, journal: Journal
) -> None:
    other = replace(ME, process="api.h2")
    await journal.open(FLOW)
    [row] = await journal.left_behind(other)
    await Leases(database).renew(str(ME))
    assert await journal.adopt(row, other) is None
    assert (await the(journal)).fence == 1


async def test_what_has_ended_is_not_carried_on(journal: Journal) -> None:
    for state in (FlowState.COMPLETED, FlowState.COMPENSATED, FlowState.PARKED, FlowState.ABANDONED):
        await journal.open(replace(FLOW, id=state))
        row = await the(journal, state)
        await journal.finish(state, state, fence=1)
        assert await journal.adopt(row, ME) is None


# -- a person's word --------------------------------------------------------------------------------------------------


async def test_a_parked_flow_that_is_resumed_has_no_owner_a_new_fence_and_a_row_that_says_so(journal: Journal) -> None:
    await journal.open(FLOW)
    await journal.write(FLOW.id, seq=0, step="one", mark=Mark.BEGUN, attempt=1)
    await journal.finish(FLOW.id, FlowState.PARKED, "no way", fence=1)
    await journal.resume(FLOW.id)
    found = await the(journal)
    assert (found.state, found.owner, found.fence, found.error) == (FlowState.RUNNING, "", 2, None)
    assert [(row.seq, row.step, row.mark) for row in await journal.entries(FLOW.id)] == [
        (0, "one", Mark.BEGUN),
        (1, "one", Mark.RESUMED),
    ]
    assert await left(journal, replace(ME, process="api.h9")) == [FLOW.id]


async def test_of_two_persons_who_resume_a_flow_one_is_told_that_it_runs_already(journal: Journal) -> None:
    await journal.open(FLOW)
    await journal.write(FLOW.id, seq=0, step="one", mark=Mark.BEGUN, attempt=1)
    await journal.finish(FLOW.id, FlowState.PARKED, fence=1)
    said = await asyncio.gather(journal.resume(FLOW.id), journal.resume(FLOW.id), return_exceptions=True)
    assert [type(each) for each in said if each is not None] == [Conflict]
    assert len(await journal.entries(FLOW.id)) == 2


async def test_a_parked_flow_that_is_given_up_keeps_the_reason_and_is_nobody_s(journal: Journal) -> None:
    await journal.open(FLOW)
    await journal.finish(FLOW.id, FlowState.PARKED, "no way", fence=1)
    await journal.abandon(FLOW.id, "the disk is gone")
    found = await the(journal)
    assert (found.state, found.owner, found.fence, found.error) == (FlowState.ABANDONED, "", 2, "the disk is gone")
    assert await left(journal, ME) == []


async def test_only_parked_flows_are_resumed_or_given_up(journal: Journal) -> None:
    await journal.open(FLOW)
    for verb in (journal.resume(FLOW.id), journal.abandon(FLOW.id, "")):
        with pytest.raises(Conflict, match="Flow f1 is in state running; wanted: parked"):
            await verb
    for verb in (journal.resume("none"), journal.abandon("none", "")):
        with pytest.raises(NotFound):
            await verb
    assert (await the(journal)).fence == 1


async def test_a_request_is_done_when_a_flow_of_it_has_completed(journal: Journal) -> None:
    await journal.open(replace(FLOW, request_id="req-1"))
    assert not await journal.was_done("req-1", "s")
    await journal.finish(FLOW.id, FlowState.COMPLETED, fence=1)
    assert await journal.was_done("req-1", "s")
    assert await journal.was_done("req-1", "s", "x:1")
    for asked in (("req-2", "s", None), ("req-1", "t", None), ("req-1", "s", "x:2")):
        assert not await journal.was_done(*asked)


async def test_a_request_whose_flow_ended_in_another_way_is_not_done(journal: Journal) -> None:
    for state in (FlowState.COMPENSATED, FlowState.PARKED, FlowState.ABANDONED):
        await journal.open(replace(FLOW, id=state, request_id="req-1"))
        await journal.finish(state, state, fence=1)
    assert not await journal.was_done("req-1", "s")
