"""What only RabbitMQ can show: lost connections, refusals, peers that declared otherwise. Over aio-pika and over our own engine."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest

from common.base.errors import Timeout
from common.host.clock import SystemClock
from common.testing.servers import RabbitServer, free_port
from common.transport.amqp import AmqpTransport
from common.transport.amqp_link import AmqpLink
from common.transport.errors import BusRefused
from common.transport.port import Binding, BusUnavailable, Closed, Exchange, Message, Queue, Transport, Unroutable
from common.transport.rabbit import RabbitTransport
from common.transport.rabbit_link import Link
from common.transport.rabbit_settings import RabbitSettings
from common.transport.rabbit_url import parse_rabbit_url
from common.transport.url import open_transport
from tests.conformance.transport.support import WAIT_S, consume, send, to_queue

pytestmark = pytest.mark.real("rabbitmq")

TOPIC = Exchange("nova", "topic")
FANOUT = Exchange("compute_fanout", "fanout", auto_delete=True)
COMPUTE = Queue("compute", (Binding(TOPIC, "compute"), Binding(FANOUT, "compute")))


@pytest.fixture(params=["rabbit", "amqp"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rabbit_url(rabbit_url: str, scheme: str) -> str:
    return f"{scheme}://{rabbit_url.removeprefix('rabbit://')}"


@asynccontextmanager
async def connected(url: str, *, name: str = "suite", heartbeat_s: int = 60) -> AsyncIterator[Transport]:
    transport = await open_transport(url, clock=SystemClock(), connection_name=name, rabbit=RabbitSettings(heartbeat_s=heartbeat_s))
    try:
        yield transport
    finally:
        await transport.close()


def amqp(url: str) -> str:
    """The URL as aio-pika reads it: a peer that is not ours."""
    return url.replace("rabbit://", "amqp://")


async def until_it_routes(transport: Transport, message: Message) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await send(transport, message)
            except Unroutable:
                await SystemClock().sleep(0.02)


# 1, 14: time limits and refusals -----------------------------------------------------------------------------------------


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """A port that takes connections and never says a word."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        server.close()


