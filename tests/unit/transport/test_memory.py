"""What only a clock in the test's hand can show of the memory transport."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from common.transport.errors import BusRefused
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Binding, Delivery, Exchange, Message, Queue, Unroutable


class HandClock:
    """Time passes when the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def utcnow(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None) + timedelta(seconds=self.now_s)

    async def sleep(self, delay_s: float) -> None:
        self.now_s += delay_s


async def publish(transport: MemoryTransport, message: Message) -> None:
    await transport.publish(message, timeout_s=1)


async def settle_down() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_message_expires_in_the_very_moment_that_its_time_is_over() -> None:
    clock = HandClock()
    transport = MemoryTransport(MemoryBus(clock))
    taken: list[Delivery] = []
    consumer = await transport.consume(Queue("q"), prefetch=9, on_delivery=taken.append)
    await consumer.cancel()
    for expiration_ms in (1000, 1001):
        await publish(transport, Message(None, "q", b"%d" % expiration_ms, expiration_ms=expiration_ms))
    await clock.sleep(1.0)
    await transport.consume(Queue("q"), prefetch=9, on_delivery=taken.append)
    await settle_down()
    assert [delivery.body for delivery in taken] == [b"1001"]
    await transport.close()


async def test_a_message_that_may_not_wait_reaches_a_consumer_with_room_and_no_other() -> None:
    transport = MemoryTransport(MemoryBus(HandClock()))
    taken: list[Delivery] = []
    await transport.consume(Queue("q"), prefetch=1, on_delivery=taken.append)
    for body in (b"1", b"2"):
        await publish(transport, Message(None, "q", body, expiration_ms=0))
    await settle_down()
    await taken[0].ack()
    await settle_down()
    assert [delivery.body for delivery in taken] == [b"1"]
    await transport.close()


async def test_requeued_messages_return_to_their_places() -> None:
    transport = MemoryTransport(MemoryBus(HandClock()))
    taken: list[Delivery] = []
    consumer = await transport.consume(Queue("q"), prefetch=3, on_delivery=taken.append)
    for body in (b"1", b"2", b"3", b"4"):
        await publish(transport, Message(None, "q", body))
    await settle_down()
    await consumer.cancel()
    for delivery in (taken[1], taken[2], taken[0]):
        await delivery.reject(requeue=True)
    taken.clear()
    await transport.consume(Queue("q"), prefetch=9, on_delivery=taken.append)
    await settle_down()
    assert [(delivery.body, delivery.redelivered) for delivery in taken] == [
        (b"1", True),
        (b"2", True),
        (b"3", True),
        (b"4", False),
    ]
    await transport.close()


async def test_a_message_on_its_way_when_its_consumer_is_cancelled_was_not_delivered() -> None:
    transport = MemoryTransport(MemoryBus(HandClock()))
    taken: list[Delivery] = []
    consumer = await transport.consume(Queue("q"), prefetch=3, on_delivery=taken.append)
    await publish(transport, Message(None, "q", b"1"))
    await consumer.cancel()
    await settle_down()
    assert taken == []
    await transport.consume(Queue("q"), prefetch=3, on_delivery=taken.append)
    await settle_down()
    assert [(delivery.body, delivery.redelivered) for delivery in taken] == [(b"1", False)]
    await transport.close()


async def test_an_exchange_of_another_kind_is_refused_and_one_that_deleted_itself_is_forgotten() -> None:
    transport = MemoryTransport(MemoryBus(HandClock()))
    fanout = Exchange("x", "fanout", auto_delete=True)
    consumer = await transport.consume(Queue("q", (Binding(fanout),), auto_delete=True), prefetch=1, on_delivery=print)
    with pytest.raises(BusRefused, match="fanout exchange, not topic"):
        await publish(transport, Message(Exchange("x", "topic"), "a", b""))
    await consumer.cancel()
    await publish(transport, Message(Exchange("x", "topic"), "a", b""))
    await transport.close()


async def test_an_exclusive_queue_is_refused_to_others_and_ends_with_its_transport() -> None:
    bus = MemoryBus(HandClock())
    owner, other = MemoryTransport(bus), MemoryTransport(bus)
    await owner.consume(Queue("q", exclusive=True), prefetch=1, on_delivery=print)
    with pytest.raises(BusRefused, match="one other connection"):
        await other.consume(Queue("q", exclusive=True), prefetch=1, on_delivery=print)
    await owner.close()
    with pytest.raises(Unroutable):
        await publish(other, Message(None, "q", b"", mandatory=True))
    await other.close()
