"""What options make of connections and queues, at a real RabbitMQ."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from common.host.clock import SystemClock
from common.rpc.options import RpcOptions
from common.rpc.topology import stream
from common.testing.servers import RabbitServer
from common.transport.port import Message, Queue, Transport, Unroutable
from common.transport.rabbit_settings import RabbitSettings
from common.transport.url import open_transport
from common.wire.compression import Compression, plain
from tests.conformance.transport.support import WAIT_S, consume, send, to_queue

pytestmark = pytest.mark.real("rabbitmq")

STREAM = stream(RpcOptions(transient_quorum_queue=True, stream_fanout=True, transient_queues_ttl_s=60), "compute")
FANOUT = STREAM.bindings[0].exchange


@pytest.fixture(params=["rabbit", "amqp"])
def rabbit_url(request: pytest.FixtureRequest, rabbit_url: str) -> str:
    return f"{request.param}://{rabbit_url.removeprefix('rabbit://')}"


@asynccontextmanager
async def connected(url: str, settings: RabbitSettings = RabbitSettings()) -> AsyncIterator[Transport]:  # noqa: B008 - frozen
    transport = await open_transport(url, clock=SystemClock(), connection_name="suite", rabbit=settings)
    try:
        yield transport
    finally:
        await transport.close()


async def test_every_reader_of_a_stream_gets_every_message_and_goes_on_where_it_was_cut(
    rabbit_url: str, rabbit_server: RabbitServer
) -> None:
    vhost = rabbit_url.rpartition("/")[2]
    async with connected(rabbit_url) as one, connected(rabbit_url) as two, connected(rabbit_url) as publisher:
        readers = [(await consume(transport, STREAM, prefetch=5))[0] for transport in (one, two)]
        for number in range(8):
            await send(publisher, Message(FANOUT, "", b"%d" % number))
        for reader in readers:
            assert await reader.bodies(8) == [b"%d" % number for number in range(8)]
        await asyncio.to_thread(rabbit_server.ctl, "close_all_connections", "--vhost", vhost, "test")
        for number in range(8, 12):
            await send(publisher, Message(FANOUT, "", b"%d" % number))
        for reader in readers:
            assert await reader.bodies(4) == [b"8", b"9", b"10", b"11"], "nothing again, and nothing lost while it was away"


@pytest.mark.parametrize("is_away", [False, True], ids=["while it is read", "while the reader is away"])
async def test_a_reader_of_a_stream_that_was_deleted_reads_the_new_one_from_its_first_message(
    rabbit_url: str, rabbit_server: RabbitServer, is_away: bool
) -> None:
    late = RabbitSettings(delay_s=1.5)
    async with connected(rabbit_url, late) as server, connected(rabbit_url) as publisher:
        reader, _ = await consume(server, STREAM, prefetch=5)
        for number in range(3):
            await send(publisher, Message(FANOUT, "", b"%d" % number))
        assert await reader.bodies(3) == [b"0", b"1", b"2"]
        if is_away:
            await asyncio.to_thread(rabbit_server.ctl, "close_all_connections", "--vhost", rabbit_url.rpartition("/")[2], "test")
        await publisher.delete_queue(STREAM.name)
        await until_it_routes(publisher, Message(FANOUT, "", b"new", mandatory=True))
        await send(publisher, Message(FANOUT, "", b"newer"))
        assert await reader.bodies(2) == [b"new", b"newer"]


async def test_what_came_into_a_new_stream_before_its_reader_is_read(rabbit_url: str) -> None:
    async with connected(rabbit_url, RabbitSettings(delay_s=1.5)) as server, connected(rabbit_url) as publisher:
        reader, _ = await consume(server, STREAM, prefetch=5)
        await send(publisher, Message(FANOUT, "", b"old"))
        assert await reader.bodies(1) == [b"old"]
        await publisher.delete_queue(STREAM.name)
        async with connected(rabbit_url) as another:
            await consume(another, STREAM, prefetch=5)
            for number in range(3):
                await send(publisher, Message(FANOUT, "", b"%d" % number))
            assert await reader.bodies(3) == [b"0", b"1", b"2"]


async def test_a_stream_that_is_deleted_while_its_reader_comes_back_is_read_from_its_first_message(
    rabbit_url: str, rabbit_server: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(rabbit_url) as server, connected(rabbit_url) as publisher:
        reader, consumer = await consume(server, STREAM, prefetch=5)
        for number in range(3):
            await send(publisher, Message(FANOUT, "", b"%d" % number))
        assert await reader.bodies(3) == [b"0", b"1", b"2"]
        looked, deleted = type(consumer)._is_gone, asyncio.Event()  # type: ignore[attr-defined]  # both engines' consumers have it

        async def deleted_behind_the_first_look(self: object) -> bool:
            is_gone: bool = await looked(self)
            if not deleted.is_set():
                await publisher.delete_queue(STREAM.name)
                deleted.set()
            return is_gone

        monkeypatch.setattr(type(consumer), "_is_gone", deleted_behind_the_first_look)
        await asyncio.to_thread(rabbit_server.ctl, "close_all_connections", "--vhost", rabbit_url.rpartition("/")[2], "test")
        async with asyncio.timeout(WAIT_S):
            await deleted.wait()
        await until_it_routes(publisher, Message(FANOUT, "", b"new", mandatory=True))
        assert await reader.bodies(1) == [b"new"]


async def until_it_routes(transport: Transport, message: Message) -> None:
    """RabbitMQ counts no consumers of a stream, so the first message that finds its queue shows that it is there again."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await send(transport, message)
            except Unroutable:
                await SystemClock().sleep(0.02)


@pytest.mark.parametrize("method", ["gzip", "bz2"])
async def test_what_is_compressed_on_the_way_is_marked_and_comes_out_again(rabbit_url: str, method: Compression) -> None:
    body = b'{"a": "' + b"x" * 10_000 + b'"}'
    async with connected(rabbit_url, RabbitSettings(compression=method)) as sender, connected(rabbit_url) as receiver:
        inbox, _ = await consume(receiver, Queue("q"))
        await send(sender, to_queue("q", body))
        delivery = await inbox.next()
        assert len(delivery.body) < 200
        assert plain(delivery.body, delivery.headers) == body


async def test_a_lost_connection_is_made_again_after_its_delay(rabbit_url: str, rabbit_server: RabbitServer) -> None:
    vhost = rabbit_url.rpartition("/")[2]
    settings = RabbitSettings(delay_s=0.7)
    async with connected(rabbit_url, settings) as server, connected(rabbit_url) as publisher:
        inbox, _ = await consume(server, Queue("q"))
        began = asyncio.get_running_loop().time()
        await asyncio.to_thread(rabbit_server.ctl, "close_all_connections", "--vhost", vhost, "test")
        await send(publisher, to_queue("q", b"1"))
        assert await inbox.bodies(1) == [b"1"]
        assert asyncio.get_running_loop().time() - began >= 0.7


@pytest.mark.parametrize("login", ["PLAIN", "AMQPLAIN"])
async def test_a_name_and_a_password_log_in_by_either_mechanism(rabbit_url: str, login: str) -> None:
    async with connected(rabbit_url, RabbitSettings(login_method=login)) as transport:  # type: ignore[arg-type]  # both are
        await send(transport, to_queue("nobody", mandatory=False))
