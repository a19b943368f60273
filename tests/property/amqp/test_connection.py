"""A connection and its channels, from the broker's bytes to events and from commands to bytes."""

from typing import Any

import pytest

from common.amqp.channel import Busy
from common.amqp.connection import Connection
from common.amqp.content import Properties
from common.amqp.events import (
    Blocked,
    ChannelClosed,
    Confirmed,
    ConnectionClosed,
    ConsumerCancelled,
    Delivered,
    FlowChanged,
    Opened,
    Replied,
    Returned,
    Unblocked,
)
from common.amqp.frames import split
from common.amqp.limits import Limits
from common.amqp.login import Login
from common.amqp.methods import Method
from common.amqp.spec import BODY_FRAME, HEADER_FRAME, METHOD_FRAME, PROTOCOL_HEADER
from common.amqp.states import ChannelState, ConnectionState
from tests.property.amqp.broker import LOGIN, START, TUNE, content, deliver, frame, method, opened, sent, with_channel

CLOSE: dict[str, Any] = {
    "reply_code": 404,
    "reply_text": "NOT_FOUND - no exchange 'x' in vhost '/'",
    "class_id": 60,
    "method_id": 40,
}


def new(**arguments: Any) -> Connection:
    return Connection(**{"login": LOGIN, "virtual_host": "lite", "now_s": 0.0, **arguments})


# -- opening ------------------------------------------------------------------------------------------------------------


def test_it_begins_with_the_protocol_s_header_and_opens_as_both_agree() -> None:
    connection = new(heartbeat_s=60, limits=Limits(frame_bytes=65_536, channels=10), properties={"product": "p"})
    assert connection.data_to_send(0.0) == PROTOCOL_HEADER
    assert connection.receive_data(method(0, "connection.start", **START, server_properties={"product": "RabbitMQ"}), 0.0) == []
    ((_, start_ok),) = sent(connection)
    assert start_ok.name == "connection.start-ok"
    assert start_ok["mechanism"] == "AMQPLAIN"
    assert start_ok["client_properties"]["product"] == "p"
    assert start_ok["client_properties"]["capabilities"]["connection.blocked"] is True
    connection.receive_data(method(0, "connection.tune", channel_max=2047, frame_max=131_072, heartbeat=10), 0.0)
    assert sent(connection) == [
        (0, Method("connection.tune-ok", {"channel_max": 10, "frame_max": 65_536, "heartbeat": 10})),
        (0, Method("connection.open", {"virtual_host": "lite", "reserved_1": "", "reserved_2": False})),
    ]
    assert connection.receive_data(method(0, "connection.open-ok"), 0.0) == [Opened({"product": "RabbitMQ"}, 10)]
    assert connection.state is ConnectionState.OPEN


