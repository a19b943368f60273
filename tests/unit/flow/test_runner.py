"""The runner of flows on a real journal: what is written, in which order, and how each kind of failure ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
import pytest

from common.app.deciding import Decisions, request_id_of
from common.base.context import Context
from common.base.errors import Conflict, Fault, Unavailable
from common.db.engine import Database
from common.db.journal import FlowState, Journal, NewRow
from common.db.lease import Leases
from common.db.owner import Owner
from common.flow.driver import FlowParked, StepFailed
from common.flow.runner import EndedBefore, RefusedBefore, Runner, StillRunning
from common.flow.steps import Flow
from common.host.clock import SystemClock
from common.machine.saga import Saga, Step


class NoWait(SystemClock):
    """Sleeps by giving way once, and notes for how long it should have slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        await super().sleep(0)


OWNER = Owner(process="test", home="test", is_alone=True)


class Nothing(msgspec.Struct, frozen=True):
    """No arguments."""


REQUEST = Context(message_id="m1")
SAGA = Saga(
    "walk",
    pivot="cross",
    steps=(Step("one", undo="un_one"), Step("two", undo="un_two", attempts=3), Step("cross"), Step("after", attempts=2)),
    patience=4,
)


class Walk(Flow[Nothing, None]):
    saga = SAGA

    def __init__(self, name: str = "w1", *, subject: str = "thing:1", **faults: list[Exception]) -> None:
        super().__init__(Context(), None, id=name, subject=subject, arguments=Nothing())
        self.faults = faults
        self.done: list[str] = []
        self.gate: asyncio.Event | None = None
        self.begun = asyncio.Event()

    async def act(self, name: str) -> None:
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.faults.get(name):
            raise self.faults[name].pop(0)
        self.done.append(name)

    async def one(self, ctx: Context) -> dict[str, int]:
        await self.act("one")
        return {"answer": 42}

    async def un_one(self, ctx: Context) -> None:
        await self.act("un_one")

    async def two(self, ctx: Context) -> None:
        assert self.outputs["one"] == {"answer": 42}
        assert ctx.deadline is not None
        await self.act("two")

    async def un_two(self, ctx: Context) -> None:
        await self.act("un_two")

    async def cross(self, ctx: Context) -> None:
        await self.act("cross")

    async def after(self, ctx: Context) -> None:
        await self.act("after")

    async def turned_back(self, fault: Fault) -> None:
        self.done.append(f"turned back: {type(fault).__name__}")

    async def parked(self, fault: Fault) -> None:
        self.done.append("parked")


@pytest.fixture
def clock() -> NoWait:
    return NoWait()


@pytest.fixture
def journal(sqlite_database: Database, clock: NoWait) -> Journal:
    return Journal(sqlite_database, clock)


@pytest.fixture
async def runner(journal: Journal, clock: NoWait) -> AsyncIterator[Runner]:
    async with Runner(journal, clock=clock, owner=OWNER) as made:
        yield made


async def marks(journal: Journal, flow_id: str = "w1") -> list[str]:
    return [f"{row.step} {row.mark}" for row in await journal.entries(flow_id)]


async def state(journal: Journal, flow_id: str = "w1") -> FlowState | None:
    row = await journal.flow(flow_id)
    return row.state if row else None


async def test_a_row_is_written_before_and_after_each_step(runner: Runner, journal: Journal) -> None:
    flow = Walk()
    await runner.run(flow)
    assert flow.done == ["one", "two", "cross", "after"]
    assert await marks(journal) == [f"{step} {mark}" for step in flow.done for mark in ("begun", "done")]
    assert (await journal.entries("w1"))[1].output == {"answer": 42}
    assert await state(journal) is FlowState.COMPLETED


async def test_a_retryable_fault_is_tried_again_with_growing_pauses(runner: Runner, journal: Journal, clock: NoWait) -> None:
    flow = Walk(two=[Unavailable(what="x", reason="y")] * 2)
    await runner.run(flow)
    assert flow.done == ["one", "two", "cross", "after"]
    assert (await marks(journal)).count("two failed") == 2
    assert clock.slept == [0.2, pytest.approx(0.6)]


async def test_spent_retries_take_back_everything_in_reverse_and_raise_the_fault(runner: Runner, journal: Journal) -> None:
    flow = Walk(two=[Unavailable(what="x", reason="y")] * 3)
    with pytest.raises(Unavailable):
        await runner.run(flow)
    assert flow.done == ["one", "turned back: Unavailable", "un_two", "un_one"]
    assert await state(journal) is FlowState.COMPENSATED
    assert (await journal.flow("w1")).error == "x is not available: y"  # type: ignore[union-attr]


