"""What the rows say, how long a step may take, how undos pause, and that no place is lost."""

import asyncio

import msgspec
import pytest

from common.base.context import Context
from common.base.errors import Conflict, Unavailable
from common.db.engine import Database
from common.db.journal import FlowRow, Journal
from common.db.owner import Owner
from common.flow.runner import Runner
from common.flow.steps import Flow
from common.machine.decide import Mark
from common.machine.saga import Saga, Step
from common.testing.clock import JumpingClock

OWNER = Owner(process="test", home="test", is_alone=True)


class Nothing(msgspec.Struct, frozen=True):
    """No arguments."""


class Two(Flow[Nothing, None]):
    saga = Saga("two", steps=(Step("build", undo="pull_down", timeout_s=12), Step("check", attempts=2)))

    def __init__(self, name: str = "t1", *, check: list[Exception] | None = None, pull_down: list[Exception] | None = None) -> None:
        super().__init__(Context(), None, id=name, subject="thing:1", arguments=Nothing())
        self.faults = {"check": check or [], "pull_down": pull_down or []}
        self.deadline: float | None = None

    async def build(self, ctx: Context) -> None:
        self.deadline = ctx.deadline

    async def pull_down(self, ctx: Context) -> None:
        self._fail("pull_down")

    async def check(self, ctx: Context) -> None:
        self._fail("check")

    def _fail(self, name: str) -> None:
        if self.faults[name]:
            raise self.faults[name].pop(0)


class Refusing(Journal):
    """Its database is away when a flow is to be opened."""

    failures = 1

    async def open(self, flow: FlowRow, *, deadline_s: float | None = None) -> bool:
        if self.failures:
            self.failures -= 1
            raise Unavailable(what="database", reason="away")
        return await super().open(flow, deadline_s=deadline_s)


def away() -> Unavailable:
    return Unavailable(what="thing", reason="away")


REFUSED = Conflict(kind="Thing", name="t", found="a", expected="b")


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock(jumps=True)


async def test_a_row_tells_attempt_end_and_reason(sqlite_database: Database, clock: JumpingClock) -> None:
    journal = Journal(sqlite_database, clock)
    async with Runner(journal, clock=clock, owner=OWNER) as runner:
        with pytest.raises(Conflict):
            await runner.run(Two(check=[away(), REFUSED], pull_down=[away()]))
    rows = [(row.step, row.mark, row.attempt, row.final, row.error) for row in await journal.entries("t1")]
    assert rows == [
        ("build", Mark.BEGUN, 1, False, None),
        ("build", Mark.DONE, 1, False, None),
        ("check", Mark.BEGUN, 1, False, None),
        ("check", Mark.FAILED, 1, False, "thing is not available: away"),
        ("check", Mark.BEGUN, 2, False, None),
        ("check", Mark.REFUSED, 2, True, "Thing t is in state a; wanted: b."),
        ("build", Mark.UNDOING, 1, False, None),
        ("build", Mark.UNDO_FAILED, 1, False, "thing is not available: away"),
        ("build", Mark.UNDOING, 2, False, None),
        ("build", Mark.UNDONE, 2, False, None),
    ]


async def test_a_step_has_its_time_from_when_it_begins_and_undos_pause_longer_each_time(
    sqlite_database: Database, clock: JumpingClock
) -> None:
    await clock.sleep(100)
    clock.slept.clear()
    flow = Two(check=[REFUSED], pull_down=[away(), away(), away()])
    async with Runner(Journal(sqlite_database, clock), clock=clock, owner=OWNER) as runner:
        with pytest.raises(Conflict):
            await runner.run(flow)
    assert flow.deadline == 112
    assert clock.slept == pytest.approx([0.2, 0.6, 1.8])


async def test_flows_that_are_not_begun_take_no_place(sqlite_database: Database, clock: JumpingClock) -> None:
    journal = Refusing(sqlite_database, clock)
    async with Runner(journal, clock=clock, owner=OWNER, limit=1) as runner, asyncio.timeout(20):
        with pytest.raises(Unavailable):
            await runner.start(Two())
        assert await runner.start(Two()) is True
        assert await runner.start(Two()) is False
        assert await runner.start(Two("t2")) is True