async def test_14_a_port_where_nobody_listens_is_named_without_the_password(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    port = free_port()
    with pytest.raises(BusUnavailable) as caught:
        await open_transport(f"{scheme}://nova:s3cret@127.0.0.1:{port}/prod", clock=SystemClock(), connection_name="suite")
    shown = str(caught.value)
    assert f"{scheme}://nova:***@127.0.0.1:{port}/prod" in shown
    assert f"127.0.0.1:{port}: Connect call failed" in shown
    assert "s3cret" not in shown + repr(caught.value.fields) + caplog.text


async def test_14_a_broker_that_says_nothing_is_given_up_in_time(scheme: str, silent_port: int) -> None:
    kind: type[Link | AmqpLink] = Link if scheme == "rabbit" else AmqpLink
    link = kind(parse_rabbit_url(f"rabbit://127.0.0.1:{silent_port}/"), clock=SystemClock(), connection_name="suite")
    with pytest.raises(BusUnavailable, match=f"127.0.0.1:{silent_port} gave no answer in 0.2 s|no answer within 0.2 s"):
        await link.open(timeout_s=0.2)
    await link.close()


async def test_14_the_second_host_serves_when_the_first_is_down(rabbit_url: str, scheme: str) -> None:
    login, _, place = rabbit_url.removeprefix(f"{scheme}://").partition("@")
    async with connected(f"{scheme}://{login}@127.0.0.1:{free_port()},{login}@{place}") as transport:
        inbox, _ = await consume(transport, COMPUTE)
        await send(transport, to_queue("compute", b"hello"))
        assert await inbox.bodies(1) == [b"hello"]


async def test_14_a_wrong_password_is_a_refusal_in_the_brokers_words(rabbit_url: str) -> None:
    with pytest.raises(BusRefused, match="user guest: ACCESS_REFUSED") as caught:
        await open_transport(rabbit_url.replace(":guest@", ":wr0ng@"), clock=SystemClock(), connection_name="suite")
    assert "wr0ng" not in str(caught.value)
    assert not caught.value.retryable


async def test_14_an_unknown_virtual_host_is_a_refusal_that_names_it(rabbit_url: str) -> None:
    with pytest.raises(BusRefused, match="virtual host nowhere"):
        await open_transport(f"{rabbit_url.rpartition('/')[0]}/nowhere", clock=SystemClock(), connection_name="suite")


async def test_14_a_resource_that_the_user_may_not_touch_is_a_refusal(rabbit_url: str, rabbit_server: RabbitServer) -> None:
    vhost = rabbit_url.rpartition("/")[2]
    await asyncio.to_thread(rabbit_server.ctl, "add_user", f"limited-{vhost}", "pw")
    await asyncio.to_thread(rabbit_server.ctl, "set_permissions", "-p", vhost, f"limited-{vhost}", "^mine$", "^mine$", "^mine$")
    async with connected(rabbit_url.replace("guest:guest", f"limited-{vhost}:pw")) as transport:
        with pytest.raises(BusRefused, match="ACCESS_REFUSED"):
            await consume(transport, Queue("yours"))
        with pytest.raises(BusRefused, match="ACCESS_REFUSED"):
            await send(transport, Message(Exchange("yours", "topic"), "a", b"{}"))
        await consume(transport, Queue("mine"))


# 6, 7, 10: lost connections ----------------------------------------------------------------------------------------------


async def test_10_consumers_resume_and_unsettled_deliveries_return_after_the_broker_cut_all_connections(
    rabbit_url: str, rabbit_server: RabbitServer
) -> None:
    async with connected(rabbit_url) as server, connected(rabbit_url) as publisher:
        inbox, _ = await consume(server, COMPUTE, prefetch=2)
        await send(publisher, *(to_queue("compute", b"%d" % number) for number in range(3)))
        held = [await inbox.next(), await inbox.next()]
        await asyncio.to_thread(rabbit_server.ctl, "close_all_connections", "--vhost", rabbit_url.rpartition("/")[2], "test")
        await send(publisher, Message(TOPIC, "compute", b"3", mandatory=True))
        for delivery in held:
            with pytest.raises(BusUnavailable):
                await delivery.ack()
        await until_it_routes(publisher, Message(FANOUT, "compute", b"4", mandatory=True))
        found = [await inbox.next(), await inbox.next()]
        assert [(delivery.body, delivery.redelivered) for delivery in found] == [(b"0", True), (b"1", True)]
        for delivery in found:
            await delivery.ack()
        assert await inbox.bodies(3) == [b"2", b"3", b"4"]


@pytest.mark.timeout(240)
async def test_10_everything_is_declared_again_after_the_broker_was_killed_and_started_anew(tmp_path: Path, scheme: str) -> None:
    async with (
        RabbitServer(tmp_path) as node,
        connected(node.url.replace("rabbit", scheme)) as server,
        connected(node.url.replace("rabbit", scheme)) as publisher,
    ):
        inbox, _ = await consume(server, COMPUTE)
        await send(publisher, Message(TOPIC, "compute", b"before"))
        assert await inbox.bodies(1) == [b"before"]
        await asyncio.to_thread(node.kill)
        with pytest.raises(BusUnavailable, match="Connect call failed"):
            await publisher.publish(to_queue("compute"), timeout_s=0.3)
        await asyncio.to_thread(node.start)
        await until_it_routes(publisher, Message(TOPIC, "compute", b"topic", mandatory=True))
        await until_it_routes(publisher, Message(FANOUT, "compute", b"fanout", mandatory=True))
        assert await inbox.bodies(2) == [b"topic", b"fanout"]
        assert await publisher.consumers("compute") == 1


# 1, 3: exchanges that delete themselves ----------------------------------------------------------------------------------


async def test_03_a_fanout_exchange_that_went_away_under_a_publisher_is_declared_again(rabbit_url: str) -> None:
    async with connected(rabbit_url) as server, connected(rabbit_url) as publisher:
        queue = Queue("compute_fanout_1", (Binding(FANOUT, "compute"),))
        inbox, consumer = await consume(server, queue)
        await send(publisher, Message(FANOUT, "compute", b"1"))
        assert await inbox.bodies(1) == [b"1"]
        await consumer.cancel()
        await server.delete_queue(queue.name)  # and so the exchange
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(send(publisher, Message(FANOUT, "compute", b"to nobody")))
        inbox, _ = await consume(server, queue)
        await send(publisher, Message(FANOUT, "compute", b"2"))
        assert await inbox.bodies(1) == [b"2"]


async def test_01_a_lost_fanout_exchange_costs_no_other_message_its_confirm(rabbit_url: str) -> None:
    async with connected(rabbit_url) as server, connected(rabbit_url) as publisher:
        inbox, _ = await consume(server, Queue("compute"), prefetch=100)
        fanout = Queue("compute_fanout_1", (Binding(FANOUT, "compute"),))
        for round_number in range(5):
            _, consumer = await consume(server, fanout)
            await send(publisher, Message(FANOUT, "compute", b"{}"))
            await consumer.cancel()
            await server.delete_queue(fanout.name)
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    group.create_task(send(publisher, to_queue("compute", b"%d" % (round_number * 20 + number))))
                group.create_task(send(publisher, Message(FANOUT, "compute", b"{}")))
        found = await inbox.bodies(100)
        await send(publisher, to_queue("compute", b"end"))
        assert await inbox.bodies(1) == [b"end"], "a message was sent twice"
        assert sorted(found, key=int) == [b"%d" % number for number in range(100)]


async def test_01_a_cancelled_publish_costs_no_other_message_its_confirm(rabbit_url: str) -> None:
    async with connected(rabbit_url) as server, connected(rabbit_url) as publisher:
        inbox, _ = await consume(server, Queue("compute"), prefetch=200)
        for rounds in range(40):
            async with asyncio.TaskGroup() as group:
                # Its exchange is new, so it is cancelled while it declares, or while it closes the channel for that.
                task = group.create_task(send(publisher, Message(Exchange(f"x{rounds}", "topic"), "a", b"")))
                for number in range(5):
                    group.create_task(send(publisher, to_queue("compute", b"%d" % (rounds * 5 + number))))
                for _ in range(rounds):
                    await asyncio.sleep(0)
                task.cancel()
        assert sorted(await inbox.bodies(200), key=int) == [b"%d" % number for number in range(200)]
        await send(publisher, to_queue("compute", b"end"))
        assert await inbox.bodies(1) == [b"end"], "a message was sent twice"


# 2.4 of oslo's rabbit driver: peers that declared with another durability --------------------------------------------------


@pytest.mark.parametrize("theirs", [True, False])
async def test_a_peer_with_another_durability_is_followed(rabbit_url: str, theirs: bool) -> None:
    peer = await aio_pika.connect(amqp(rabbit_url))
    async with peer, peer.channel() as channel:
        exchange = await channel.declare_exchange("nova", "topic", durable=theirs)
        queue = await channel.declare_queue("compute", durable=theirs)
        await queue.bind(exchange, "compute")
        ours = Exchange("nova", "topic", durable=not theirs)
        async with connected(rabbit_url) as transport:
            await send(transport, Message(ours, "compute", b"1", mandatory=True))
            inbox, _ = await consume(transport, Queue("compute", (Binding(ours, "compute"),), durable=not theirs))
            await send(transport, Message(ours, "compute", b"2", mandatory=True))
            assert await inbox.bodies(2) == [b"1", b"2"]


async def test_a_peer_with_other_arguments_is_a_refusal(rabbit_url: str) -> None:
    async with connected(rabbit_url) as transport:
        await consume(transport, Queue("q", arguments={"x-expires": 1000}))
        with pytest.raises(BusRefused, match="x-expires"):
            await consume(transport, Queue("q"))
        with pytest.raises(BusRefused, match="q"):
            await consume(transport, Queue("q", durable=True))


# What goes over the wire ---------------------------------------------------------------------------------------------------


async def test_the_properties_of_a_message_are_those_of_oslo_messaging(rabbit_url: str) -> None:
    peer = await aio_pika.connect(amqp(rabbit_url))
    async with peer, peer.channel() as channel:
        await channel.declare_queue("raw")
        inner = await channel.get_underlay_channel()
        async with connected(rabbit_url) as transport:
            await send(transport, to_queue("raw", b"{}", expiration_ms=60_001), to_queue("raw", b"{}"))
        for expiration in ("60001", None):
            message = await inner.basic_get("raw", no_ack=True)
            properties = message.header.properties
            assert properties.content_type == "application/json"
            assert properties.content_encoding == "utf-8"
            assert properties.delivery_mode == 2
            assert properties.priority == 0
            assert properties.headers == {}
            assert properties.expiration == expiration
            assert [properties.correlation_id, properties.reply_to, properties.timestamp, properties.user_id] == [None] * 4


async def test_the_broker_lists_the_connections_by_name(rabbit_url: str, rabbit_server: RabbitServer) -> None:
    async with connected(rabbit_url, name="nova-compute:cmp1") as transport:
        await consume(transport, COMPUTE)
        listed = await asyncio.to_thread(rabbit_server.ctl, "list_connections", "client_properties", "timeout")
        assert "nova-compute:cmp1:publish" in listed
        assert "nova-compute:cmp1:consume" in listed


async def test_an_exclusive_queue_ends_with_its_connection(rabbit_url: str) -> None:
    async with connected(rabbit_url) as other:
        async with connected(rabbit_url) as server:
            await consume(server, Queue("mine", exclusive=True))
            with pytest.raises(BusRefused, match="RESOURCE_LOCKED"):
                await consume(other, Queue("mine", exclusive=True))
            await server.delete_queue("mine")
        with pytest.raises(Unroutable):
            await send(other, to_queue("mine"))


# 12: close ---------------------------------------------------------------------------------------------------------------


async def test_12_close_ends_a_consumer_that_is_about_to_begin_anew(rabbit_url: str, caplog: pytest.LogCaptureFixture) -> None:
    for rounds in range(40):
        async with asyncio.timeout(WAIT_S), connected(rabbit_url) as transport:
            await consume(transport, Queue("mine", exclusive=True))
            await transport.delete_queue("mine")
            for _ in range(rounds):
                await asyncio.sleep(0)
    assert "CHANNEL_ERROR" not in caplog.text


async def test_12_close_ends_publishers_that_wait_for_the_broker(rabbit_url: str, relay: "Relay") -> None:
    async with connected(relay.before(rabbit_url)) as transport:
        await consume(transport, COMPUTE)
        relay.cut()
        waiting = asyncio.create_task(send(transport, to_queue("compute")))
        async with asyncio.timeout(WAIT_S / 2):
            await asyncio.sleep(0)
            await transport.close()
            with pytest.raises(Closed):
                await waiting


async def test_01_a_publish_without_a_confirm_in_time_says_that_the_outcome_is_unknown(rabbit_url: str, relay: "Relay") -> None:
    async with connected(relay.before(rabbit_url)) as transport:
        await send(transport, to_queue("nobody", mandatory=False))
        relay.stop_answers()
        with pytest.raises(Timeout, match="confirm of a message to queue nobody"):
            await transport.publish(to_queue("nobody", mandatory=False), timeout_s=0.1)


async def test_01_a_message_whose_confirm_was_lost_is_sent_again(rabbit_url: str, relay: "Relay") -> None:
    async with connected(rabbit_url) as server, connected(relay.before(rabbit_url)) as publisher:
        inbox, _ = await consume(server, COMPUTE)
        await send(publisher, to_queue("compute", b"1"))
        relay.stop_answers()
        waiting = asyncio.create_task(send(publisher, to_queue("compute", b"2")))
        assert await inbox.bodies(2) == [b"1", b"2"]
        relay.cut()
        relay.resume()
        await waiting
        assert await inbox.bodies(1) == [b"2"]


async def test_14_a_bus_that_was_away_all_the_time_says_that_it_has_not_got_the_message(rabbit_url: str, relay: "Relay") -> None:
    async with connected(relay.before(rabbit_url)) as publisher:
        await send(publisher, to_queue("nobody", mandatory=False))
        relay.cut()
        assert isinstance(publisher, RabbitTransport | AmqpTransport)
        async with asyncio.timeout(WAIT_S):
            while publisher._outgoing.is_up:
                await SystemClock().sleep(0.01)
        with pytest.raises(BusUnavailable) as caught:
            await publisher.publish(to_queue("nobody", mandatory=False), timeout_s=0.1)
    assert caught.value.fields["is_sent"] is False


async def test_14_a_bus_that_was_lost_with_an_unconfirmed_message_may_have_it(rabbit_url: str, relay: "Relay") -> None:
    async with connected(rabbit_url) as server, connected(relay.before(rabbit_url)) as publisher:
        inbox, _ = await consume(server, COMPUTE)
        await send(publisher, to_queue("compute", b"1"))
        relay.stop_answers()
        waiting = asyncio.create_task(publisher.publish(to_queue("compute", b"2"), timeout_s=2))
        assert await inbox.bodies(2) == [b"1", b"2"]
        relay.cut()
        with pytest.raises(BusUnavailable) as caught:
            await waiting
    assert caught.value.fields["is_sent"] is True


class Relay:
    """A TCP relay before the broker, which loses what the test wants."""

    def __init__(self) -> None:
        self.port = 0
        self._target = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_open = True
        self._answers = asyncio.Event()
        self._answers.set()

    def before(self, url: str) -> str:
        host, _, rest = url.rpartition("127.0.0.1:")
        port, _, vhost = rest.partition("/")
        self._target = int(port)
        return f"{host}127.0.0.1:{self.port}/{vhost}"

    def cut(self) -> None:
        """End all connections and take no more."""
        self._is_open = False
        for writer in self._writers:
            writer.transport.abort()

    def stop_answers(self) -> None:
        self._answers.clear()

    def resume(self) -> None:
        self._is_open = True
        self._answers.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if not self._is_open:
                return
            broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(broker_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, broker_writer, self._answers, is_answer=False))
                group.create_task(self._pump(broker_reader, writer, self._answers, is_answer=True))
        finally:
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event, *, is_answer: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                if is_answer:
                    await gate.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    relay = Relay()
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    async with server:
        yield relay
        relay.resume()
        relay.cut()
        server.close()
