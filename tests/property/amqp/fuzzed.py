"""Hostile bytes for the AMQP engine, as targets of `tests.property.wire.fuzz`.

Whatever a broker sends gives events or the end of the connection with a reason, and what we answer does not outgrow it.
"""

import struct
from collections.abc import Callable, Iterator

from common.amqp.connection import Connection
from common.amqp.content import decode_properties, encode_properties
from common.amqp.errors import ProtocolError
from common.amqp.events import ChannelClosed, ConnectionClosed
from common.amqp.fields import decode_table, encode_table
from common.amqp.frames import split
from common.amqp.limits import Limits
from common.amqp.spec import METHODS
from common.amqp.states import ConnectionState
from tests.property.amqp.broker import LOGIN, START, TUNE, content, deliver, frame, method, opened, with_channel

_LIMITS = Limits(body_bytes=1000, unsettled=50)
_ANSWER_BYTES_MAX = 600
"""Of our answer to one method: start-ok, or connection.close with its text."""


def _new() -> Connection:
    return Connection(LOGIN, virtual_host="/", now_s=0.0, limits=_LIMITS)


def _open() -> Connection:
    connection = opened(limits=_LIMITS)
    for confirms in (False, True, False):
        channel = with_channel(connection, confirms=confirms)
        if confirms:
            channel.publish(b"x", exchange="", routing_key="q", mandatory=True, token="t")
        else:
            channel.request("basic.get", queue="q")
            channel.request("queue.declare", queue="q")
    connection.channels[3].close()
    return connection


def _closing() -> Connection:
    connection = _open()
    connection.close()
    return connection


_STATES: tuple[Callable[[], Connection], ...] = (_new, _open, _open, _closing)


def _feed(connection: Connection, data: bytes, piece: int) -> None:
    connection.data_to_send(0.0)
    for at in range(0, len(data), piece):
        events = connection.receive_data(data[at : at + piece], 1.0)
        is_over = any(isinstance(event, ConnectionClosed) for event in events)
        assert is_over <= (connection.state is ConnectionState.CLOSED)
        assert not is_over or isinstance(events[-1], ConnectionClosed)
        for event in events:
            if isinstance(event, ChannelClosed | ConnectionClosed):
                event.reply_text.encode()
        assert len(connection.data_to_send(1.0)) <= _ANSWER_BYTES_MAX * (1 + piece // 8)
    connection.tick(1000.0)
    connection.receive_eof()
    assert connection.state is ConnectionState.CLOSED


def stream(data: bytes) -> None:
    """Bytes as they are; the first two say where the connection is, and the size of the pieces."""
    if len(data) > 2:
        _feed(_STATES[data[0] % len(_STATES)](), data[2:], data[1] + 1)


def frames(data: bytes) -> None:
    """Frames that are well-formed: each a type, a channel, a length and a payload."""
    if not data:
        return
    parts, at = [], 1
    while at + 3 <= len(data):
        kind, channel, size = data[at : at + 3]
        parts.append(frame(kind if kind > 8 else (1, 1, 1, 2, 3, 8)[kind % 6], channel % 5, data[at + 3 : at + 3 + size]))
        at += 3 + size
    _feed(_STATES[data[0] % len(_STATES)](), b"".join(parts), 64)


def methods(data: bytes) -> None:
    """Known methods: each a number of the table, a channel, a length and arguments."""
    if not data:
        return
    parts, at = [], 1
    while at + 3 <= len(data):
        number, channel, size = data[at : at + 3]
        spec = METHODS[number % len(METHODS)]
        parts.append(frame(1, channel % 5, spec.key.to_bytes(4, "big") + data[at + 3 : at + 3 + size]))
        at += 3 + size
    _feed(_STATES[data[0] % len(_STATES)](), b"".join(parts), 1000)


def table(data: bytes) -> None:
    try:
        found, _ = decode_table(len(data).to_bytes(4, "big") + data, 0)
    except (ProtocolError, IndexError, struct.error):  # the last two are a frame's end, for who decodes the whole frame
        return
    try:
        encode_table(found)
    except ValueError:
        return


def properties(data: bytes) -> None:
    try:
        found = decode_properties(data)
    except ProtocolError:
        return
    assert decode_properties(data) == found or "nan" in repr(found)
    try:
        encode_properties(found)
    except ValueError:
        return


AMQP_TARGETS: dict[str, Callable[[bytes], None]] = {
    "amqp_stream": stream,
    "amqp_frames": frames,
    "amqp_methods": methods,
    "amqp_table": table,
    "amqp_properties": properties,
}


def amqp_seeds() -> Iterator[bytes]:
    """What brokers say, for `stream` and, cut into its parts, for the others."""
    start = method(0, "connection.start", **START, server_properties={"product": "RabbitMQ", "capabilities": {"a": True}})
    said = [
        start,
        start + method(0, "connection.tune", **TUNE) + method(0, "connection.open-ok"),
        method(0, "connection.close", reply_code=320, reply_text="CONNECTION_FORCED"),
        deliver(1, 1, b"x" * 50, headers={"a": [1, None, 2.5, {"b": "c"}]}, content_type="t", message_id="1"),
        deliver(1, 1, b"x" * 50, piece=20),
        method(2, "basic.ack", delivery_tag=1, multiple=True),
        method(2, "basic.return", reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="q")
        + content(2, b"x", properties=b"\x00\x80\x011"),
        method(1, "basic.get-ok", delivery_tag=1, redelivered=True, exchange="", routing_key="q", message_count=0)
        + content(1, b"x"),
        method(1, "basic.get-empty") + method(1, "queue.declare-ok", queue="q", message_count=1, consumer_count=2),
        method(1, "basic.cancel", consumer_tag="c") + method(1, "channel.flow", active=False),
        method(1, "channel.close", reply_code=404, reply_text="NOT_FOUND") + method(3, "channel.close-ok"),
        method(0, "connection.blocked", reason="memory") + method(0, "connection.unblocked") + frame(8, 0, b""),
    ]
    for data in said:
        for state in range(len(_STATES)):
            yield bytes((state, 255)) + data
            yield bytes((state, 0)) + data
        parts = list(split(data))
        if all(len(payload) < 256 for _, _, payload in parts):
            kinds = {1: 0, 2: 3, 3: 4, 8: 5}
            yield b"\x01" + b"".join(bytes((kinds[kind], channel, len(payload))) + payload for kind, channel, payload in parts)
    yield encode_table({"a": [1, None, 2.5, {"b": b"c"}], "t": True})[4:]
    yield b"\xa0\x00\x01t\0\0\0\x04\x01at\x01"
