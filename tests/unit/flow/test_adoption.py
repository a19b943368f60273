"""Flows that outlive their process: carried on from their rows by another runner, by exactly one, and by none that lost them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest
import structlog
from sqlalchemy import insert, select

from common.base.context import Context
from common.base.errors import Fault, Unavailable
from common.db.engine import Database
from common.db.fence import Fence, fenced
from common.db.journal import FlowRow, FlowState, Journal, JournalRow
from common.db.lease import Leases
from common.db.owner import Owner
from common.db.tables import leases
from common.flow.driver import HandedBack
from common.flow.runner import EndedBefore, Runner
from common.flow.steps import Flow
from common.host.clock import SystemClock
from common.machine.decide import Mark
from common.machine.saga import Saga, Step
from common.testing.clock import JumpingClock

A, B = (Owner(process=f"api.h{number}", home="api", boot="1") for number in (1, 2))
DEAD = Owner(process="api.h0", home="api", boot="1")


class Nothing(msgspec.Struct, frozen=True):
    """No arguments."""


@dataclass
class Parts:
    """What the steps act on. `failing` always fail; `gate` holds up the step `held`."""

    failing: frozenset[str] = frozenset()
    held: str = ""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    done: list[str] = field(default_factory=list)
    db: Database | None = None


class Walk(Flow[Nothing, Parts]):
    saga = Saga(
        "walk",
        pivot="cross",
        steps=(Step("one", undo="un_one"), Step("two", undo="un_two", attempts=2), Step("cross"), Step("after")),
    )

    async def act(self, name: str) -> None:
        if name == self.parts.held:
            self.parts.reached.set()
            await self.parts.gate.wait()
        if self.parts.db is not None:
            async with self.parts.db.begin() as conn:
                await conn.execute(insert(leases).values(owner=f"written by {name}", lease_until=SystemClock().utcnow()))
        if name in self.parts.failing:
            self.parts.done.append(f"{name} failed")
            raise Unavailable(what=name, reason="away")
        self.parts.done.append(name)

    async def one(self, ctx: Context) -> dict[str, int]:
        await self.act("one")
        return {"answer": 42}

    async def un_one(self, ctx: Context) -> None:
        await self.act("un_one")

    async def two(self, ctx: Context) -> None:
        assert self.outputs["one"] == {"answer": 42}
        await self.act("two")

    async def un_two(self, ctx: Context) -> None:
        await self.act("un_two")

    async def cross(self, ctx: Context) -> None:
        await self.act("cross")

    async def after(self, ctx: Context) -> None:
        await self.act("after")

    async def turned_back(self, fault: Fault) -> None:
        self.parts.done.append(f"turned back: {fault}")


class Unlined(Walk):
    """Not in any line."""

    is_lined_up = False


@pytest.fixture
def journal(sqlite_database: Database) -> Journal:
    return Journal(sqlite_database, JumpingClock(jumps=True))


@asynccontextmanager
async def running(journal: Journal, parts: Parts, owner: Owner = A, kind: type[Walk] = Walk) -> AsyncIterator[Runner]:
    async with Runner(journal, clock=JumpingClock(jumps=True), owner=owner) as runner:
        runner.knows(parts, kind)
        yield runner


def walk(parts: Parts, name: str = "w1", kind: type[Walk] = Walk, ctx: Context | None = None) -> Walk:
    return kind(ctx or Context(), parts, id=name, subject=f"thing:{name}", arguments=Nothing())


async def left(journal: Journal, name: str, rows: list[JournalRow], *, deadline_s: float | None = None) -> None:
    """What a process that is dead has left of a flow."""
    row = FlowRow(id=name, saga="walk", subject=f"thing:{name}", home="api", owner=str(DEAD))
    await journal.open(row, deadline_s=deadline_s)
    for each in rows:
        await journal.write(
            name, seq=each.seq, step=each.step, mark=each.mark, attempt=each.attempt, final=each.final,
            output=each.output, error=each.error,
        )  # fmt: skip


async def the(journal: Journal, name: str = "w1") -> FlowRow:
    found = await journal.flow(name)
    assert found is not None
    return found


async def marks(journal: Journal, name: str = "w1") -> list[str]:
    return [f"{row.step} {row.mark}" for row in await journal.entries(name)]


async def rounds_until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  # a thread of the database's is waited for
            await asyncio.sleep(0.001)


# -- from every row that the dead may have left --------------------------------------------------------------------------


async def test_a_flow_is_carried_on_forward_from_any_row_at_which_its_process_died(journal: Journal) -> None:
    async with running(journal, Parts()) as runner:
        await runner.run(walk(Parts(), "whole"))
    whole = await journal.entries("whole")
    assert len(whole) == 8
    for length in range(len(whole) + 1):
        name, parts = f"w{length}", Parts()
        await left(journal, name, whole[:length])
        done_before = [row.step for row in whole[:length] if row.mark is Mark.DONE]
        async with running(journal, parts) as runner:
            assert await runner.adopt() == 1
            again = walk(Parts(), name)
            await runner.run(again)
        assert parts.done == ["one", "two", "cross", "after"][len(done_before) :]
        assert again.outputs["one"] == {"answer": 42}
        row = await the(journal, name)
        assert (row.state, row.owner, row.fence) == (FlowState.COMPLETED, str(A), 2)
        assert [each.seq for each in await journal.entries(name)] == list(range(8 + length % 2))


async def test_a_flow_is_carried_on_backward_from_any_row_at_which_its_process_died(journal: Journal) -> None:
    failing = frozenset({"two"})
    async with running(journal, Parts()) as runner:
        with pytest.raises(Unavailable):
            await runner.run(walk(Parts(failing), "whole"))
    whole = await journal.entries("whole")
    assert [row.mark for row in whole][-4:] == [Mark.UNDOING, Mark.UNDONE] * 2
    everything = ["one", "two failed", "two failed", "turned back: two is not available: away", "un_two", "un_one"]
    ends = {Mark.DONE, Mark.FAILED, Mark.UNDONE}
    for length in range(len(whole) + 1):
        name, parts = f"w{length}", Parts(failing)
        await left(journal, name, whole[:length])
        acted = sum(row.mark in ends for row in whole[:length])
        is_told = any(row.mark is Mark.UNDOING for row in whole[:length])
        async with running(journal, parts) as runner:
            assert await runner.adopt() == 1
            with pytest.raises((Unavailable, EndedBefore), match="two is not available: away"):
                await runner.run(walk(Parts(), name))
        acts = [each for each in everything if not each.startswith("turned")][acted:]
        assert [each for each in parts.done if not each.startswith("turned")] == acts
        # Of a flow that was all taken back the reason is told once more: whether it was told is not known then.
        assert parts.done.count("turned back: two is not available: away") == (0 if is_told else 1)
        row = await the(journal, name)
        assert (row.state, row.error) == (FlowState.COMPENSATED, "two is not available: away")


async def test_a_parked_flow_goes_on_where_it_stopped_once_a_person_says_so(journal: Journal) -> None:
    whole = [row async for row in _rows_of_a_parked_flow(journal)]
    assert whole[-1] == "after failed"
    await journal.resume("w1")
    parts = Parts()
    async with running(journal, parts, B) as runner:
        await runner.adopt()
        await runner.run(walk(Parts()))
    assert parts.done == ["after"]
    assert (await the(journal)).state is FlowState.COMPLETED


async def _rows_of_a_parked_flow(journal: Journal) -> AsyncIterator[str]:
    async with running(journal, Parts()) as runner:
        with pytest.raises(Fault, match="needs a person"):
            await runner.run(walk(Parts(frozenset({"after"}))))
    for mark in await marks(journal):
        yield mark


# -- what is not carried on ----------------------------------------------------------------------------------------------


async def test_a_flow_that_nobody_waits_for_any_more_is_not_begun(journal: Journal) -> None:
    await left(journal, "w1", [], deadline_s=-1)
    parts = Parts()
    async with running(journal, parts) as runner:
        await runner.adopt()
        with pytest.raises(Fault, match="was not begun before its deadline"):
            await runner.run(walk(parts))
    row = await the(journal)
    assert (parts.done, row.state) == ([], FlowState.COMPENSATED)
    assert "was not begun before its deadline" in (row.error or "")


async def test_a_flow_that_was_begun_is_carried_on_whoever_still_waits_for_it(journal: Journal) -> None:
    async with running(journal, Parts()) as runner:
        await runner.run(walk(Parts(), "whole"))
    await left(journal, "w1", (await journal.entries("whole"))[:1], deadline_s=-1)
    parts = Parts()
    async with running(journal, parts) as runner:
        await runner.adopt()
        await runner.run(walk(parts))
    assert parts.done == ["one", "two", "cross", "after"]


async def test_an_expired_flow_ends_though_the_request_that_found_it_acts_for_a_flow_that_has_ended(journal: Journal) -> None:
    await left(journal, "w1", [], deadline_s=-1)
    async with running(journal, Parts()) as runner:
        with fenced(Fence("of the one who asks", 7)):
            await runner.adopt()
        await rounds_until(lambda: not runner._live)
    assert (await the(journal)).state is FlowState.COMPENSATED


async def test_a_flow_of_a_saga_that_this_release_does_not_know_stays_and_the_log_says_so_once(journal: Journal) -> None:
    await left(journal, "w1", [])
    with structlog.testing.capture_logs() as logged:
        async with Runner(journal, clock=JumpingClock(jumps=True), owner=A) as runner:
            assert await runner.adopt() == 0
            assert await runner.adopt() == 0
    assert [(line["event"], line["flow_id"]) for line in logged] == [("flow cannot be carried on", "w1")]
    assert (await the(journal)).fence == 1


async def test_what_runs_here_is_not_taken_over_from_oneself(journal: Journal) -> None:
    parts = Parts(held="two")
    async with running(journal, parts) as runner:
        await runner.start(walk(parts))
        await parts.reached.wait()
        assert await runner.adopt() == 0
        parts.gate.set()
        await runner.run(walk(parts))
    assert parts.done == ["one", "two", "cross", "after"]
    assert (await the(journal)).fence == 1


# -- one and no other ----------------------------------------------------------------------------------------------------


async def test_of_two_processes_that_find_a_flow_at_once_one_drives_it(journal: Journal, sqlite_database: Database) -> None:
    for name in ("w1", "w2", "w3"):
        await left(journal, name, [])
    for owner in (A, B):
        await Leases(sqlite_database).renew(str(owner))
    parts = Parts()
    async with running(journal, parts, A) as one, running(journal, parts, B) as two:
        await asyncio.gather(one.adopt(), two.adopt())
        for name in ("w1", "w2", "w3"):
            await one.run(walk(parts, name, ctx=Context(deadline=1000.0)))
    assert sorted(parts.done) == sorted(["one", "two", "cross", "after"] * 3)
    for name in ("w1", "w2", "w3"):
        assert len(await marks(journal, name)) == 8
        assert (await the(journal, name)).fence == 2


async def test_who_asks_for_a_flow_whose_process_is_dead_carries_it_on(journal: Journal) -> None:
    await left(journal, "w1", [])
    parts = Parts()
    async with running(journal, parts) as runner:
        asked = walk(Parts())
        await runner.run(asked)
    assert parts.done == ["one", "two", "cross", "after"]
    assert asked.outputs["one"] == {"answer": 42}


async def test_who_asks_for_a_flow_of_a_process_that_dies_meanwhile_gets_its_end(
    journal: Journal, sqlite_database: Database
) -> None:
    """It looks again while its deadline lasts."""
    await left(journal, "w1", [])
    await Leases(sqlite_database).renew(str(DEAD))
    looks, parts = 0, Parts()

    class Looking(JumpingClock):
        async def sleep(self, delay_s: float) -> None:
            nonlocal looks
            looks += 1
            if looks == 3:
                await Leases(sqlite_database).release(str(DEAD))

    async with Runner(journal, clock=Looking(), owner=A) as runner:
        runner.knows(parts, Walk)
        await runner.run(walk(parts, ctx=Context(deadline=60.0)))
    assert parts.done == ["one", "two", "cross", "after"]


@pytest.mark.parametrize("end", ["completed", "compensated"])
async def test_a_process_that_lost_its_flow_writes_nothing_more_for_it_and_its_caller_hears_the_true_end(
    journal: Journal, sqlite_database: Database, end: str
) -> None:
    slow = Parts(held="two", db=sqlite_database)
    other = Parts(failing=frozenset({"two"}) if end == "compensated" else frozenset())
    async with running(journal, slow, A) as zombie:
        asked = walk(slow)
        caller = asyncio.ensure_future(zombie.run(asked))
        await slow.reached.wait()
        await Leases(sqlite_database).renew(str(B))
        async with running(journal, other, B) as alive:
            await alive.adopt()
            if end == "completed":
                await alive.run(walk(other))
            else:
                with pytest.raises(Unavailable):
                    await alive.run(walk(other))
        rows = await marks(journal)
        slow.gate.set()
        if end == "completed":
            await caller
            assert asked.outputs["one"] == {"answer": 42}
        else:
            with pytest.raises(EndedBefore, match="two is not available: away"):
                await caller
    assert await marks(journal) == rows
    assert slow.done == ["one"]
    async with sqlite_database.begin(read_only=True) as conn:
        written = set((await conn.execute(select(leases.c.owner))).scalars())
    assert "written by one" in written
    assert "written by two" not in written
    assert (await the(journal)).state == end


async def test_a_process_that_lost_its_flow_does_not_take_back_what_the_new_owner_did(
    journal: Journal, sqlite_database: Database
) -> None:
    """The step itself says that it was superseded: that is no failure of the step."""
    slow = Parts(held="two", db=sqlite_database)
    async with running(journal, slow, A) as zombie:
        await zombie.start(walk(slow))
        await slow.reached.wait()
        row = await the(journal)
        assert await journal.adopt(row, B) == 2
        await Leases(sqlite_database).renew(str(B))
        slow.gate.set()
        await rounds_until(lambda: not zombie.subjects)
    assert slow.done == ["one"]
    assert await marks(journal) == ["one begun", "one done", "two begun"]
    assert (await the(journal)).state is FlowState.RUNNING


class LateAnswer(Journal):
    """Its first `open` is done, and whoever asked hears so when `gate` is set."""

    def __init__(self, db: Database) -> None:
        super().__init__(db, JumpingClock(jumps=True))
        self.gate = asyncio.Event()
        self.opened = asyncio.Event()
        self.number = 0

    async def open(self, flow: FlowRow, *, deadline_s: float | None = None) -> bool:
        self.number += 1
        is_first = self.number == 1
        found = await super().open(flow, deadline_s=deadline_s)
        if is_first:
            self.opened.set()
            await self.gate.wait()
        return found


@pytest.mark.parametrize("kind", [Walk, Unlined])
async def test_two_who_begin_one_flow_in_one_process_at_once_drive_it_once(sqlite_database: Database, kind: type[Walk]) -> None:
    journal = LateAnswer(sqlite_database)
    parts = Parts(held="one")
    async with running(journal, parts, kind=kind) as runner, asyncio.timeout(20):
        await Leases(sqlite_database).renew(str(A))
        first = asyncio.ensure_future(runner.run(walk(parts, kind=kind)))
        await journal.opened.wait()
        second = asyncio.ensure_future(runner.run(walk(parts, kind=kind, ctx=Context(deadline=1e9))))
        await rounds_until(lambda: journal.number == 2)
        for _ in range(20):
            await journal.entries("w1")
        journal.gate.set()
        await parts.reached.wait()
        parts.gate.set()
        await asyncio.gather(first, second)
    assert parts.done == ["one", "two", "cross", "after"]
    assert (await the(journal)).fence == 1


# -- handed back ---------------------------------------------------------------------------------------------------------


async def test_what_a_process_hands_back_another_carries_on_behind_the_step_that_was_under_way(journal: Journal) -> None:
    first, second = Parts(held="two"), Parts()
    async with running(journal, first, A) as stopping:
        await stopping.start(walk(first))
        await first.reached.wait()
        stopping.hand_back()
        first.gate.set()
    assert first.done == ["one", "two"]
    async with running(journal, second, B) as going_on:
        assert await going_on.adopt() == 1
        await going_on.run(walk(second))
    assert second.done == ["cross", "after"]


async def test_a_flow_that_waits_for_its_next_try_is_handed_back_at_once(journal: Journal) -> None:
    parts = Parts(failing=frozenset({"two"}))
    clock = JumpingClock()
    async with Runner(journal, clock=clock, owner=A) as runner:
        await runner.start(walk(parts))
        await rounds_until(lambda: bool(clock.slept))
    assert parts.done == ["one", "two failed"]
    assert await marks(journal) == ["one begun", "one done", "two begun", "two failed"]


async def test_who_waits_for_a_flow_that_is_handed_back_is_told_so(journal: Journal) -> None:
    parts = Parts(held="one")
    async with running(journal, parts, A) as runner:
        ahead = walk(parts)
        behind = replace_id(ahead, "w2")
        await runner.start(ahead)
        await parts.reached.wait()
        caller = asyncio.ensure_future(runner.run(behind))
        await rounds_until(lambda: len(runner.subjects) == 1 and len(runner._live) == 2)
        runner.hand_back()
        with pytest.raises(HandedBack):
            await caller
        with pytest.raises(HandedBack):
            await runner.run(walk(parts, "w3"))
        parts.gate.set()
    assert await journal.entries("w2") == []
    assert await journal.flow("w3") is None


def replace_id(flow: Walk, name: str) -> Walk:
    """Another flow about the same thing."""
    return Walk(Context(), flow.parts, id=name, subject=flow.subject, arguments=Nothing())


async def test_what_was_left_behind_goes_before_what_is_begun_for_the_same_thing_later(journal: Journal) -> None:
    parts = Parts()
    await journal.open(FlowRow(id="old", saga="walk", subject="thing:1", home="api", owner=str(DEAD)))
    async with running(journal, parts) as runner:
        await runner.adopt()
        await runner.run(Walk(Context(), parts, id="new", subject="thing:1", arguments=Nothing()))
        old, new = await the(journal, "old"), await the(journal, "new")
        assert (old.state, new.state) == (FlowState.COMPLETED, FlowState.COMPLETED)
    ids = [row.id for row in await journal.entries("old")] + [row.id for row in await journal.entries("new")]
    assert ids == sorted(ids)
