"""The parts of the kombu transport, each by itself."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kombu.connection import Connection

from common.host.clock import SystemClock
from common.transport.kombu import KombuTransport
from common.transport.kombu_consume import KombuConsumer
from common.transport.kombu_folder import FOLDER, FolderStore, FolderTransport
from common.transport.kombu_message import Received
from common.transport.kombu_pull import Puller, Subscriber
from common.transport.kombu_url import connector
from common.transport.port import Delivery, Message, Queue


class StoppedClock(SystemClock):
    """No sweep after the first, because no time passes."""

    def monotonic(self) -> float:
        return 0.0


class ClosedOwner:
    """A transport that was closed while deliveries were on their way from the thread."""

    url = "kombu+test://"
    is_closed = True

    def __init__(self, puller: Puller) -> None:
        self.puller = puller
        self.acks: set[asyncio.Task[None]] = set()

    async def in_consuming_thread(self, job: Callable[[Any], None], *, timeout_s: float = 1) -> None:
        raise AssertionError("nothing is to be done there")


def folder_connection(folder: Path) -> Any:
    connect: Any = Connection
    return connect("filesystem://", transport=FolderTransport, transport_options={FOLDER: str(folder)})


def put(channel: Any, queue: str, body: bytes) -> None:
    channel.basic_publish(channel.prepare_message(body), exchange="", routing_key=queue)


async def test_a_delivery_on_its_way_when_the_transport_is_closed_is_not_handed_out() -> None:
    puller = Puller(SystemClock())
    taken: list[Delivery] = []
    consumer = KombuConsumer(ClosedOwner(puller), Queue("q"), prefetch=1, on_delivery=taken.append)
    await asyncio.to_thread(consumer.subscriber.hand, 0, Received(b"late", None, {}, redelivered=False))
    await asyncio.sleep(0)
    assert taken == []
    puller.close()


async def test_a_queue_deleted_under_its_consumer_is_back_before_the_next_sweep(tmp_path: Path) -> None:
    url = f"kombu+filesystem://{tmp_path}/bus"
    transport = await KombuTransport.connect(url, clock=StoppedClock(), connection_name="test")
    taken: asyncio.Queue[Delivery] = asyncio.Queue()
    await transport.consume(Queue("q"), prefetch=1, on_delivery=taken.put_nowait)
    await transport.publish(Message(None, "q", b"after the first sweep", mandatory=True), timeout_s=5)
    await (await taken.get()).ack()
    await transport.delete_queue("q")
    async with asyncio.timeout(10):
        while not (tmp_path / "bus" / "messages" / "q" / ".queue").exists():
            await SystemClock().sleep(0.01)
        await transport.publish(Message(None, "q", b"back", mandatory=True), timeout_s=5)
        assert (await taken.get()).body == b"back"
    await transport.close()


@pytest.mark.timeout(10)
def test_a_job_that_came_before_the_wait_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderStore, "poll_s", (60.0, 60.0))
    connection = folder_connection(tmp_path)
    puller = Puller(SystemClock())
    puller.wake()
    puller.pull(connection.channel())
    puller.close()
    connection.close()


def test_a_channel_that_is_closed_gives_back_what_it_held(tmp_path: Path) -> None:
    first, second = folder_connection(tmp_path), folder_connection(tmp_path)
    channel = first.channel()
    channel.queue_declare("q")
    put(channel, "q", b"held")
    assert channel.basic_get("q").body == b"held"
    first.close()
    again = second.channel().basic_get("q")
    assert again.body == b"held"
    assert again.properties["redelivered"]
    again.ack()
    second.close()
    assert [path.name for path in (tmp_path / "messages" / "q").iterdir()] == [".queue"]


def test_a_sweep_of_a_puller_gives_back_what_the_dead_held_at_its_first_pull(tmp_path: Path) -> None:
    connection = folder_connection(tmp_path)
    channel = connection.channel()
    channel.queue_declare("q")
    (tmp_path / "control" / "members" / "1.dead").touch()
    put(channel, "q", b"x")
    (waiting,) = [path for path in (tmp_path / "messages" / "q").iterdir() if path.name.endswith(".msg")]
    waiting.rename(waiting.with_name(f"{waiting.name}.1.dead"))
    puller = Puller(SystemClock())
    puller.wake()
    puller.pull(channel)
    assert channel.basic_get("q").body == b"x"
    puller.close()
    connection.close()


@pytest.mark.parametrize("kind", ["filesystem", "sqla+sqlite"])
def test_a_consumer_hears_of_a_queue_that_goes_between_the_look_and_the_declaration(kind: str, tmp_path: Path) -> None:
    connect, _ = connector(f"kombu+{kind}://{'/' if 'sql' in kind else ''}{tmp_path}/bus")
    connection = connect()
    channel = connection.channel()
    heard: list[str] = []
    puller = Puller(SystemClock())
    puller.subscribe(channel, Subscriber(Queue("q"), 1, lambda *_: None, lambda: heard.append("made anew")))
    has = channel.store.has

    def has_and_goes(queue: str) -> bool:
        found: bool = has(queue)
        channel.store.delete(queue)
        return found

    channel.store.has = has_and_goes
    puller.wake()
    puller.pull(channel)
    assert heard
    puller.end(channel)
    puller.close()
    connection.close()
