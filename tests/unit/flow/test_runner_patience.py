"""A journal that is away: for a while, for ever, and at the very end."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import msgspec
import pytest

from common.base.context import Context
from common.base.errors import Conflict, Timeout, Unavailable
from common.base.limits import FAULT_TEXT_MAX, JOURNAL_PATIENCE_S
from common.db.engine import Database
from common.db.journal import Ending, FlowState, Journal, NewRow
from common.db.owner import Owner
from common.flow.runner import Runner
from common.flow.steps import Flow, Output
from common.machine.decide import Mark
from common.machine.saga import Saga, Step
from common.testing.clock import JumpingClock

OWNER = Owner(process="test", home="test", is_alone=True)


class Nothing(msgspec.Struct, frozen=True):
    """No arguments."""


class Short(Flow[Nothing, None]):
    saga = Saga("short", steps=(Step("act", undo="un_act"), Step("hang", timeout_s=0.05, undo="un_hang")))

    def __init__(self, *, fault: Exception | None = None, hangs: bool = False) -> None:
        super().__init__(Context(user_id="u", deadline=3.0), None, id="s1", subject="thing:1", arguments=Nothing())
        self.planned = fault
        self.hangs = hangs
        self.done: list[str] = []

    async def act(self, ctx: Context) -> Output:
        if self.planned is not None:
            raise self.planned
        return None

    async def un_act(self, ctx: Context) -> None:
        self.done.append("un_act")

    async def hang(self, ctx: Context) -> Output:
        if self.hangs:
            await asyncio.Event().wait()
        return None

    async def un_hang(self, ctx: Context) -> None:
        self.done.append("un_hang")


class Away(Journal):
    """Refuses the first `failures` calls of one method."""

    def __init__(self, db: Database, clock: JumpingClock, *, method: str, failures: int) -> None:
        super().__init__(db, clock)
        self.method = method
        self.failures = failures

    def _miss(self, method: str) -> None:
        if method == self.method and self.failures:
            self.failures -= 1
            raise Unavailable(what="database", reason="away")

    async def append(self, flow_id: str, rows: Sequence[NewRow], *, ending: Ending | None = None, **values: Any) -> None:
        self._miss("finish" if ending else "write")
        await super().append(flow_id, rows, ending=ending, **values)


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock(jumps=True)


@pytest.mark.parametrize("fault", [None, Conflict(kind="V", name="v", found="a", expected="b")])
async def test_a_journal_that_is_away_at_the_end_of_a_flow_is_waited_for(
    sqlite_database: Database, clock: JumpingClock, fault: Exception | None
) -> None:
    journal = Away(sqlite_database, clock, method="finish", failures=4)
    async with Runner(journal, clock=clock, owner=OWNER) as runner:
        with nullcontext() if fault is None else pytest.raises(Conflict):
            await runner.run(Short(fault=fault))
    row = await journal.flow("s1")
    assert row is not None
    assert row.state is (FlowState.COMPENSATED if fault else FlowState.COMPLETED)
    assert len(clock.slept) == 4


async def test_a_journal_that_stays_away_ends_the_driving_when_patience_does_by_the_clock(
    sqlite_database: Database, clock: JumpingClock
) -> None:
    journal = Away(sqlite_database, clock, method="write", failures=10**6)
    async with Runner(journal, clock=clock, owner=OWNER) as runner:
        with pytest.raises(Unavailable, match="database is not available"):
            await runner.run(Short())
    assert JOURNAL_PATIENCE_S <= clock.monotonic() <= JOURNAL_PATIENCE_S + 5
    assert await journal.entries("s1") == []
    row = await journal.flow("s1")
    assert row is not None
    assert row.state is FlowState.RUNNING


async def test_a_step_that_hangs_ends_at_its_time_limit_and_is_taken_back(sqlite_database: Database, clock: JumpingClock) -> None:
    journal = Journal(sqlite_database, clock)
    flow = Short(hangs=True)
    async with Runner(journal, clock=clock, owner=OWNER) as runner:
        with pytest.raises(Timeout, match="step hang of short"):
            await runner.run(flow)
    assert flow.done == ["un_hang", "un_act"]
    assert [row.mark for row in await journal.entries("s1") if row.step == "hang"] == [
        Mark.BEGUN,
        Mark.FAILED,
        Mark.UNDOING,
        Mark.UNDONE,
    ]


async def test_a_flow_outlives_its_caller_s_deadline_and_acts_in_the_service_s_name(
    sqlite_database: Database, clock: JumpingClock
) -> None:
    flow = Short()
    assert (flow.ctx.deadline, flow.ctx.is_admin, flow.ctx.user_id) == (None, True, "u")


async def test_a_long_error_is_kept_as_far_as_a_row_takes_it(sqlite_database: Database, clock: JumpingClock) -> None:
    journal = Journal(sqlite_database, clock)
    async with Runner(journal, clock=clock, owner=OWNER) as runner:
        with pytest.raises(Conflict):
            await runner.run(Short(fault=Conflict("x" * 5000)))
    row = await journal.flow("s1")
    assert row is not None
    assert row.error == "x" * FAULT_TEXT_MAX
