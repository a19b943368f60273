"""A step without an effect is not written down before it: its rows, and the letters before it, go with the next row that must be."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from common.base.context import Context
from common.base.errors import Conflict
from common.db.engine import Database
from common.db.journal import Journal
from common.db.outbox import Letter, Outbox, waiting
from common.db.owner import Owner
from common.flow.runner import Runner
from common.flow.steps import Flow
from common.machine.decide import Mark
from common.machine.saga import Saga, Step
from common.testing.clock import JumpingClock

OWNER = Owner(process="test", home="test", is_alone=True)
REFUSED = Conflict(kind="Thing", name="t", found="a", expected="b")


class Nothing(msgspec.Struct, frozen=True):
    """No arguments."""


class Looked(Flow[Nothing, None]):
    """Orders something, looks, builds."""

    saga = Saga("looked", steps=(Step("order"), Step("look", undo="forget", is_pure=True), Step("build")))

    def __init__(self, *, refused: bool = False) -> None:
        super().__init__(Context(), None, id="t1", subject="thing:1", arguments=Nothing())
        self.is_refused = refused
        self.done: list[str] = []

    async def order(self, ctx: Context) -> None:
        self.done.append("order")
        self.letters.append(Letter(exchange=None, routing_key="q", body="{}", headers={}))

    async def look(self, ctx: Context) -> dict[str, int]:
        self.done.append("look")
        if self.is_refused:
            raise REFUSED
        return {"seen": 1}

    async def forget(self, ctx: Context) -> None:
        self.done.append("forget")

    async def build(self, ctx: Context) -> None:
        self.done.append(f"build {self.outputs['look']['seen']}")


class Noting(Journal):
    """Notes what is written together."""

    def __init__(self, db: Database, clock: JumpingClock) -> None:
        super().__init__(db, clock)
        self.writes: list[list[str]] = []

    async def append(self, flow_id: str, rows: Sequence[Any], **more: Any) -> None:
        self.writes.append([f"{row.step} {row.mark}" for row in rows])
        await super().append(flow_id, rows, **more)


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock(jumps=True)


async def test_its_rows_are_written_with_the_intent_of_the_next_effect(sqlite_database: Database, clock: JumpingClock) -> None:
    journal = Noting(sqlite_database, clock)
    flow = Looked()
    async with Runner(
        journal, clock=clock, owner=OWNER, outbox=Outbox(sqlite_database, clock, owner=OWNER)
    ) as runner:  # fmt: skip
        await runner.run(flow)
    assert journal.writes == [["order begun"], ["order done", "look begun", "look done", "build begun"], ["build done"]]
    assert flow.done == ["order", "look", "build 1"]
    assert [letter.routing_key for letter in await waiting(sqlite_database)] == ["q"]


async def test_its_failure_turns_back_and_takes_no_letter_of_an_earlier_step_with_it(
    sqlite_database: Database, clock: JumpingClock
) -> None:
    journal = Noting(sqlite_database, clock)
    flow = Looked(refused=True)
    async with Runner(
        journal, clock=clock, owner=OWNER, outbox=Outbox(sqlite_database, clock, owner=OWNER)
    ) as runner:  # fmt: skip
        with pytest.raises(Conflict):
            await runner.run(flow)
    assert [(row.step, row.mark) for row in await journal.entries("t1")] == [
        ("order", Mark.BEGUN),
        ("order", Mark.DONE),
        ("look", Mark.BEGUN),
        ("look", Mark.REFUSED),
    ]
    assert flow.done == ["order", "look"]
    assert [letter.routing_key for letter in await waiting(sqlite_database)] == ["q"]
