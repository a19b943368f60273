"""What a step hands to later steps, by way of the journal."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec
import pytest

from common.base.context import Context
from common.db.engine import Database
from common.db.journal import FlowState, Journal
from common.db.owner import Owner
from common.flow.driver import StepFailed
from common.flow.runner import Runner
from common.flow.steps import Flow, Output
from common.machine.saga import Saga, Step
from common.testing.clock import JumpingClock

OWNER = Owner(process="test", home="test", is_alone=True)


class Nothing(msgspec.Struct, frozen=True):
    """No arguments."""


class Hand(Flow[Nothing, None]):
    saga = Saga("hand", steps=(Step("give", undo="take_back"), Step("look")))

    def __init__(self, output: Any) -> None:
        super().__init__(Context(), None, id="h1", subject="thing:1", arguments=Nothing())
        self.output = output
        self.seen: Any = None
        self.taken_back = False

    async def give(self, ctx: Context) -> Output:
        output: Output = self.output
        return output

    async def take_back(self, ctx: Context) -> None:
        self.taken_back = True

    async def look(self, ctx: Context) -> Output:
        self.seen = self.outputs["give"]
        return None


@pytest.fixture
def journal(sqlite_database: Database) -> Journal:
    return Journal(sqlite_database, JumpingClock(jumps=True))


@pytest.fixture
async def runner(journal: Journal) -> AsyncIterator[Runner]:
    async with Runner(journal, clock=JumpingClock(jumps=True), owner=OWNER) as made:
        yield made


@pytest.mark.parametrize(
    ("output", "kept"),
    [
        (None, {}),
        ({"lun": 1, "portals": {"a"}}, {"lun": 1, "portals": ["a"]}),
        ({"at": datetime(2026, 1, 2)}, {"at": "2026-01-02T00:00:00"}),  # noqa: DTZ001  # naive UTC, as in rows
    ],
)
async def test_later_steps_see_an_output_as_the_journal_keeps_it(runner: Runner, journal: Journal, output: Any, kept: Any) -> None:
    flow = Hand(output)
    await runner.run(flow)
    assert flow.seen == kept
    assert ((await journal.entries("h1"))[1].output or {}) == kept


@pytest.mark.parametrize("output", [{"x": object()}, {"x": float("nan")}, {"x": "\ud800"}])
async def test_a_step_whose_output_the_journal_cannot_keep_has_failed_and_is_taken_back(
    runner: Runner, journal: Journal, output: Any
) -> None:
    flow = Hand(output)
    with pytest.raises(StepFailed, match="WrongValue"):
        await runner.run(flow)
    assert flow.taken_back
    row = await journal.flow("h1")
    assert row is not None
    assert row.state is FlowState.COMPENSATED
