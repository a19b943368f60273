"""Buses of kombu that go away and come back: an error in time, and work goes on without anybody's help."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.base.errors import Unavailable
from common.base.limits import CONNECT_TIMEOUT_S, SETTLE_TIMEOUT_S
from common.host.clock import SystemClock
from common.testing.servers import RedisServer
from common.transport.port import BusUnavailable, Queue, Transport, Unroutable
from common.transport.url import open_transport
from tests.conformance.transport.support import WAIT_S, Inbox, consume, send, to_queue


async def opened(url: str) -> Transport:
    return await open_transport(url, clock=SystemClock(), connection_name="suite")


async def until_sent(transport: Transport, name: str, body: bytes) -> None:
    """As long as it takes for the bus, and the queue, to be there again."""
    async with asyncio.timeout(WAIT_S):
        is_sent = False
        while not is_sent:
            try:
                await send(transport, to_queue(name, body))
                is_sent = True
            except (Unavailable, Unroutable):
                await SystemClock().sleep(0.05)


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """One that this test may kill; it writes down what it holds."""
    server = RedisServer(tmp_path / "redis")
    server.appendonly = True
    async with server:
        yield server


@pytest.mark.real("redis")
@pytest.mark.timeout(90)
async def test_a_redis_that_dies_is_an_unavailable_bus_in_time_and_serves_again_when_it_is_back(redis: RedisServer) -> None:
    publisher, server = await opened(redis.url()), await opened(redis.url())
    inbox, _ = await consume(server, Queue("work", durable=True), prefetch=2)
    await send(publisher, to_queue("work", b"held"), to_queue("work", b"acked"))
    held, acked = await inbox.next(), await inbox.next()
    await send(publisher, to_queue("work", b"waits"))
    redis.kill()
    started_s = asyncio.get_running_loop().time()
    with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1"):
        await publisher.publish(to_queue("work", b"lost"), timeout_s=WAIT_S)
    with pytest.raises(BusUnavailable):
        await acked.ack()
    with pytest.raises(BusUnavailable):
        await opened(redis.url())
    assert asyncio.get_running_loop().time() - started_s < SETTLE_TIMEOUT_S + CONNECT_TIMEOUT_S
    await asyncio.to_thread(redis.start)
    await until_sent(publisher, "work", b"new")
    found: dict[bytes, bool] = {}
    async with asyncio.timeout(WAIT_S):
        while found.keys() != {b"waits", b"new", b"acked"}:
            delivery = await inbox.next()
            found[delivery.body] = delivery.redelivered
            await delivery.ack()
    # What was settled while redis was away comes again, marked; what is held is still held.
    assert found == {b"waits": False, b"new": False, b"acked": True}
    await held.ack()
    await publisher.close()
    await server.close()


@pytest.mark.real("redis")
@pytest.mark.timeout(90)
async def test_a_redis_that_forgot_everything_gets_its_queues_again_and_the_consumer_hears_of_it(tmp_path: Path) -> None:
    async with RedisServer(tmp_path / "redis") as redis:
        publisher, server = await opened(redis.url()), await opened(redis.url())
        inbox, remade = Inbox(), asyncio.Event()
        await server.consume(Queue("work"), prefetch=2, on_delivery=inbox, on_remade=remade.set)
        await send(publisher, to_queue("work", b"held"))
        held = await inbox.next()
        redis.kill()
        await asyncio.to_thread(redis.start)
        async with asyncio.timeout(WAIT_S):
            await remade.wait()
        with pytest.raises(BusUnavailable, match="another consumer"):
            await held.ack()
        await until_sent(publisher, "work", b"new")
        assert await inbox.bodies(1) == [b"new"]
        # Called, not polled: the connection by which redis calls was made again.
        assert await publisher.consumers("work") == 1
        await publisher.close()
        await server.close()


@pytest.mark.timeout(90)
async def test_a_locked_sqlite_bus_is_unavailable_in_time_and_serves_again_when_the_lock_goes(tmp_path: Path) -> None:
    url = f"kombu+sqla+sqlite:///{tmp_path}/bus.sqlite"
    publisher, server = await opened(url), await opened(url)
    inbox, _ = await consume(server, Queue("work"), prefetch=2)
    await send(publisher, to_queue("work", b"first"))
    first = await inbox.next()
    other = sqlite3.connect(tmp_path / "bus.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started_s = asyncio.get_running_loop().time()
    with pytest.raises(BusUnavailable, match="locked"):
        await publisher.publish(to_queue("work", b"lost"), timeout_s=WAIT_S)
    assert asyncio.get_running_loop().time() - started_s < SETTLE_TIMEOUT_S
    with pytest.raises(Unavailable):
        await publisher.publish(to_queue("work", b"lost"), timeout_s=0.2)
    other.execute("COMMIT")
    other.close()
    await until_sent(publisher, "work", b"new")
    found = []
    while b"new" not in found:
        delivery = await inbox.next()
        found.append(delivery.body)
        await delivery.ack()
    # What was given up may have been written after all: its outcome was unknown.
    assert set(found) <= {b"lost", b"new"}
    await first.ack()
    await publisher.close()
    await server.close()
