"""The outbox and its relay over the bus in memory, with confirms that are lost, processes that die, and a database that forgets nothing.

Every letter of a committed transaction is published at least once, none before its commit, and each address in order.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.base.errors import Unavailable
from common.db.outbox import Letter, Outbox
from common.flow.relay import Relay
from common.testing.clock import JumpingClock
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Message, Queue

KEYS = ("a", "b")


class Rows(Outbox):
    """The table: what is committed, by owner. `dying` is raised at the next write of the relay's, before or after it is done."""

    def __init__(self) -> None:
        self.rows: list[Letter] = []
        self.owner = "1"
        self.is_away = False

    async def pending(self, after: int = 0) -> list[Letter]:
        return [row for row in self.rows if row.id > after and row.owner == self.owner][:3]

    async def sent(self, ids: Sequence[int]) -> None:
        if self.is_away:
            raise Unavailable(what="database", reason="away")
        self.rows = [row for row in self.rows if row.id not in ids]

    async def failed(self, letter_id: int, error: str) -> None: ...


class Bus(MemoryTransport):
    """Fails as it is told: `lost` before the message is taken, `unconfirmed` after it."""

    def __init__(self, clock: JumpingClock) -> None:
        super().__init__(MemoryBus(clock))
        self.fates: list[str] = []

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        fate = self.fates.pop(0) if self.fates else "well"
        if fate == "lost":
            raise Unavailable(what="bus", reason="away")
        await super().publish(message, timeout_s=timeout_s)
        if fate == "unconfirmed":
            raise Unavailable(what="bus", reason="no confirm")


class OutboxMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = JumpingClock()
        self.rows, self.bus = Rows(), Bus(self.clock)
        self.open: list[Letter] = []
        self.committed: list[Letter] = []
        self.taken: dict[str, list[int]] = {key: [] for key in KEYS}
        self.number = 0
        for key in KEYS:
            self.run(self.bus.declare(Queue(key)))
        self.relay = Relay(self.rows, self.bus, clock=self.clock)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        try:
            self.all_is_there()
        finally:
            self.loop.close()

    def all_is_there(self) -> None:
        """At the end, when everything is well again."""
        self.bus.fates.clear()
        self.rows.is_away = False
        self.run(self.clock.advance(60))
        self.run(self.relay.send_all())
        self.look()
        assert self.rows.rows == []
        for key in KEYS:
            wanted = [letter.id for letter in self.committed if letter.routing_key == key]
            assert list(dict.fromkeys(self.taken[key])) == wanted

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=4))
    def put(self, keys: list[str]) -> None:
        """In a transaction that is not committed yet."""
        for key in keys:
            self.number += 1
            made = Letter(exchange=None, routing_key=key, body=str(self.number), headers={}, id=self.number, owner=self.rows.owner)
            self.open.append(made)

    @precondition(lambda self: self.open)
    @rule(is_committed=st.booleans())
    def end(self, is_committed: bool) -> None:
        if is_committed:
            self.rows.rows += self.open
            self.committed += self.open
        self.open = []

    @rule(fates=st.lists(st.sampled_from(["well", "lost", "unconfirmed"]), max_size=4), is_away=st.booleans())
    def send(self, fates: list[str], is_away: bool) -> None:
        self.bus.fates, self.rows.is_away = fates, is_away
        self.run(self.relay.send_all())

    @rule(fates=st.lists(st.sampled_from(["well", "lost", "unconfirmed"]), max_size=4))
    def die_and_be_followed(self, fates: list[str]) -> None:
        """It dies in sending: what it published is not noted. Another process takes its letters over."""
        self.bus.fates, self.rows.is_away = fates, True
        self.run(self.relay.send_all())
        self.open = []
        self.rows.owner += "'"
        self.rows.rows = [replace(row, owner=self.rows.owner) for row in self.rows.rows]
        self.relay = Relay(self.rows, self.bus, clock=self.clock)

    @rule(seconds=st.sampled_from([0.1, 0.3, 5.0]))
    def wait(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))

    @invariant()
    def look(self) -> None:
        """At what the bus has: nothing that was not committed, and each letter's first time in order."""
        committed = {letter.id for letter in self.committed}
        for key in KEYS:
            while (delivery := self.run(self.bus.get(key))) is not None:
                self.taken[key].append(int(delivery.body))
                self.run(delivery.ack())
            assert set(self.taken[key]) <= committed
            first = list(dict.fromkeys(self.taken[key]))
            assert first == sorted(first)


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=60, stateful_step_count=25, suppress_health_check=list(HealthCheck))
