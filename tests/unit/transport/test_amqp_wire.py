"""Where the engine meets asyncio: one write for a turn of the loop, room for publishers, and ends that nobody can hold up."""

import asyncio
from typing import Any

import pytest

from common.amqp.connection import Connection
from common.amqp.events import ConnectionClosed
from common.amqp.login import Login
from common.transport.amqp_channel import AmqpChannel, Lost, NoRoute, NotTaken, Refused
from common.transport.amqp_wire import ALONE_S, Wire
from common.transport.port import Message
from tests.property.amqp.broker import START, TUNE, content, deliver, method, sent


class Socket(asyncio.Transport):
    """What was written, and how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.ended = ""

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"


class Outcome:
    """Implements `amqp_channel.Sent`."""

    def __init__(self) -> None:
        self.said: list[Exception | None] = []

    def end(self, error: Exception | None) -> None:
        self.said.append(error)


async def connected(*, heartbeat: int = 60) -> tuple[Wire, Socket]:
    loop = asyncio.get_running_loop()
    core = Connection(Login("guest", "guest"), virtual_host="/", now_s=loop.time(), heartbeat_s=heartbeat)
    wire, socket = Wire(core, loop=loop), Socket()
    wire.connection_made(socket)
    wire.data_received(method(0, "connection.start", **START))
    wire.data_received(method(0, "connection.tune", **TUNE))
    wire.data_received(method(0, "connection.open-ok"))
    await wire.opened
    await asyncio.sleep(0)
    socket.writes.clear()
    return wire, socket


async def with_channel(wire: Wire, socket: Socket) -> AmqpChannel:
    channel = wire.open_channel()
    asking = asyncio.create_task(channel.ask("confirm.select"))
    await asyncio.sleep(0)
    wire.data_received(method(channel.core.number, "channel.open-ok") + method(channel.core.number, "confirm.select-ok"))
    await asking
    await asyncio.sleep(0)
    socket.writes.clear()
    return channel


def publish(channel: AmqpChannel, body: bytes = b"x") -> Outcome:
    outcome = Outcome()
    channel.publish(Message(None, "q", body, mandatory=True), outcome)
    return outcome


async def test_what_comes_up_in_one_turn_leaves_in_one_write_with_its_acks_together() -> None:
    wire, socket = await connected()
    channel = await with_channel(wire, socket)
    tags: list[int] = []
    channel.on_delivery = lambda event: tags.append(event.delivery_tag)
    wire.data_received(b"".join(deliver(1, tag, b"b") for tag in (1, 2, 3)))
    for _ in range(5):
        publish(channel)
    for tag in tags:
        channel.ack(tag)
    assert socket.writes == []
    await asyncio.sleep(0)
    assert len(socket.writes) == 1
    assert socket.writes[0].count(b"\x00\x3c\x00\x28") == 5
    assert socket.writes[0].count(b"\x00\x3c\x00\x50") == 1, "one ack for three deliveries"


async def test_a_publish_that_comes_alone_like_the_one_before_it_waits_for_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)
    wire, socket = await connected()
    channel = await with_channel(wire, socket)

    async def writes_of(publishes: int, *, after_s: float) -> list[int]:
        """How many publishes leave at once, and in each write afterwards."""
        nonlocal now_s
        now_s += after_s
        for _ in range(publishes):
            publish(channel)
        at_once = len(socket.writes)
        await asyncio.sleep(0)
        sizes = [data.count(b"\x00\x3c\x00\x28") for data in socket.writes]
        socket.writes.clear()
        return [at_once, *sizes]

    rarely, often = 2 * ALONE_S, ALONE_S / 2
    assert await writes_of(1, after_s=rarely) == [0, 1]
    assert await writes_of(1, after_s=rarely) == [1, 1]
    assert await writes_of(1, after_s=rarely) == [1, 1]
    assert await writes_of(4, after_s=rarely) == [1, 1, 3], "nobody knew that more would come"
    assert await writes_of(4, after_s=rarely) == [0, 4]
    assert await writes_of(1, after_s=rarely) == [0, 1]
    assert await writes_of(2, after_s=rarely) == [1, 1, 1]
    assert await writes_of(2, after_s=rarely) == [0, 2]
    assert await writes_of(1, after_s=rarely) == [0, 1]
    assert await writes_of(1, after_s=often) == [0, 1], "one of many"
    assert await writes_of(1, after_s=rarely) == [0, 1]
    assert await writes_of(1, after_s=rarely) == [1, 1]


async def test_much_does_not_wait_for_the_loop_to_turn() -> None:
    wire, socket = await connected()
    channel = await with_channel(wire, socket)
    publish(channel, b"x" * 300_000)
    assert len(socket.writes) == 1


@pytest.mark.parametrize("why", ["a full socket", "a blocked broker"])
async def test_publishers_wait_for_room_and_are_let_in_together(why: str) -> None:
    wire, _ = await connected()
    stop, go = {
        "a full socket": (wire.pause_writing, wire.resume_writing),
        "a blocked broker": (
            lambda: wire.data_received(method(0, "connection.blocked", reason="memory")),
            lambda: wire.data_received(method(0, "connection.unblocked")),
        ),
    }[why]
    stop()
    has_room: bool = wire.has_room
    assert not has_room
    waiting = [asyncio.create_task(wire.room()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert not waiting[1].done()
    go()
    await asyncio.gather(*waiting[1:])


async def test_a_full_socket_gets_nothing_more_until_it_has_room() -> None:
    wire, socket = await connected()
    channel = await with_channel(wire, socket)
    wire.pause_writing()
    publish(channel)
    await asyncio.sleep(0)
    assert socket.writes == []
    wire.resume_writing()
    assert len(socket.writes) == 1


async def test_whoever_waits_for_room_hears_of_the_end() -> None:
    wire, _ = await connected()
    wire.pause_writing()
    waiting = asyncio.create_task(wire.room())
    await asyncio.sleep(0)
    wire.connection_lost(None)
    await waiting
    assert wire.is_closed


async def test_confirms_nacks_returns_and_losses_reach_who_published() -> None:
    wire, socket = await connected()
    channel = await with_channel(wire, socket)
    confirmed, nacked, returned, lost = (publish(channel) for _ in range(4))
    wire.data_received(method(1, "basic.ack", delivery_tag=1) + method(1, "basic.nack", delivery_tag=2))
    head = method(1, "basic.return", reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="q")
    wire.data_received(head + content(1, b"x", properties=b"\x00\x80\x013"))
    assert confirmed.said == [None]
    assert isinstance(nacked.said[0], NotTaken)
    assert isinstance(returned.said[0], NoRoute)
    wire.connection_lost(ConnectionResetError())
    assert isinstance(lost.said[0], Lost)
    assert [len(each.said) for each in (confirmed, nacked, returned, lost)] == [1, 1, 1, 1]
    with pytest.raises(Lost):
        publish(channel)


async def test_a_refusal_is_told_to_who_asked_and_a_loss_to_all_others() -> None:
    wire, socket = await connected()
    channel = await with_channel(wire, socket)
    asked = [asyncio.create_task(channel.ask("queue.declare", queue="q")) for _ in range(2)]
    published = publish(channel)
    await asyncio.sleep(0)
    wire.data_received(method(1, "channel.close", reply_code=406, reply_text="PRECONDITION_FAILED", class_id=50, method_id=10))
    with pytest.raises(Refused, match="PRECONDITION_FAILED") as caught:
        await asked[0]
    assert caught.value.code == 406
    with pytest.raises(Lost):
        await asked[1]
    assert isinstance(published.said[0], Lost)
    with pytest.raises(Lost):
        await channel.ask("basic.qos")


async def test_a_silent_broker_is_given_up_and_its_socket_is_not_waited_for() -> None:
    wire, socket = await connected(heartbeat=1)
    loop = asyncio.get_running_loop()
    wire.core._heard_s = loop.time() - 5
    wire._watch()
    assert wire.is_closed
    assert socket.ended == "aborted"
    closed: ConnectionClosed = wire.closed.result()
    assert "silent" in closed.reply_text


async def test_our_close_says_so_and_waits_for_the_answer_which_abort_does_not() -> None:
    wire, socket = await connected()
    wire.close()
    await asyncio.sleep(0)
    assert len(socket.writes) == 1
    assert not wire.is_closed
    wire.data_received(method(0, "connection.close-ok"))
    assert (wire.is_closed, socket.ended) == (True, "closed")
    other, silent = await connected()
    other.close()
    other.abort()
    assert (other.is_closed, silent.ended) == (True, "aborted")


async def test_an_error_of_the_broker_is_answered_with_its_reason() -> None:
    wire, socket = await connected()
    wire.data_received(method(5, "basic.qos-ok"))
    assert wire.is_closed
    assert b"which is not open" in socket.writes[-1]
    assert socket.ended == "closed"
    assert sent(wire.core) == []
