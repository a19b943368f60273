"""What the link makes of the driver's ways to end a call."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import aiormq
import pytest

from common.host.clock import SystemClock
from common.transport.rabbit_link import Link, Lost, watched
from common.transport.rabbit_url import parse_rabbit_url


async def forgets_its_cancellation() -> None:
    """As `asyncio.wait_for` of Python 3.11 does when the answer comes in the same moment."""
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        return


async def waits() -> None:
    await asyncio.get_running_loop().create_future()


async def answers_404_when_cancelled() -> None:
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError as exc:
        raise aiormq.ChannelNotFoundEntity("NOT_FOUND") from exc


@pytest.mark.parametrize("driver", [forgets_its_cancellation, waits, answers_404_when_cancelled])
async def test_a_cancelled_caller_is_cancelled_whatever_the_driver_makes_of_it(driver: Callable[[], Awaitable[None]]) -> None:
    async def call() -> None:
        with watched():
            await driver()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError("nobody asked for it"),
        aiormq.ChannelClosed(0, "closed"),
        aiormq.ChannelInvalidStateError("closed"),
        aiormq.AMQPConnectionError("reset"),
        ConnectionResetError(104, "reset"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_the_drivers_words_for_a_lost_connection_are_one(error: BaseException) -> None:
    with pytest.raises(Lost), watched():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        aiormq.ChannelNotFoundEntity("NOT_FOUND"),
        aiormq.ChannelPreconditionFailed("406"),
        aiormq.ChannelAccessRefused("403"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_answer_of_the_broker_is_no_loss(error: Exception) -> None:
    with pytest.raises(type(error)), watched():
        raise error


async def test_a_time_limit_inside_or_outside_is_a_time_limit() -> None:
    async def outside() -> None:
        async with asyncio.timeout(0.001):
            with watched():
                await forgets_its_cancellation()

    with pytest.raises(TimeoutError):
        await outside()
    with pytest.raises(TimeoutError), watched():
        async with asyncio.timeout(0.001):
            await waits()


class SlowChannel:
    """Closes when the broker agrees; a second close would cost the connection."""

    def __init__(self) -> None:
        self.agreed = asyncio.Event()
        self.ended = ""

    async def close(self) -> None:
        try:
            await self.agreed.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "closed"


async def test_a_channel_goes_on_closing_when_its_caller_is_cancelled() -> None:
    link = Link(parse_rabbit_url("rabbit://"), clock=SystemClock(), connection_name="test")
    channel = SlowChannel()
    task = asyncio.create_task(link.end_channel(cast("Any", channel)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert channel.ended == ""
    channel.agreed.set()
    await link.close()
    assert channel.ended == "closed"