@pytest.mark.parametrize(
    ("mechanism", "offered", "chosen", "response"),
    [
        ("PLAIN", b"AMQPLAIN PLAIN", "PLAIN", b"\0guest\0s3cret"),
        ("AMQPLAIN", b"PLAIN", "PLAIN", b"\0guest\0s3cret"),
        ("AMQPLAIN", b"PLAIN AMQPLAIN", "AMQPLAIN", b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x06s3cret"),
        ("EXTERNAL", b"PLAIN EXTERNAL", "EXTERNAL", b""),
    ],
)
def test_it_logs_in_by_the_mechanism_that_both_know(mechanism: Any, offered: bytes, chosen: str, response: bytes) -> None:
    connection = new(login=Login("guest", "s3cret", mechanism))
    connection.receive_data(method(0, "connection.start", **{**START, "mechanisms": offered}), 0.0)
    ((_, start_ok),) = sent(connection)
    assert (start_ok["mechanism"], start_ok["response"]) == (chosen, response)


def test_a_broker_without_our_mechanism_is_given_up_without_a_word_of_the_password() -> None:
    connection = new(login=Login("guest", "s3cret", "EXTERNAL"))
    (closed,) = connection.receive_data(method(0, "connection.start", **START | {"mechanisms": b"PLAIN"}), 0.0)
    assert closed == ConnectionClosed(403, "it logs in by PLAIN, not by EXTERNAL", is_by_peer=False)
    assert "s3cret" not in repr(connection._login)


@pytest.mark.parametrize("step", ["connection.start", "connection.tune"])
def test_a_refusal_while_it_opens_is_told_with_its_words(step: str) -> None:
    connection = new()
    connection.receive_data(method(0, "connection.start", **START), 0.0)
    if step == "connection.tune":
        connection.receive_data(method(0, "connection.tune", **TUNE), 0.0)
    (closed,) = connection.receive_data(method(0, "connection.close", **CLOSE), 0.0)
    assert closed == ConnectionClosed(404, CLOSE["reply_text"], is_by_peer=True, method="basic.publish")
    assert sent(connection)[-1] == (0, Method("connection.close-ok"))


@pytest.mark.parametrize(
    "data",
    [
        b"AMQP\x00\x01\x00\x00",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        method(0, "connection.start", **START | {"version_major": 8, "version_minor": 0}),
        method(0, "connection.tune", **TUNE),
        method(0, "connection.secure"),
        method(1, "channel.open-ok"),
    ],
)
def test_a_peer_that_does_not_begin_as_a_broker_does_is_given_up(data: bytes) -> None:
    connection = new()
    (closed,) = connection.receive_data(data, 0.0)
    assert isinstance(closed, ConnectionClosed)
    assert not closed.is_by_peer
    assert connection.state is ConnectionState.CLOSED
    assert connection.receive_data(method(0, "connection.start", **START), 0.0) == []


# -- heartbeats ---------------------------------------------------------------------------------------------------------


def test_heartbeats_go_out_when_nothing_else_does_and_a_silent_peer_is_given_up() -> None:
    connection = opened(heartbeat=10)
    assert connection.next_tick_s == 5.0
    assert connection.tick(4.9) == []
    assert connection.data_to_send(4.9) == b""
    assert connection.tick(5.0) == []
    assert connection.data_to_send(5.0) == b"\x08\0\0\0\0\0\0\xce"
    connection.receive_data(b"\x08\0\0\0\0\0\0\xce", 12.0)
    assert connection.tick(31.9) == []
    (closed,) = connection.tick(32.0)
    assert closed == ConnectionClosed(320, "the peer was silent for 20.0 s", is_by_peer=False)


@pytest.mark.parametrize(("ours", "theirs", "agreed"), [(0, 60, 0), (10, 60, 10), (60, 10, 10), (60, 0, 60)])
def test_the_shorter_heartbeat_counts_and_ours_may_be_off(ours: int, theirs: int, agreed: int) -> None:
    connection = _opened_with(ours, theirs)
    assert connection.heartbeat_s == agreed
    assert (connection.next_tick_s is None) is (agreed == 0)


def _opened_with(ours: int, theirs: int) -> Connection:
    connection = new(heartbeat_s=ours)
    connection.receive_data(method(0, "connection.start", **START), 0.0)
    connection.receive_data(method(0, "connection.tune", **TUNE | {"heartbeat": theirs}), 0.0)
    connection.receive_data(method(0, "connection.open-ok"), 0.0)
    return connection


# -- closing ------------------------------------------------------------------------------------------------------------


def test_our_close_waits_for_the_answer_and_drops_what_comes_before_it() -> None:
    connection = opened()
    channel = with_channel(connection)
    (event,) = connection.receive_data(deliver(1, 1, b"x"), 0.0)
    assert isinstance(event, Delivered)
    channel.ack(1)
    connection.close(200, "bye")
    connection.close()
    assert [found.name for _, found in sent(connection)] == ["basic.ack", "connection.close"]
    assert connection.receive_data(deliver(1, 2, b"y") + method(9, "basic.qos-ok"), 0.0) == []
    with pytest.raises(ValueError, match="closing"):
        channel.request("basic.qos")
    ended, closed = connection.receive_data(method(0, "connection.close-ok"), 0.0)
    assert isinstance(ended, ChannelClosed)
    assert closed == ConnectionClosed(200, "", is_by_peer=False)


def test_both_may_close_at_once() -> None:
    connection = opened()
    connection.close()
    (closed,) = connection.receive_data(method(0, "connection.close", **CLOSE), 0.0)
    assert closed == ConnectionClosed(200, "", is_by_peer=False)
    assert connection.data_to_send(0.0) == method(0, "connection.close-ok")


def test_the_end_of_the_bytes_is_the_end_of_everything_that_waits() -> None:
    connection = opened()
    channel = with_channel(connection, confirms=True)
    channel.publish(b"", exchange="", routing_key="q", token="p")
    channel.request("queue.declare", "r", queue="q")
    ended, closed = connection.receive_eof()
    assert isinstance(ended, ChannelClosed)
    assert (ended.requests, ended.unconfirmed) == (("r",), ("p",))
    assert isinstance(closed, ConnectionClosed)
    assert connection.receive_eof() == []


def test_blocked_and_unblocked_are_told() -> None:
    connection = opened()
    assert connection.receive_data(method(0, "connection.blocked", reason="low on memory"), 0.0) == [Blocked("low on memory")]
    assert connection.is_blocked
    assert connection.receive_data(method(0, "connection.unblocked"), 0.0) == [Unblocked()]
    assert not connection.is_blocked


def test_a_fresh_secret_is_answered() -> None:
    connection = opened()
    connection.update_secret(b"new", "it expires", "t")
    assert sent(connection) == [(0, Method("connection.update-secret", {"new_secret": b"new", "reason": "it expires"}))]
    assert connection.receive_data(method(0, "connection.update-secret-ok"), 0.0) == [
        Replied(0, "t", Method("connection.update-secret-ok"))
    ]


# -- channels -----------------------------------------------------------------------------------------------------------


def test_answers_come_to_requests_in_their_order() -> None:
    connection = opened()
    channel = with_channel(connection)
    channel.request("queue.declare", "a", queue="q", arguments={"x-expires": 1000})
    channel.request("basic.get", "b", queue="q")
    channel.request("basic.get", "c", queue="q")
    answer = {"queue": "q", "message_count": 1, "consumer_count": 0}
    got = {"delivery_tag": 1, "redelivered": True, "exchange": "", "routing_key": "q", "message_count": 0}
    events = connection.receive_data(
        method(1, "queue.declare-ok", **answer)
        + method(1, "basic.get-ok", **got)
        + content(1, b"body")
        + method(1, "basic.get-empty"),
        0.0,
    )
    assert [(event.token, event.method.name) for event in events if isinstance(event, Replied)] == [
        ("a", "queue.declare-ok"),
        ("b", "basic.get-ok"),
        ("c", "basic.get-empty"),
    ]
    assert isinstance(events[1], Replied)
    assert events[1].content is not None
    assert events[1].content.body == b"body"
    channel.ack(1)
    assert sent(connection)[-1] == (1, Method("basic.ack", {"delivery_tag": 1, "multiple": False}))


def test_an_answer_to_nothing_is_an_error_of_the_peer() -> None:
    connection = opened()
    with_channel(connection).request("basic.qos", prefetch_count=1)
    *_, closed = connection.receive_data(method(1, "queue.bind-ok"), 0.0)
    assert closed == ConnectionClosed(504, "queue.bind-ok on channel 1, where basic.qos-ok was due", is_by_peer=False)
    assert sent(connection)[-1][1].name == "connection.close"


def test_a_channel_that_the_broker_closes_ends_its_own_requests_only() -> None:
    connection = opened()
    first, second = with_channel(connection, confirms=True), with_channel(connection)
    first.publish(b"", exchange="x", routing_key="k", token=1)
    first.request("queue.declare", 2, queue="q")
    (closed,) = connection.receive_data(method(1, "channel.close", **CLOSE), 0.0)
    assert closed == ChannelClosed(1, 404, CLOSE["reply_text"], True, "basic.publish", (2,), (1,))
    assert sent(connection)[-1] == (1, Method("channel.close-ok"))
    with pytest.raises(ValueError, match="closed"):
        first.publish(b"", exchange="x", routing_key="k")
    assert second.state is ChannelState.OPEN
    assert connection.open_channel().number == 1, "its number is free again"


def test_our_close_of_a_channel_drops_what_comes_before_the_answer() -> None:
    connection = opened()
    channel = with_channel(connection)
    channel.close()
    channel.close()
    assert [found.name for _, found in sent(connection)] == ["channel.close"]
    assert connection.receive_data(deliver(1, 1, b"late") + method(1, "channel.close", **CLOSE), 0.0) == []
    assert [found.name for _, found in sent(connection)] == ["channel.close-ok"]
    (closed,) = connection.receive_data(method(1, "channel.close-ok"), 0.0)
    assert isinstance(closed, ChannelClosed)
    assert not closed.is_by_peer


def test_there_are_no_more_channels_and_requests_than_were_agreed() -> None:
    connection = opened(limits=Limits(channels=2, requests=2))
    channel, _ = with_channel(connection), with_channel(connection)
    with pytest.raises(Busy, match="2 channels"):
        connection.open_channel()
    channel.request("basic.qos")
    channel.request("basic.qos")
    with pytest.raises(Busy, match="2 requests"):
        channel.request("basic.qos")


@pytest.mark.parametrize(
    ("name", "arguments"), [("basic.ack", {}), ("queue.declare", {"nowait": True}), ("queue.declare", {"que": "q"})]
)
def test_what_is_no_request_is_an_error_of_the_caller(name: str, arguments: dict[str, Any]) -> None:
    channel = with_channel(opened())
    with pytest.raises(ValueError, match=name):
        channel.request(name, **arguments)


def test_what_is_not_answered_is_told_and_nothing_else() -> None:
    connection = opened()
    channel = with_channel(connection)
    channel.tell("queue.declare", queue="q", nowait=True)
    channel.tell("basic.recover-async", requeue=True)
    assert [found.name for _, found in sent(connection)] == ["queue.declare", "basic.recover-async"]
    for name in ("queue.declare", "basic.publish"):
        with pytest.raises(ValueError, match=name):
            channel.tell(name)


def test_the_broker_s_flow_and_cancel_are_answered_and_told() -> None:
    connection = opened()
    channel = with_channel(connection)
    data = method(1, "channel.flow", active=False) + method(1, "basic.cancel", consumer_tag="c", nowait=False)
    assert connection.receive_data(data, 0.0) == [FlowChanged(1, False), ConsumerCancelled(1, "c")]
    assert not channel.may_publish
    assert sent(connection) == [
        (1, Method("channel.flow-ok", {"active": False})),
        (1, Method("basic.cancel-ok", {"consumer_tag": "c"})),
    ]


# -- messages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 20_000])
def test_a_body_is_cut_into_frames_that_both_take(size: int) -> None:
    connection = opened(frame_max=4096)
    body = bytes(number % 251 for number in range(size))
    with_channel(connection).publish(body, exchange="x", routing_key="k", properties=Properties(content_type="t"))
    frames = list(split(connection.data_to_send(0.0), 4096))
    assert [kind for kind, _, _ in frames[:2]] == [METHOD_FRAME, HEADER_FRAME]
    assert all(kind == BODY_FRAME for kind, _, _ in frames[2:])
    assert b"".join(payload for _, _, payload in frames[2:]) == body
    assert len(frames) == 2 + -(-size // 4088)


def test_confirms_come_one_by_one_or_many_at_a_time_and_say_whose_they_are() -> None:
    connection = opened()
    channel = with_channel(connection, confirms=True)
    for token in "abcdef":
        channel.publish(b"", exchange="", routing_key="q", token=token)
    events = connection.receive_data(
        method(1, "basic.ack", delivery_tag=2)
        + method(1, "basic.ack", delivery_tag=3, multiple=True)
        + method(1, "basic.ack", delivery_tag=2)
        + method(1, "basic.nack", delivery_tag=4)
        + method(1, "basic.nack", delivery_tag=0, multiple=True),
        0.0,
    )
    assert events == [
        Confirmed(1, ["b"], True),
        Confirmed(1, ["a", "c"], True),
        Confirmed(1, ["d"], False),
        Confirmed(1, ["e", "f"], False),
    ]


def test_many_confirms_at_once_are_followed_by_many_more() -> None:
    connection = opened()
    channel = with_channel(connection, confirms=True)
    for first in range(1, 10, 3):
        for number in range(first, first + 3):
            channel.publish(b"", exchange="", routing_key="q", token=number)
        data = method(1, "basic.ack", delivery_tag=first + 1, multiple=True) + method(1, "basic.ack", delivery_tag=0, multiple=True)
        assert connection.receive_data(data, 0.0) == [Confirmed(1, [first, first + 1], True), Confirmed(1, [first + 2], True)]


def test_a_confirm_for_what_was_never_published_is_an_error_of_the_peer() -> None:
    connection = opened()
    with_channel(connection, confirms=True).publish(b"", exchange="", routing_key="q")
    *_, closed = connection.receive_data(method(1, "basic.ack", delivery_tag=2), 0.0)
    assert isinstance(closed, ConnectionClosed)
    assert closed.reply_code == 503


def test_a_returned_message_is_told_once_and_with_its_token() -> None:
    connection = opened()
    channel = with_channel(connection, confirms=True)
    channel.publish(b"1", exchange="", routing_key="q", token="a", mandatory=True)
    channel.publish(b"2", exchange="", routing_key="nobody", token="b", mandatory=True, properties=Properties(app_id="x"))
    second = [payload for kind, _, payload in split(connection.data_to_send(0.0)) if kind == HEADER_FRAME][1]
    place = {"reply_code": 312, "reply_text": "NO_ROUTE", "exchange": "", "routing_key": "nobody"}
    data = method(1, "basic.return", **place) + content(1, b"2", properties=second[12:])
    returned, confirmed = connection.receive_data(data + method(1, "basic.ack", delivery_tag=2, multiple=True), 0.0)
    assert isinstance(returned, Returned)
    assert (returned.token, returned.reply_code, returned.content.body) == ("b", 312, b"2")
    assert confirmed == Confirmed(1, ["a"], True)
    (unknown,) = connection.receive_data(method(1, "basic.return", **place) + content(1, b"2", properties=second[12:]), 0.0)
    assert isinstance(unknown, Returned)
    assert unknown.token is None


def test_a_window_of_unconfirmed_publishes_is_full_at_its_limit() -> None:
    connection = opened(limits=Limits(unconfirmed=2))
    channel = with_channel(connection, confirms=True)
    channel.publish(b"", exchange="", routing_key="q")
    channel.publish(b"", exchange="", routing_key="q")
    assert channel.unconfirmed.is_full
    with pytest.raises(Busy, match="2 publishes"):
        channel.publish(b"", exchange="", routing_key="q")


def test_a_body_beyond_the_limit_is_read_to_its_end_and_cut() -> None:
    connection = opened(limits=Limits(body_bytes=10))
    with_channel(connection)
    first, second = connection.receive_data(deliver(1, 1, b"x" * 25, piece=7) + deliver(1, 2, b"y" * 12), 0.0)
    assert isinstance(first, Delivered)
    assert isinstance(second, Delivered)
    assert (first.content.body, first.content.size) == (b"x" * 10, 25)
    assert (second.content.body, second.content.size) == (b"y" * 10, 12)


@pytest.mark.parametrize("properties", [b"\x00\x01\x00\x00", b"\x80\x00\x05ab", b"\x20\x00\0\0\0\x03\x01az", b"\x80\x00\x01a\x00"])
def test_properties_that_cannot_be_read_cost_the_message_and_not_the_connection(properties: bytes) -> None:
    connection = opened()
    with_channel(connection)
    place = {"consumer_tag": "c", "delivery_tag": 1, "redelivered": False, "exchange": "x", "routing_key": "k"}
    head = method(1, "basic.deliver", **place)
    (whole,) = connection.receive_data(head + content(1, b"x", properties=properties), 0.0)
    (pieces,) = connection.receive_data(
        method(1, "basic.deliver", **place | {"delivery_tag": 2}) + content(1, b"xy", properties=properties, piece=1), 0.0
    )
    for event in (whole, pieces):
        assert isinstance(event, Delivered)
        assert event.content.unreadable
        assert event.content.properties == Properties()


DELIVER = method(1, "basic.deliver", consumer_tag="c", delivery_tag=1)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("no end octet", deliver(1, 1, b"x")[:-1] + b"\0"),
        ("no end octet of the header", deliver(1, 1, b"x").replace(b"\xce\x03", b"\0\x03")),
        ("no end octet of the method", deliver(1, 1, b"x").replace(b"\xce\x02", b"\0\x02")),
        ("a frame that is too long", b"\x03\0\x01\xff\xff\xff\xff"),
        ("a body without a header", DELIVER + frame(BODY_FRAME, 1, b"x")),
        ("a header without a method", content(1, b"")),
        ("a method within a message", DELIVER + DELIVER),
        ("more body than announced", DELIVER + content(1, b"xyz", size=2)),
        ("a header of another class", DELIVER + frame(HEADER_FRAME, 1, b"\0\x0a" + bytes(12))),
        ("a header that is cut", DELIVER + frame(HEADER_FRAME, 1, b"\0\x3c\0\0")),
        ("a deliver that is cut", frame(METHOD_FRAME, 1, b"\0\x3c\0\x3c\x01c") + content(1, b"x")),
        ("a deliver with too much", frame(METHOD_FRAME, 1, b"\0\x3c\0\x3c\x01c" + bytes(20)) + content(1, b"x")),
        ("tags that fall", deliver(1, 2, b"") + deliver(1, 2, b"")),
        ("an unknown method", frame(METHOD_FRAME, 1, b"\0\x3c\0\xff")),
        ("a method that is cut", frame(METHOD_FRAME, 1, b"\0")),
        ("a method of the client", method(1, "basic.publish")),
        ("a channel that is not open", method(2, "basic.qos-ok")),
        ("a channel method on 0", method(0, "basic.qos-ok")),
        ("a message on 0", frame(BODY_FRAME, 0, b"x")),
        ("an unknown type of frame", frame(4, 1, b"")),
        ("a heartbeat on a channel", frame(8, 1, b"")),
        ("a confirm without confirms", method(1, "basic.ack", delivery_tag=1)),
        ("start again", method(0, "connection.start", **START)),
        ("a secret that nobody gave", method(0, "connection.update-secret-ok")),
    ],
)
def test_what_a_broker_never_says_ends_the_connection_with_a_reason(name: str, data: bytes) -> None:
    connection = opened()
    with_channel(connection)
    *_, closed = connection.receive_data(data, 0.0)
    assert isinstance(closed, ConnectionClosed), name
    assert closed.reply_code >= 500
    assert closed.reply_text
    (_, last) = sent(connection)[-1]
    assert last.name == "connection.close"


def test_deliveries_beyond_the_limit_of_what_is_unsettled_end_the_connection() -> None:
    connection = opened(limits=Limits(unsettled=2))
    with_channel(connection)
    *_, closed = connection.receive_data(b"".join(deliver(1, tag, b"") for tag in (1, 2, 3)), 0.0)
    assert closed == ConnectionClosed(506, "more than 2 unsettled deliveries on one channel", is_by_peer=False)


def test_a_consumer_without_acks_has_nothing_to_settle() -> None:
    connection = opened(limits=Limits(unsettled=1))
    channel = with_channel(connection)
    channel.request("basic.consume", queue="q", no_ack=True)
    connection.receive_data(method(1, "basic.consume-ok", consumer_tag="c"), 0.0)
    events = connection.receive_data(b"".join(deliver(1, tag, b"") for tag in range(1, 5)), 0.0)
    assert len(events) == 4
    assert len(channel.unsettled) == 0
    with pytest.raises(ValueError, match="not unsettled"):
        channel.ack(1)
