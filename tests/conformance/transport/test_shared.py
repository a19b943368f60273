"""What only several processes can show, of every bus that they can share through kombu."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from common.host.clock import SystemClock
from common.transport.kombu_folder import FolderStore
from common.transport.kombu_store import LEASE_S
from common.transport.port import Binding, BusUnavailable, Exchange, Message, Queue, Transport
from common.transport.redis_store import RedisStore
from common.transport.url import open_transport
from tests.conformance.transport.support import WAIT_S, Inbox, consume, process, send, to_queue
from tests.conformance.transport.worker import NEVER_S

KINDS = [
    "filesystem",
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.real("postgresql")),
    pytest.param("redis", marks=pytest.mark.real("redis")),
]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "filesystem":
            return f"kombu+filesystem://{tmp_path}/bus"
        case "sqlite":
            return f"kombu+sqla+sqlite:///{tmp_path}/bus.sqlite"
        case "postgresql":
            return str(request.getfixturevalue("postgres_bus_url"))
        case _:
            return str(request.getfixturevalue("redis_server").fresh_url())


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Transport]:
    transport = await open_transport(url, clock=SystemClock(), connection_name="suite")
    try:
        yield transport
    finally:
        await transport.close()


async def test_three_processes_that_publish_and_consume_at_once_lose_and_double_nothing(url: str) -> None:
    messages = 300
    async with connected(url) as transport:
        _, idle = await consume(transport, Queue("work"))
        await idle.cancel()
        inbox, _ = await consume(transport, Queue("seen"), prefetch=50)
        async with (
            process(url, "mix", "a", str(messages)),
            process(url, "mix", "b", str(messages)),
            process(url, "mix", "c", str(messages)),
        ):
            found = Counter(await inbox.bodies(3 * messages))
        assert found == Counter(f"{name}-{number}".encode() for name in "abc" for number in range(messages))
        await send(transport, to_queue("seen", b"end"))
        assert await inbox.bodies(1) == [b"end"], "a message was doubled"


async def test_what_a_killed_process_held_goes_to_another(url: str) -> None:
    async with connected(url) as transport:
        _, idle = await consume(transport, Queue("work"))
        await idle.cancel()
        await send(transport, to_queue("work", b"precious"))
        async with process(url, "hold") as worker:
            assert worker.stdout is not None
            assert await worker.stdout.readline() == b"held\n"
            assert await transport.consumers("work") == 1
            worker.kill()
            await worker.wait()
        # A folder's locks tell a death at once; the others wait for the end of a lease.
        async with asyncio.timeout(LEASE_S + WAIT_S):
            while await transport.consumers("work"):
                await SystemClock().sleep(0.1)
        inbox, _ = await consume(transport, Queue("work"))
        delivery = await inbox.next()
        assert (delivery.body, delivery.redelivered) == (b"precious", True)
        await delivery.ack()


async def test_a_consumer_in_another_process_is_woken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where consumers are called, they look for nothing else here; those of a database always look by themselves."""
    for kind in (FolderStore, RedisStore):
        monkeypatch.setattr(kind, "poll_s", (NEVER_S, NEVER_S))
    async with connected(url) as transport, process(url, "woken", "server") as worker:
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"ready\n"
        inbox, _ = await consume(transport, Queue("replies"))
        for number in range(20):
            await send(transport, Message(None, "server", b"%d" % number, headers={"reply_to": "replies"}, mandatory=True))
            assert await inbox.bodies(1) == [b"%d" % number]


async def consuming(server: Transport, queue: Queue, inbox: Inbox) -> None:
    """Again while the bus is not available: SQLite's writers take turns by chance, and one may wait too long on a busy machine."""
    while True:
        with suppress(BusUnavailable):
            await server.consume(queue, prefetch=5, on_delivery=inbox)
            return


async def test_transports_that_bind_at_once_lose_no_binding(url: str) -> None:
    exchange = Exchange("compute_fanout", "fanout", auto_delete=True)
    async with connected(url) as publisher:
        servers = [await open_transport(url, clock=SystemClock(), connection_name=f"s{number}") for number in range(6)]
        inbox = Inbox()
        async with asyncio.TaskGroup() as group:
            for number, server in enumerate(servers):
                for queue in range(5):
                    name = f"fan-{number}-{queue}"
                    group.create_task(consuming(server, Queue(name, (Binding(exchange, ""),)), inbox))
        await send(publisher, Message(exchange, "", b"all", mandatory=True))
        assert await inbox.bodies(30) == [b"all"] * 30
        for server in servers:
            await server.close()


async def test_a_queue_of_an_odd_name_is_a_queue_like_others(url: str) -> None:
    async with connected(url) as transport:
        for name in ("a/b", "..", ".hidden", "é %41", "x" * 120, "cinder-volume.host@file.host#pool"):
            inbox, _ = await consume(transport, Queue(name, (Binding(Exchange("a/b", "topic"), name),)))
            await send(transport, Message(Exchange("a/b", "topic"), name, name.encode(), mandatory=True))
            assert await inbox.bodies(1) == [name.encode()]
            assert await transport.consumers(name) == 1
