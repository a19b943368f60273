"""The relay on an outbox in memory: the order of each address, who waits for whom, and when something is tried again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import structlog

from common.base.errors import Unavailable
from common.base.limits import LETTER_ATTEMPTS, OUTBOX_BATCH
from common.db.outbox import Letter, Outbox
from common.flow.relay import Relay
from common.testing.clock import JumpingClock
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Closed, Message, MessageTooLarge

AGAIN_S = 0.2


class Rows(Outbox):
    """The rows of one process, and whether their database is away."""

    def __init__(self, *keys: str) -> None:
        self.rows = [letter(number, key) for number, key in enumerate(keys, 1)]
        self.is_away = False
        self.reads = 0

    async def pending(self, after: int = 0) -> list[Letter]:
        self.reads += 1
        if self.is_away:
            raise Unavailable(what="database", reason="away")
        return [row for row in self.rows if row.id > after][:OUTBOX_BATCH]

    async def sent(self, ids: Sequence[int]) -> None:
        self.rows = [row for row in self.rows if row.id not in ids]

    async def failed(self, letter_id: int, error: str) -> None:
        self.rows = [replace(row, attempts=row.attempts + 1, error=error) if row.id == letter_id else row for row in self.rows]


class Bus(MemoryTransport):
    """Notes which letters it confirms, `<key> <id>` each; `before` is awaited first and may raise."""

    def __init__(self, clock: JumpingClock) -> None:
        super().__init__(MemoryBus(clock))
        self.taken: list[str] = []
        self.before: Callable[[str], Awaitable[None]] | None = None

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        if self.before is not None:
            await self.before(message.key)
        self.taken.append(f"{message.key} {message.body.decode()}")


class Away:
    """Addresses that take nothing now, and what was tried there."""

    def __init__(self, *keys: str) -> None:
        self.keys = set(keys)
        self.tried: list[str] = []

    async def __call__(self, key: str) -> None:
        self.tried.append(key)
        if key in self.keys:
            raise Unavailable(what=key, reason="away")


def letter(number: int, key: str) -> Letter:
    return Letter(exchange=None, routing_key=key, body=str(number), headers={}, id=number)


@asynccontextmanager
async def running(rows: Rows, bus: Bus, clock: JumpingClock) -> AsyncIterator[Relay]:
    relay = Relay(rows, bus, clock=clock)
    task = asyncio.ensure_future(relay.run())
    await clock.advance(0)
    await rounds()
    yield relay
    task.cancel()


async def rounds() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_letters_to_one_address_are_sent_in_their_order() -> None:
    clock = JumpingClock()
    rows, bus = Rows(*["a", "b"] * OUTBOX_BATCH), Bus(clock)
    assert await Relay(rows, bus, clock=clock).send_all() == 2 * OUTBOX_BATCH
    assert rows.rows == []
    for key, first in (("a", 1), ("b", 2)):
        assert [each for each in bus.taken if each[0] == key] == [f"{key} {n}" for n in range(first, 2 * OUTBOX_BATCH + 1, 2)]


async def test_an_address_that_takes_nothing_holds_up_its_own_letters_only() -> None:
    clock = JumpingClock()
    rows, bus = Rows("a", "b", "a", "b"), Bus(clock)
    bus.before = away = Away("a")
    relay = Relay(rows, bus, clock=clock)
    await relay.send_all()
    assert bus.taken == ["b 2", "b 4"]
    assert away.tried.count("a") == 1
    away.keys.clear()
    assert await relay.send_all() == 0
    await clock.advance(AGAIN_S)
    assert await relay.send_all() == 2
    assert bus.taken == ["b 2", "b 4", "a 1", "a 3"]


async def test_later_letters_stay_behind_one_that_failed_though_its_time_to_try_again_comes_meanwhile() -> None:
    clock = JumpingClock()
    rows, bus = Rows("a", *["b"] * OUTBOX_BATCH, "a"), Bus(clock)
    away = Away("a")

    async def before(key: str) -> None:
        await away(key)
        if key == "b":
            away.keys.clear()
            await clock.advance(AGAIN_S)

    bus.before = before
    relay = Relay(rows, bus, clock=clock)
    await relay.send_all()
    assert [each for each in bus.taken if each[0] == "a"] == []
    await relay.send_all()
    assert [each for each in bus.taken if each[0] == "a"] == ["a 1", f"a {OUTBOX_BATCH + 2}"]


async def test_an_address_is_tried_again_by_itself_with_growing_pauses() -> None:
    clock = JumpingClock()
    rows, bus = Rows("a"), Bus(clock)
    bus.before = away = Away("a")
    async with running(rows, bus, clock):
        for pause_s, tries in ((0, 1), (AGAIN_S, 2), (AGAIN_S, 2), (AGAIN_S, 3), (3 * AGAIN_S, 3), (AGAIN_S, 4)):
            await clock.advance(pause_s)
            assert len(away.tried) == tries
        away.keys.clear()
        await clock.advance(60)
    assert bus.taken == ["a 1"]


async def test_a_blocked_address_whose_letters_another_process_took_over_is_forgotten() -> None:
    clock = JumpingClock()
    rows, bus = Rows("a"), Bus(clock)
    bus.before = Away("a")
    async with running(rows, bus, clock):
        rows.rows.clear()
        await clock.advance(AGAIN_S)
        await rounds()
        reads = rows.reads
        await clock.advance(60)
        await rounds()
    assert rows.reads == reads


async def test_a_database_that_is_away_is_asked_again_with_pauses_and_one_warning() -> None:
    clock = JumpingClock()
    rows, bus = Rows("a", "b"), Bus(clock)
    bus.before = Away("a")
    with structlog.testing.capture_logs() as logged:
        async with running(rows, bus, clock):
            rows.is_away = True
            reads = rows.reads
            await clock.advance(60)
            assert 5 < rows.reads - reads < 15
            rows.is_away = False
            bus.before = None
            await clock.advance(20)
    assert bus.taken == ["b 2", "a 1"]
    assert [line["event"] for line in logged].count("outbox not read") == 1


class Refusing:
    """Refuses the letters of one address."""

    def __init__(self, key: str, fault: Exception) -> None:
        self.key = key
        self.fault = fault
        self.tries = 0

    async def __call__(self, key: str) -> None:
        if key == self.key:
            self.tries += 1
            raise self.fault


async def test_a_letter_that_can_never_be_sent_is_told_as_an_error_and_those_behind_it_pass_in_order() -> None:
    clock = JumpingClock()
    rows, bus = Rows("a", *["b"] * OUTBOX_BATCH, "a", "a"), Bus(clock)
    refused = MessageTooLarge(size_bytes=9, limit_bytes=8)
    tries = 0

    async def before(key: str) -> None:
        nonlocal tries
        if key == "a" and (tries := tries + 1) <= LETTER_ATTEMPTS:
            raise refused

    bus.before = before
    with structlog.testing.capture_logs() as logged:
        async with running(rows, bus, clock):
            await clock.advance(60)
            await rounds()
    assert [each for each in bus.taken if each[0] == "a"] == [f"a {OUTBOX_BATCH + 2}", f"a {OUTBOX_BATCH + 3}"]
    [left] = rows.rows
    assert (left.id, left.attempts, left.error) == (1, LETTER_ATTEMPTS, str(refused))
    assert [(line["event"], line["log_level"]) for line in logged] == [("letter not sent", "warning"), ("letter given up", "error")]


async def test_a_letter_that_was_given_up_is_tried_once_by_the_next_process_and_holds_up_nothing() -> None:
    clock = JumpingClock()
    rows, bus = Rows("a", "a"), Bus(clock)
    rows.rows[0] = replace(rows.rows[0], attempts=LETTER_ATTEMPTS)
    first: list[str] = []

    async def before(key: str) -> None:
        first.append(key)
        if len(first) == 1:
            raise MessageTooLarge(size_bytes=9, limit_bytes=8)

    bus.before = before
    relay = Relay(rows, bus, clock=clock)
    assert await relay.send_all() == 1
    assert await relay.send_all() == 0
    assert bus.taken == ["a 2"]
    rows.rows.clear()
    await relay.send_all()
    assert relay._given_up == set()


@pytest.mark.parametrize("fault", [Unavailable(what="a", reason="away"), Closed(url="x")])
async def test_what_is_wrong_with_the_bus_and_not_with_the_letter_is_waited_for_however_long(fault: Exception) -> None:
    clock = JumpingClock()
    rows, bus = Rows("a", "a"), Bus(clock)
    bus.before = away = Refusing("a", fault)
    async with running(rows, bus, clock):
        await clock.advance(300)
        assert away.tries > 2 * LETTER_ATTEMPTS
        assert bus.taken == []
        bus.before = None
        await clock.advance(10)
    assert bus.taken == ["a 1", "a 2"]


async def test_later_letters_stay_behind_one_that_was_passed_over_since_its_address_was_blocked() -> None:
    clock = JumpingClock()
    rows, bus = Rows("a"), Bus(clock)
    bus.before = away = Away("a")
    relay = Relay(rows, bus, clock=clock)
    await relay.send_all()
    away.keys.clear()
    rows.rows += [letter(number, "b") for number in range(2, OUTBOX_BATCH + 2)] + [letter(OUTBOX_BATCH + 2, "a")]

    async def before(key: str) -> None:
        await clock.advance(AGAIN_S if key == "b" else 0)

    bus.before = before
    await relay.send_all()
    assert [each for each in bus.taken if each[0] == "a"] == []
    await relay.send_all()
    assert [each for each in bus.taken if each[0] == "a"] == ["a 1", f"a {OUTBOX_BATCH + 2}"]
