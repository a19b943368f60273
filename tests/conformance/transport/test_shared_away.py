"""Buses of kombu that go away and come back: an error in time, and work goes on without anybody's help."""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from redis import Redis

from common.base.errors import Unavailable
from common.base.limits import CONNECT_TIMEOUT_S, SETTLE_TIMEOUT_S
from common.host.clock import SystemClock
from common.testing.servers import PostgresServer, RedisServer, Server
from common.transport.kombu_store import ANSWER_TIMEOUT_S
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


class DurableRedis(RedisServer):
    """Writes down what it holds."""

    appendonly = True


class DurablePostgres(PostgresServer):
    """Writes down what was committed before it says so; the other tests' one is in no such hurry."""

    def _command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        argv, extra = super()._command()
        return [*argv, "-c", "synchronous_commit=on"], extra


MORTALS = [
    pytest.param(DurableRedis, "kombu+redis", marks=pytest.mark.real("redis")),
    pytest.param(DurablePostgres, "kombu+sqla+postgresql", marks=pytest.mark.real("postgresql")),
]


def url_of(mortal: Server) -> str:
    assert isinstance(mortal, RedisServer | PostgresServer)
    return mortal.url() if isinstance(mortal, RedisServer) else f"kombu+sqla+{mortal.url()}"


@pytest.mark.parametrize(("kind", "scheme"), MORTALS)
@pytest.mark.timeout(120)
async def test_a_bus_that_dies_is_unavailable_in_time_and_serves_again_when_it_is_back(
    kind: type[Server], scheme: str, tmp_path: Path
) -> None:
    async with kind(tmp_path / "mortal") as mortal:
        await dies_and_comes_back(mortal, scheme)


async def dies_and_comes_back(mortal: Server, scheme: str) -> None:
    url = url_of(mortal)
    publisher, server = await opened(url), await opened(url)
    assert publisher.url.startswith(scheme)
    inbox, _ = await consume(server, Queue("work", durable=True), prefetch=2)
    await send(publisher, to_queue("work", b"held"), to_queue("work", b"acked"))
    held, acked = await inbox.next(), await inbox.next()
    await send(publisher, to_queue("work", b"waits"))
    await asyncio.to_thread(mortal.kill)
    started_s = asyncio.get_running_loop().time()
    with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1"):
        await publisher.publish(to_queue("work", b"lost"), timeout_s=WAIT_S)
    with pytest.raises(BusUnavailable):
        await acked.ack()
    with pytest.raises(BusUnavailable):
        await opened(url)
    assert asyncio.get_running_loop().time() - started_s < SETTLE_TIMEOUT_S + CONNECT_TIMEOUT_S
    await asyncio.to_thread(mortal.start)
    await until_sent(publisher, "work", b"new")
    found: dict[bytes, bool] = {}
    async with asyncio.timeout(WAIT_S):
        while found.keys() != {b"waits", b"new", b"acked"}:
            delivery = await inbox.next()
            found[delivery.body] = delivery.redelivered
            await delivery.ack()
    # What was settled while the bus was away comes again, marked; what is held is still held.
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
        # Called, not polled: the connection by which redis calls is made again, a moment after the first look at the queue.
        async with asyncio.timeout(WAIT_S):
            while await publisher.consumers("work") != 1:
                await SystemClock().sleep(0.05)
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


@pytest.mark.real("redis")
@pytest.mark.timeout(90)
async def test_a_redis_that_does_not_answer_is_unavailable_in_time_and_serves_again(tmp_path: Path) -> None:
    async with RedisServer(tmp_path / "redis") as redis:
        publisher, server = await opened(redis.url()), await opened(redis.url())
        inbox, _ = await consume(server, Queue("work"), prefetch=2)
        with Redis(port=redis.port) as operator:
            operator.client_pause(int(ANSWER_TIMEOUT_S * 1000) + 2000)
        started_s = asyncio.get_running_loop().time()
        with pytest.raises(BusUnavailable, match=r"[Tt]imeout"):
            await publisher.publish(to_queue("work", b"unknown"), timeout_s=WAIT_S)
        assert asyncio.get_running_loop().time() - started_s < SETTLE_TIMEOUT_S
        await until_sent(publisher, "work", b"new")
        while (delivery := await inbox.next()).body != b"new":
            assert delivery.body == b"unknown"
            await delivery.ack()
        await delivery.ack()
        await publisher.close()
        await server.close()
