"""The system's clock."""

import asyncio
import time

from common.host.clock import SystemClock

CLOCK = SystemClock()


async def test_inside_a_loop_the_time_is_the_loop_s_so_that_timeouts_agree() -> None:
    before = asyncio.get_running_loop().time()
    assert before <= CLOCK.monotonic() <= asyncio.get_running_loop().time()


def test_without_a_loop_there_is_a_time_too() -> None:
    before = time.monotonic()
    assert before <= CLOCK.monotonic() <= time.monotonic()


def test_the_time_of_day_is_naive_utc() -> None:
    before = time.time()
    now = CLOCK.utcnow()
    assert now.tzinfo is None
    assert abs((now - type(now)(1970, 1, 1)).total_seconds() - before) < 60


async def test_a_sleep_lasts_at_least_its_time_and_none_lets_others_run() -> None:
    started = CLOCK.monotonic()
    await CLOCK.sleep(0.02)
    assert CLOCK.monotonic() - started >= 0.019
    seen: list[str] = []
    asyncio.get_running_loop().call_soon(seen.append, "other")
    await CLOCK.sleep(-1)
    assert seen == ["other"]
