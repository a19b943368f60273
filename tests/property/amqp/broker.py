"""The broker's side of a conversation as bytes, and connections that have come as far as a test needs."""

import struct
from typing import Any

from common.amqp.channel import Channel
from common.amqp.connection import Connection
from common.amqp.content import Properties, encode_properties
from common.amqp.frames import split
from common.amqp.limits import Limits
from common.amqp.login import Login
from common.amqp.methods import Method, decode_method, encode_method
from common.amqp.spec import BODY_FRAME, HEADER_FRAME, METHOD_FRAME, PROTOCOL_HEADER

LOGIN = Login("guest", "s3cret")
START = {"version_major": 0, "version_minor": 9, "mechanisms": b"PLAIN AMQPLAIN EXTERNAL", "locales": b"en_US"}
TUNE = {"channel_max": 2047, "frame_max": 131_072, "heartbeat": 60}


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel: int, name: str, **arguments: Any) -> bytes:
    return encode_method(channel, name, arguments)


def content(channel: int, body: bytes, *, properties: bytes = b"\0\0", size: int | None = None, piece: int = 100_000) -> bytes:
    """A content header and its body in frames of `piece` bytes."""
    header = struct.pack(">HHQ", 60, 0, len(body) if size is None else size) + properties
    frames = [frame(HEADER_FRAME, channel, header)]
    frames += [frame(BODY_FRAME, channel, body[at : at + piece]) for at in range(0, len(body), piece)]
    return b"".join(frames)


def deliver(channel: int, tag: int, body: bytes, *, consumer: str = "c", piece: int = 100_000, **properties: Any) -> bytes:
    place = {"consumer_tag": consumer, "delivery_tag": tag, "redelivered": False, "exchange": "x", "routing_key": "k"}
    encoded = encode_properties(Properties(**properties))
    return method(channel, "basic.deliver", **place) + content(channel, body, properties=encoded, piece=piece)


def opened(*, limits: Limits = Limits(), heartbeat: int = 60, **tune: int) -> Connection:  # noqa: B008 - frozen
    """A connection that is open, with nothing to send."""
    connection = Connection(LOGIN, virtual_host="/", now_s=0.0, heartbeat_s=heartbeat, limits=limits)
    connection.receive_data(method(0, "connection.start", **START), 0.0)
    connection.receive_data(method(0, "connection.tune", **{**TUNE, **tune}), 0.0)
    connection.receive_data(method(0, "connection.open-ok"), 0.0)
    connection.data_to_send(0.0)
    return connection


def with_channel(connection: Connection, *, confirms: bool = False) -> Channel:
    """One more channel, open, with nothing to send."""
    channel = connection.open_channel()
    connection.receive_data(method(channel.number, "channel.open-ok"), 0.0)
    if confirms:
        channel.request("confirm.select")
        connection.receive_data(method(channel.number, "confirm.select-ok"), 0.0)
    connection.data_to_send(0.0)
    return channel


def sent(connection: Connection, now_s: float = 0.0) -> list[tuple[int, Method]]:
    """(channel, method) of what it sends now; the protocol's header and messages are left out."""
    data = connection.data_to_send(now_s).removeprefix(PROTOCOL_HEADER)
    frames = split(data)
    return [(channel, decode_method(payload)[1]) for kind, channel, payload in frames if kind == METHOD_FRAME]
