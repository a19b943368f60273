"""Whoever is cancelled waits for what nobody can cancel."""

import asyncio
from threading import Event

import pytest

from common.host.to_its_end import in_thread, to_its_end


@pytest.mark.parametrize("times", [1, 3])
async def test_who_is_cancelled_however_often_waits_for_the_end(times: int) -> None:
    begun, end, ended = asyncio.Event(), asyncio.Event(), []

    async def work() -> None:
        begun.set()
        await end.wait()
        ended.append(True)

    waiting = asyncio.create_task(to_its_end(work()))
    await begun.wait()
    for _ in range(times):
        waiting.cancel()
        await asyncio.wait({waiting}, timeout=0.01)
        assert not waiting.done()
    end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == [True]


async def test_a_time_limit_that_rings_meanwhile_is_a_time_limit() -> None:
    go_on = Event()
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await in_thread(go_on.wait, timeout=20)
    assert go_on.is_set()


async def test_what_it_gives_and_what_it_raises_goes_to_who_waits() -> None:
    assert await in_thread(int, "10", base=2) == 2
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "x")
