"""Deadlines by the slot, on a loop whose time the test sets."""

import asyncio
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from common.transport.deadlines import SLOT_S, Deadlines


class Loop:
    """Time and one timer, as an event loop has them."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Any:
        entry = (when_s, callback)
        self.timers.append(entry)
        loop = self

        class Handle:
            def cancel(self) -> None:
                if entry in loop.timers:
                    loop.timers.remove(entry)

        return Handle()

    def run_until(self, when_s: float) -> None:
        while self.timers and min(self.timers)[0] <= when_s:
            entry = min(self.timers)
            self.timers.remove(entry)
            self.now_s = max(self.now_s, entry[0])
            entry[1]()
        self.now_s = when_s


class Entry:
    def __init__(self, loop: Loop) -> None:
        self.slot = 0
        self.loop = loop
        self.expired_s: list[float] = []

    def expire(self) -> None:
        self.expired_s.append(self.loop.now_s)


def pair() -> tuple[Loop, Deadlines]:
    loop = Loop()
    return loop, Deadlines(loop)  # type: ignore[arg-type]  # as much of one as it needs


def test_an_entry_rings_once_at_its_time_or_a_moment_later() -> None:
    loop, deadlines = pair()
    entry = Entry(loop)
    assert deadlines.add(entry, 0.5) == 1000.5
    loop.run_until(1000.49)
    assert entry.expired_s == []
    loop.run_until(1010)
    (at_s,) = entry.expired_s
    assert 1000.5 <= at_s <= 1000.5 + SLOT_S + 1e-6


def test_what_is_done_does_not_ring_and_leaves_no_timer_behind() -> None:
    loop, deadlines = pair()
    entries = [Entry(loop) for _ in range(1000)]
    for entry in entries:
        deadlines.add(entry, 60.0)
        deadlines.done(entry)
        deadlines.done(entry)
    assert len(loop.timers) == 1, "one timer for a thousand deadlines"
    loop.run_until(1100)
    assert not any(entry.expired_s for entry in entries)
    assert loop.timers == []


def test_what_is_done_leaves_no_memory_behind_until_its_time_would_have_come() -> None:
    """A set that held a hundred stays as large as that when it is empty, and a minute has three thousand of them."""
    loop, deadlines = pair()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(1000):
            entries = [Entry(loop) for _ in range(100)]
            for entry in entries:
                deadlines.add(entry, 60.0)
            for entry in entries:
                deadlines.done(entry)
            loop.now_s += SLOT_S
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 300_000
    loop.run_until(1200)
    assert loop.timers == []


def test_a_slot_that_was_empty_rings_for_those_who_come_later() -> None:
    loop, deadlines = pair()
    early, late = Entry(loop), Entry(loop)
    deadlines.add(early, 1.0)
    deadlines.done(early)
    deadlines.add(late, 1.0)
    deadlines.done(early)
    loop.run_until(1010)
    assert (len(early.expired_s), len(late.expired_s)) == (0, 1)


def test_nothing_rings_after_close() -> None:
    loop, deadlines = pair()
    entry = Entry(loop)
    deadlines.add(entry, 1.0)
    deadlines.close()
    loop.run_until(1100)
    assert (entry.expired_s, loop.timers) == ([], [])


@settings(max_examples=100)
@given(steps=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1), st.booleans()), max_size=30))
def test_every_entry_rings_in_time_in_any_order(steps: list[tuple[float, float, bool]]) -> None:
    loop, deadlines = pair()
    wanted: list[tuple[Entry, float | None]] = []
    for delay_s, pause_s, is_done in steps:
        entry = Entry(loop)
        due_s = deadlines.add(entry, delay_s)
        if is_done:
            deadlines.done(entry)
        wanted.append((entry, None if is_done else due_s))
        loop.run_until(loop.now_s + pause_s)
        assert len(loop.timers) <= 1
    loop.run_until(loop.now_s + 10)
    for entry, wanted_s in wanted:
        if wanted_s is None:
            assert entry.expired_s == []
        else:
            (at_s,) = entry.expired_s
            assert wanted_s - 1e-6 <= at_s <= wanted_s + SLOT_S + 1e-6


async def test_it_rings_on_a_real_loop_too() -> None:
    deadlines, rung = Deadlines(asyncio.get_running_loop()), asyncio.Event()

    class Ringing:
        slot = 0

        def expire(self) -> None:
            rung.set()

    deadlines.add(Ringing(), 0.01)
    async with asyncio.timeout(5):
        await rung.wait()


def test_a_deadline_of_the_past_rings_at_once() -> None:
    loop, deadlines = pair()
    entry = Entry(loop)
    deadlines.add(entry, -5.0)
    loop.run_until(1000.0 + SLOT_S)
    assert pytest.approx(entry.expired_s, abs=SLOT_S) == [1000.0]
