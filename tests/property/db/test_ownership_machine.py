"""Leases, fences and the journal together: owners that die, sleep for too long and look at old rows, on one SQLite file.

A flow's fence only grows, nothing is written under an old one, each row's number is there once, and what has ended stays so.
"""

import asyncio
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from common.base.limits import LEASE_S
from common.db.engine import Database, open_database
from common.db.fence import Fence, Superseded, fenced
from common.db.journal import FlowRow, FlowState, Journal
from common.db.lease import Leases
from common.db.owner import Owner
from common.db.tables import METADATA
from common.machine.decide import Mark
from common.testing.clock import JumpingClock

OWNERS = st.integers(0, 2)


class OwnershipMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = JumpingClock()
        self.folder = tempfile.TemporaryDirectory()
        self.db: Database = open_database(f"sqlite:///{Path(self.folder.name)}/w.sqlite", clock=self.clock)
        self.run(self.db.run(lambda conn: conn.run_sync(METADATA.create_all)))
        self.journal, self.leases = Journal(self.db, self.clock), Leases(self.db)
        self.boots = count()
        self.owners = [self.born(number) for number in range(3)]
        self.until: dict[str, float] = {}
        self.fences: dict[int, int] = {0: 1}
        self.seen: dict[int, FlowRow] = {}
        self.known: dict[int, int] = {0: 0}
        self.holder, self.fence, self.written, self.has_ended = str(self.owners[0]), 1, 0, False
        self.run(self.journal.open(FlowRow(id="f", saga="s", subject="x", home="h", owner=self.holder)))

    def born(self, number: int) -> Owner:
        return Owner(process=f"p{number}", home="h", boot=str(next(self.boots)))

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.db.close())
        self.loop.close()
        self.folder.cleanup()

    def is_alive(self, owner: str) -> bool:
        return self.until.get(owner, -1.0) > self.clock.monotonic()

    def is_free_for(self, number: int) -> bool:
        return self.holder == str(self.owners[number]) or not self.is_alive(self.holder)

    @rule(number=OWNERS)
    def renew(self, number: int) -> None:
        owner = str(self.owners[number])
        self.run(self.leases.renew(owner))
        self.until[owner] = self.clock.monotonic() + LEASE_S

    @rule(seconds=st.sampled_from([1.0, LEASE_S - 1, LEASE_S + 1]))
    def wait(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))

    @rule(number=OWNERS)
    def die_and_come_back(self, number: int) -> None:
        self.owners[number] = self.born(number)
        for known in (self.fences, self.seen, self.known):
            known.pop(number, None)

    @rule(number=OWNERS)
    def look(self, number: int) -> None:
        found = self.run(self.journal.left_behind(self.owners[number]))
        assert bool(found) is (not self.has_ended and self.is_free_for(number))
        if found:
            self.seen[number] = found[0]

    @rule(number=OWNERS)
    def adopt(self, number: int) -> None:
        """By a row that may be old."""
        if (row := self.seen.get(number)) is None:
            return
        owner = self.owners[number]
        taken = self.run(self.journal.adopt(row, owner))
        if not self.has_ended and row.fence == self.fence and self.is_free_for(number):
            assert taken == self.fence + 1
            self.holder, self.fence = str(owner), taken
        elif not self.has_ended and row.fence + 1 == self.fence and self.holder == str(owner):
            assert taken == self.fence  # asked again
        else:
            assert taken is None
            return
        self.fences[number] = taken
        self.known[number] = len(self.run(self.journal.entries("f")))

    @rule(number=OWNERS, is_repeated=st.booleans())
    def write(self, number: int, is_repeated: bool) -> None:
        if (held := self.fences.get(number)) is None:
            return
        seq = self.known[number] - (1 if is_repeated and self.known[number] else 0)
        work = self.journal.write("f", seq=seq, step=f"s{seq}", mark=Mark.BEGUN, attempt=1)
        may = held == self.fence and not self.has_ended
        with fenced(Fence("f", held)):
            assert self.does(work) is may
        if may:
            self.known[number] = seq + 1
            self.written = max(self.written, seq + 1)

    @rule(number=OWNERS)
    def finish(self, number: int) -> None:
        """Seldom: nothing happens behind it."""
        if (held := self.fences.get(number)) is None or self.written < 6:
            return
        is_ours = held == self.fence
        assert self.does(self.journal.finish("f", FlowState.COMPLETED, fence=held)) is is_ours
        self.has_ended = self.has_ended or is_ours

    def does(self, work: Any) -> bool:
        try:
            self.run(work)
        except Superseded:
            return False
        return True

    @invariant()
    def the_rows_are_as_they_should_be(self) -> None:
        row = self.run(self.journal.flow("f"))
        assert (row.fence, row.owner, row.state == FlowState.COMPLETED) == (self.fence, self.holder, self.has_ended)
        assert [each.seq for each in self.run(self.journal.entries("f"))] == list(range(self.written))


TestOwnership = OwnershipMachine.TestCase
TestOwnership.settings = settings(max_examples=12, stateful_step_count=30, suppress_health_check=list(HealthCheck))