async def test_a_refused_step_is_not_taken_back(runner: Runner, journal: Journal) -> None:
    flow = Walk(two=[Conflict(kind="Volume", name="v", found="a", expected="b")])
    with pytest.raises(Conflict):
        await runner.run(flow)
    assert flow.done == ["one", "turned back: Conflict", "un_one"]
    assert "two refused" in await marks(journal)


async def test_an_error_that_nobody_foresaw_is_taken_back_like_any_other(runner: Runner) -> None:
    flow = Walk(two=[ZeroDivisionError("secret")])
    with pytest.raises(StepFailed, match="ZeroDivisionError") as failed:
        await runner.run(flow)
    assert "secret" not in str(failed.value)
    assert flow.done == ["one", "turned back: StepFailed", "un_two", "un_one"]


async def test_an_undo_is_tried_again_and_parks_when_it_never_works(runner: Runner, journal: Journal) -> None:
    await_once = Walk("a", two=[Conflict(kind="", name="", found="", expected="")], un_one=[Unavailable(what="x", reason="y")])
    with pytest.raises(Conflict):
        await runner.run(await_once)
    assert await_once.done[-1] == "un_one"
    never = Walk("b", two=[Conflict(kind="", name="", found="", expected="")], un_one=[Unavailable(what="x", reason="y")] * 9)
    with pytest.raises(FlowParked, match="stopped at step one"):
        await runner.run(never)
    assert never.done[-1] == "parked"
    assert await state(journal, "b") is FlowState.PARKED


async def test_behind_the_pivot_nothing_is_taken_back(runner: Runner, journal: Journal) -> None:
    flow = Walk(after=[Unavailable(what="x", reason="y")] * 4)
    with pytest.raises(FlowParked):
        await runner.run(flow)
    assert flow.done == ["one", "two", "cross", "parked"]
    assert await state(journal) is FlowState.PARKED


async def test_the_same_work_started_twice_is_done_once(runner: Runner) -> None:
    first, second = Walk(), Walk()
    assert await runner.start(first) is True
    assert await runner.start(second) is False
    assert second.done == []


async def test_whoever_runs_an_ended_flow_hears_how_it_ended(runner: Runner) -> None:
    await runner.run(Walk("good"))
    await runner.run(Walk("good"))
    with pytest.raises(Conflict):
        await runner.run(Walk("bad", one=[Conflict(kind="V", name="v", found="a", expected="b")]))
    with pytest.raises(EndedBefore, match="V v is in state a"):
        await runner.run(Walk("bad"))


async def test_what_was_refused_is_never_begun_by_anybody(runner: Runner, journal: Journal, clock: NoWait) -> None:
    late = Walk(request_id_of(SAGA.name, REQUEST))
    for _ in range(2):
        assert await Decisions(journal, OWNER).refuse(REQUEST, SAGA.name, "thing 1 is not attached") is True
    async with Runner(journal, clock=clock, owner=Owner(process="other", home="test")) as elsewhere:
        for each in (runner, elsewhere):
            assert await each.start(late) is False
            with pytest.raises(RefusedBefore, match="thing 1 is not attached"):
                await each.run(late)
    assert late.done == []
    assert await marks(journal) == []


async def test_what_was_begun_is_never_refused(runner: Runner, journal: Journal) -> None:
    flow = Walk(request_id_of(SAGA.name, REQUEST), one=[Conflict(kind="V", name="v", found="a", expected="b")])
    with pytest.raises(Conflict):
        await runner.run(flow)
    assert await Decisions(journal, OWNER).refuse(REQUEST, SAGA.name, "too late") is False
    row = await journal.flow(flow.id)
    assert row is not None
    assert "too late" not in str(row.error)


async def test_the_same_flow_again_ends_with_the_one_that_runs_here_and_elsewhere_is_still_running(
    runner: Runner, journal: Journal, clock: NoWait, sqlite_database: Database
) -> None:
    slow, again = Walk("slow"), Walk("slow")
    slow.gate = asyncio.Event()
    await runner.start(slow)
    await Leases(sqlite_database).renew(str(OWNER))
    other = Owner(process="other", home="test")
    async with Runner(journal, clock=clock, owner=other) as elsewhere:
        with pytest.raises(StillRunning):
            await elsewhere.run(Walk("slow"))
    waiting = asyncio.ensure_future(runner.run(again))
    slow.gate.set()
    await waiting
    assert again.outputs["one"] == {"answer": 42}
    assert again.done == []


async def test_a_flow_in_the_background_goes_on_without_its_caller(journal: Journal, clock: NoWait) -> None:
    flow = Walk()
    flow.gate = asyncio.Event()
    async with Runner(journal, clock=clock, owner=OWNER) as runner:
        await runner.start(flow)
        await flow.begun.wait()
        assert await marks(journal) == ["one begun"]
        flow.gate.set()
        await runner.run(Walk())
    assert await state(journal) is FlowState.COMPLETED


