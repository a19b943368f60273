"""Coroutines that are begun before anybody knows whether they wait."""

import asyncio
from contextvars import ContextVar, copy_context

import pytest

from common.rpc.stepping import Begun

WORD: ContextVar[str] = ContextVar("WORD", default="outside")


async def at_once(value: int) -> int:
    return value


async def test_what_ends_at_once_has_its_result_and_no_rest() -> None:
    begun = Begun(at_once(3))
    assert (begun.is_done, begun.result) == (True, 3)


async def test_what_fails_at_once_raises_where_it_is_begun() -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        Begun(fail())


async def test_what_waits_goes_on_in_the_task_that_began_it() -> None:
    async def wait(gate: "asyncio.Future[int]") -> tuple[object, int]:
        task = asyncio.current_task()
        async with asyncio.timeout(5):
            found = await gate
        assert asyncio.current_task() is task
        return task, found

    gate: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    begun = Begun(wait(gate))
    assert not begun.is_done
    asyncio.get_running_loop().call_soon(gate.set_result, 7)
    assert await begun.rest() == (asyncio.current_task(), 7)


async def test_a_time_limit_and_a_cancellation_reach_what_waits() -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    begun = Begun(wait())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await begun.rest()

    async def run() -> None:
        await Begun(wait()).rest()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled", "cancelled"]


async def test_an_error_that_it_outlives_is_not_its_end() -> None:
    async def wait(first: "asyncio.Future[int]", second: "asyncio.Future[int]") -> int:
        try:
            await first
        except KeyError:
            return await second
        return 0

    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    begun = Begun(wait(first, second))
    loop.call_soon(first.set_exception, KeyError("x"))
    loop.call_later(0.001, second.set_result, 5)
    assert await begun.rest() == 5


async def test_all_steps_run_in_its_own_context() -> None:
    async def speak(gate: "asyncio.Future[None]") -> list[str]:
        WORD.set("inside")
        await gate
        return [WORD.get()]

    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    begun = Begun(speak(gate), copy_context())
    assert WORD.get() == "outside"
    gate.set_result(None)
    assert await begun.rest() == ["inside"]
    assert WORD.get() == "outside"
