"""Locks by key."""

import asyncio

import pytest

from common.host.locks import KeyedLocks


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_holders_of_one_key_take_turns_in_the_order_of_asking() -> None:
    locks, seen, gate = KeyedLocks(), [], asyncio.Event()

    async def work(name: str) -> None:
        async with locks.hold("server-1"):
            seen.append(f"{name} in")
            await gate.wait()
            await asyncio.sleep(0)
            seen.append(f"{name} out")

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(work(name))
        await turn()
        assert seen == ["a in"]
        gate.set()
    assert seen == ["a in", "a out", "b in", "b out", "c in", "c out"]


async def test_other_keys_do_not_wait() -> None:
    locks = KeyedLocks()
    async with asyncio.timeout(5), locks.hold("a"), locks.hold("b"):
        pass


async def test_keys_that_nobody_uses_take_no_memory_also_after_errors_and_cancellation() -> None:
    locks = KeyedLocks()

    async def wait() -> None:
        async with locks.hold("a"):
            raise AssertionError("it was cancelled before its turn")

    async def fail() -> None:
        async with locks.hold("a"):
            raise ValueError

    async with locks.hold("a"), asyncio.TaskGroup() as group:
        waiting = group.create_task(wait())
        await turn()
        waiting.cancel()
    with pytest.raises(ValueError):
        await fail()
    async with asyncio.timeout(5), locks.hold("a"):
        assert len(locks._locks) == 1
    assert locks._locks == {}