async def test_a_flow_in_the_background_is_handed_back_behind_its_step_when_the_runner_ends(
    journal: Journal, clock: NoWait
) -> None:
    flow = Walk()
    flow.gate = asyncio.Event()
    async with Runner(journal, clock=clock, owner=OWNER) as runner:
        await runner.start(flow)
        await flow.begun.wait()
        runner.hand_back()
        flow.gate.set()
    assert flow.done == ["one"]
    assert await marks(journal) == ["one begun", "one done"]
    assert await state(journal) is FlowState.RUNNING


async def test_no_more_flows_than_the_limit_run_at_once(journal: Journal, clock: NoWait) -> None:
    flows = [Walk(str(number), subject=f"thing:{number}") for number in range(3)]
    gate = asyncio.Event()
    for flow in flows:
        flow.gate = gate
    async with Runner(journal, clock=clock, owner=OWNER, limit=2) as runner, asyncio.TaskGroup() as group:
        await runner.start(flows[0])
        await runner.start(flows[1])
        third = group.create_task(runner.start(flows[2]))
        await flows[0].begun.wait()
        await flows[1].begun.wait()
        assert not third.done()
        assert await state(journal, "2") is None
        gate.set()
        await third
        await runner.run(Walk("2"))
    assert await state(journal, "2") is FlowState.COMPLETED


class Shaky(Journal):
    """A journal whose database is away for the first writes."""

    failures = 3

    async def append(self, flow_id: str, rows: Sequence[NewRow], **values: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable(what="database", reason="away")
        await super().append(flow_id, rows, **values)


async def test_a_turn_waits_for_the_flows_before_it_and_holds_up_those_behind_it(journal: Journal, clock: NoWait) -> None:
    first, behind, elsewhere = Walk("w1"), Walk("w2"), Walk("w3", subject="thing:2")
    first.gate = asyncio.Event()
    async with Runner(journal, clock=clock, owner=OWNER) as runner, asyncio.TaskGroup() as group:
        running = group.create_task(runner.run(first))
        await first.begun.wait()
        asyncio.get_running_loop().call_soon(first.gate.set)
        async with runner.turn("thing:1"):
            assert running.done() or first.done == ["one", "two", "cross", "after"]
            held = group.create_task(runner.run(behind))
            await runner.run(elsewhere)
            assert not behind.begun.is_set()
        await held
    assert behind.done == ["one", "two", "cross", "after"]


async def test_a_journal_that_is_away_for_a_while_is_waited_for(sqlite_database: Database, clock: NoWait) -> None:
    shaky = Shaky(sqlite_database, clock)
    async with Runner(shaky, clock=clock, owner=OWNER) as runner:
        await runner.run(Walk())
    assert await state(shaky) is FlowState.COMPLETED
    assert len(clock.slept) == 3


async def test_a_runner_that_is_cancelled_leaves_begun_as_the_last_row(journal: Journal, clock: NoWait) -> None:
    flow = Walk()
    flow.gate = asyncio.Event()

    async def process() -> None:
        async with Runner(journal, clock=clock, owner=OWNER) as runner:
            await runner.run(flow)

    task = asyncio.ensure_future(process())
    await flow.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await marks(journal) == ["one begun"]
    assert await state(journal) is FlowState.RUNNING


async def test_a_flow_goes_on_to_its_end_when_the_caller_who_waited_for_it_leaves(journal: Journal, clock: NoWait) -> None:
    flow = Walk()
    flow.gate = asyncio.Event()
    async with Runner(journal, clock=clock, owner=OWNER) as runner:
        caller = asyncio.ensure_future(runner.run(flow))
        await flow.begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        flow.gate.set()
    assert await state(journal) is FlowState.COMPLETED


def test_a_flow_without_a_method_for_a_step_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="Half has no method for un_one, two"):

        class Half(Flow[Nothing, None]):
            saga = Saga("half", steps=(Step("one", undo="un_one"), Step("two")))

            async def one(self, ctx: Context) -> None: ...


def test_a_saga_names_its_mistakes() -> None:
    with pytest.raises(ValueError, match="no steps"):
        Saga("s", steps=())
    with pytest.raises(ValueError, match="two steps of one name"):
        Saga("s", steps=(Step("a"), Step("a")))
    with pytest.raises(ValueError, match="the pivot x is not one"):
        Saga("s", steps=(Step("a"),), pivot="x")
    assert Saga("s", steps=(Step("a"),)).step("a") == Step("a")
    assert isinstance(SystemClock().utcnow(), datetime)
