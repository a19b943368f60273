"""The inbox, in memory and in a database: at most one is told that a request is new, and what it came to stays."""

import asyncio
import tempfile
from typing import Any

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from common.db.engine import open_database
from common.db.inbox import SqlInbox
from common.db.tables import METADATA
from common.rpc.inbox import Inbox
from common.testing.clock import JumpingClock
from common.testing.inbox import MemoryInbox
from common.wire.callee import Standing

LEASE_S = 15.0
IDS, OWNERS = st.sampled_from(["m1", "m2"]), st.sampled_from(["a", "b", "c"])


class InboxMachine(RuleBasedStateMachine):
    """The model: who was told NEW, until when that holds, and what it came to."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = JumpingClock()
        self.inbox = self.made()
        self.holder: dict[str, str] = {}
        self.until: dict[str, float] = {}
        self.done: dict[str, bytes | None] = {}

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def made(self) -> Inbox:
        return MemoryInbox(self.clock, lease_s=LEASE_S)

    def teardown(self) -> None:
        self.loop.close()

    @rule(message=IDS, owner=OWNERS)
    def begin(self, message: str, owner: str) -> None:
        entry = self.run(self.inbox.begin(message, owner=owner))
        if message not in self.holder:
            assert entry.standing is Standing.NEW
            self.holder[message], self.until[message] = owner, self.clock.monotonic() + LEASE_S
        elif message in self.done:
            assert entry.standing is Standing.DONE
            assert entry.answer is not None
            assert entry.answer.body == self.done[message]
        else:
            assert entry.standing is (Standing.HELD if self.until[message] > self.clock.monotonic() else Standing.LOST)
        assert entry.owner == self.holder[message]

    @rule(message=IDS, owner=OWNERS)
    def renew(self, message: str, owner: str) -> None:
        may = self.holder.get(message) == owner and message not in self.done and self.until[message] > self.clock.monotonic()
        assert self.run(self.inbox.renew(message, owner=owner)) is may
        if may:
            self.until[message] = self.clock.monotonic() + LEASE_S

    @rule(message=IDS, owner=OWNERS, body=st.sampled_from([None, b"1", b"2"]))
    def finish(self, message: str, owner: str, body: bytes | None) -> None:
        self.run(self.inbox.finish(message, owner=owner, body=body))
        if self.holder.get(message) == owner:
            self.done[message] = body

    @rule(seconds=st.sampled_from([1.0, LEASE_S - 1, LEASE_S + 1]))
    def wait(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))


class SqlInboxMachine(InboxMachine):
    """The same on a SQLite file."""

    def made(self) -> Inbox:
        self.folder = tempfile.TemporaryDirectory()
        self.db = open_database(f"sqlite:///{self.folder.name}/w.sqlite", clock=self.clock)
        self.run(self.db.run(lambda conn: conn.run_sync(METADATA.create_all)))
        return SqlInbox(self.db, self.clock, lease_s=LEASE_S)

    def teardown(self) -> None:
        self.run(self.db.close())
        self.folder.cleanup()
        super().teardown()


SETTINGS = settings(stateful_step_count=25, suppress_health_check=list(HealthCheck))
TestInbox = InboxMachine.TestCase
TestInbox.settings = settings(SETTINGS, max_examples=60)
TestSqlInbox = SqlInboxMachine.TestCase
TestSqlInbox.settings = settings(SETTINGS, max_examples=15)
