"""The clock that tests hold in their hand."""

import asyncio
from itertools import pairwise

from common.base.clock import Clock
from common.testing.clock import JumpingClock


async def sleeper(clock: Clock, name: str, delay_s: float, seen: list[tuple[str, float]]) -> None:
    await clock.sleep(delay_s)
    seen.append((name, clock.monotonic()))


async def test_time_stands_until_it_is_moved_and_sleepers_wake_in_their_moments() -> None:
    clock, seen = JumpingClock(), list[tuple[str, float]]()
    started = clock.utcnow()
    async with asyncio.TaskGroup() as group:
        for name, delay_s in (("late", 7), ("early", 2), ("soon after", 3)):
            group.create_task(sleeper(clock, name, delay_s, seen))
        await clock.sleep(0)
        await clock.advance(5)
        assert (seen, clock.monotonic()) == ([("early", 2), ("soon after", 3)], 5)
        await clock.advance(5)
    assert seen[2:] == [("late", 7)]
    assert (clock.utcnow() - started).total_seconds() == 10


async def test_who_sleeps_again_within_the_time_that_passes_is_woken_again() -> None:
    clock, seen = JumpingClock(), list[tuple[str, float]]()

    async def beat() -> None:
        for _ in range(3):
            await sleeper(clock, "beat", 2, seen)

    async with asyncio.TaskGroup() as group:
        group.create_task(beat())
        await clock.sleep(0)
        await clock.advance(6)
    assert [at for _, at in seen] == [2, 4, 6]


async def test_a_clock_that_jumps_wakes_everybody_in_order_by_itself() -> None:
    clock, seen = JumpingClock(jumps=True), list[tuple[str, float]]()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for number in (500, 20, 9000, 1, 20):
            group.create_task(sleeper(clock, str(number), number, seen))
    assert [name for name, _ in seen] == ["1", "20", "20", "500", "9000"]
    assert all(one <= two for (_, one), (_, two) in pairwise(seen))


async def test_a_cancelled_sleeper_holds_nobody_up() -> None:
    clock, seen = JumpingClock(), list[tuple[str, float]]()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(sleeper(clock, "first", 1, seen))
        group.create_task(sleeper(clock, "second", 2, seen))
        await clock.sleep(0)
        first.cancel()
        await clock.advance(2)
    assert seen == [("second", 2)]
