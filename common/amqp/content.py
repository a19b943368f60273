"""Messages on the wire: the properties of a content header, and the frames of a publish (2.3.5, 4.2.6).

The properties are written and read by the table of `spec`; what every message of an RPC needs, a publish and a header without odd
properties, has ways of its own.
"""

import struct
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import msgspec

from common.amqp import fields
from common.amqp.errors import FRAME_ERROR, SYNTAX_ERROR, ProtocolError
from common.amqp.methods import DOMAINS, END, FRAME
from common.amqp.spec import (
    BODY_FRAME,
    BY_NAME,
    CLASS_BASIC,
    FRAME_END,
    FRAME_OVERHEAD,
    HEADER_FRAME,
    METHOD_FRAME,
    PROPERTIES,
    Field,
)

_HEADER = struct.Struct(">HHQ")
"""Class, weight, size of the body; the properties follow."""
_PUBLISH = struct.pack(">IH", BY_NAME["basic.publish"].key, 0)
_BITS = {each.name: 1 << 15 - place for place, each in enumerate(PROPERTIES)}
_U64 = struct.Struct(">Q")


class Properties(msgspec.Struct, frozen=True, gc=False):
    """The properties of a message (class basic, 1.8.2); None: not there.

    timestamp   UTC; an int, in seconds, for what Python has no date for
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: datetime | int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


NO_PROPERTIES = Properties()


class Content(msgspec.Struct, frozen=True, gc=False):
    """A message as it came.

    size          bytes of its body; `body` is shorter when that is more than our limit
    unreadable    what is wrong with its properties, which are then empty; "": nothing
    """

    exchange: str
    routing_key: str
    properties: Properties
    body: bytes
    size: int
    unreadable: str = ""


# -- outwards -----------------------------------------------------------------------------------------------------------


def encode_properties(properties: Properties) -> bytes:
    """Flags and values. Raises ValueError for what their domains do not have."""
    flags, parts = 0, [b""]
    for each in PROPERTIES:
        value = getattr(properties, each.name)
        if value is not None:
            flags |= _BITS[each.name]
            parts.append(_encode_property(each, value))
    parts[0] = flags.to_bytes(2, "big")
    return b"".join(parts)


def _encode_property(each: Field, value: Any) -> bytes:
    if each.domain != "timestamp":
        return DOMAINS[each.domain].encode(value)
    seconds = int(value.timestamp()) if isinstance(value, datetime) else value
    return _U64.pack(seconds)


def publish_method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The method frame of a publish. Raises ValueError for names that are too long."""
    place = fields.encode_short(exchange) + fields.encode_short(routing_key)
    payload = _PUBLISH + place + (b"\x01" if mandatory else b"\x00")
    return FRAME.pack(METHOD_FRAME, channel, len(payload)) + payload + END


def publish_frames(channel: int, *, method: bytes, properties: bytes, body: bytes, frame_bytes: int) -> bytes:
    """A whole publish in one piece.

    method       of `publish_method`
    properties   of `encode_properties`
    frame_bytes  of the largest frame, with its overhead
    """
    size = len(body)
    head = _HEADER.pack(CLASS_BASIC, 0, size)
    header_bytes = len(head) + len(properties)
    if header_bytes + FRAME_OVERHEAD > frame_bytes:
        raise ValueError(f"properties of {len(properties)} bytes do not fit into a frame of {frame_bytes}")
    header = FRAME.pack(HEADER_FRAME, channel, header_bytes) + head
    if not size:
        return b"".join((method, header, properties, END))
    most = frame_bytes - FRAME_OVERHEAD
    if size <= most:
        return b"".join((method, header, properties, END, FRAME.pack(BODY_FRAME, channel, size), body, END))
    parts: list[bytes | memoryview] = [method, header, properties, END]
    view = memoryview(body)
    for start in range(0, size, most):
        chunk = view[start : start + most]
        parts += (FRAME.pack(BODY_FRAME, channel, len(chunk)), chunk, END)
    return b"".join(parts)


class Form:
    """What messages to one place have in common, when they have these properties and no others but for an expiration.

    Nearly every message is one of few forms: what stands in all of one is made once, and `frames` puts the rest in between.
    Raises ValueError for names that are too long.
    """

    __slots__ = ("_behind", "_channel", "_head", "_method", "_words_by_flags", "mandatory")

    def __init__(
        self, channel: int, exchange: str, routing_key: str, *, mandatory: bool, content_type: str, content_encoding: str,
        delivery_mode: int, priority: int,
    ) -> None:  # fmt: skip
        self._channel = channel
        self.mandatory = mandatory
        self._method = publish_method(channel, exchange, routing_key, mandatory)
        self._head = self._method + _CHANNEL.pack(HEADER_FRAME, channel)
        words = fields.encode_short(content_type) + fields.encode_short(content_encoding)
        self._words_by_flags = tuple(
            (_ALWAYS | (_EXPIRATION_BIT if has_expiration else 0) | (_ID_BIT if has_id else 0)).to_bytes(2, "big") + words
            for has_expiration in (False, True)
            for has_id in (False, True)
        )
        self._behind = bytes((delivery_mode, priority))

    def frames(
        self, body: bytes, headers: Mapping[str, Any], *, expiration: bytes = b"", message_id: bytes = b"", frame_bytes: int
    ) -> bytes:
        """A whole publish in one piece, as `publish_frames` makes it. `expiration` and `message_id` are ASCII; empty: not there.

        Raises ValueError for headers that AMQP cannot carry.
        """
        words = self._words_by_flags[(2 if expiration else 0) + (1 if message_id else 0)]
        table = fields.encode_table(headers) if headers else fields.NO_TABLE
        behind = self._behind
        if expiration:
            behind += fields.SIZES[len(expiration)] + expiration
        if message_id:
            behind += fields.SIZES[len(message_id)] + message_id
        size, most = len(body), frame_bytes - FRAME_OVERHEAD
        header_bytes = _HEADER_SIZE + len(words) + len(table) + len(behind)
        if not 0 < size <= most or header_bytes > most:
            properties = words + table + behind
            return publish_frames(self._channel, method=self._method, properties=properties, body=body, frame_bytes=frame_bytes)
        header = _REST_OF_HEADER.pack(header_bytes, CLASS_BASIC, 0, size)
        between = _END_AND_BODY.pack(FRAME_END, BODY_FRAME, self._channel, size)
        return b"".join((self._head, header, words, table, behind, between, body, END))


_CHANNEL = struct.Struct(">BH")
_HEADER_SIZE = _HEADER.size
_REST_OF_HEADER = struct.Struct(">IHHQ")
_END_AND_BODY = struct.Struct(">BBHI")
_ALWAYS = sum(_BITS[name] for name in ("content_type", "content_encoding", "headers", "delivery_mode", "priority"))
_EXPIRATION_BIT, _ID_BIT = _BITS["expiration"], _BITS["message_id"]


# -- inwards ------------------------------------------------------------------------------------------------------------


def header_size(payload: bytes) -> int:
    """The size of the body that a content header announces. Raises ProtocolError."""
    if len(payload) < _HEADER.size + 2:
        raise ProtocolError(FRAME_ERROR, "a content header that ends too early")
    class_id, _, size = _HEADER.unpack_from(payload)
    if class_id != CLASS_BASIC:
        raise ProtocolError(FRAME_ERROR, f"a content header of class {class_id}")
    return int(size)


def read_properties(payload: bytes) -> tuple[Properties, str]:
    """The properties in a content header, and what is wrong with them.

    Another client wrote them, and the broker only passes them on: it would give the message again and again to a consumer that
    took them for an error of the connection.
    """
    try:
        return _frequent(payload) or decode_properties(payload, _HEADER.size), ""
    except ProtocolError as exc:
        return NO_PROPERTIES, exc.text


def _frequent(data: bytes) -> Properties | None:
    """What `decode_properties` finds in what `Form.frames` wrote, in half of the time; None: there may be something else."""
    at = _HEADER.size
    flags = data[at] << 8 | data[at + 1]
    if flags & ~(_EXPIRATION_BIT | _ID_BIT) != _ALWAYS:
        return None
    try:
        words_end = at + 3 + data[at + 2]
        words_end += 1 + data[words_end]
        content_type, content_encoding = _words(data[at + 2 : words_end])
        if data[words_end : words_end + 4] == fields.NO_TABLE:
            headers, at = _NO_HEADERS, words_end + 4
        else:
            headers, at = fields.decode_table(data, words_end)
        delivery_mode, priority = data[at], data[at + 1]
        at += 2
        expiration = message_id = None
        if flags & _EXPIRATION_BIT:
            end = at + 1 + data[at]
            expiration, at = data[at + 1 : end].decode("utf-8", "replace"), end
        if flags & _ID_BIT:
            end = at + 1 + data[at]
            message_id, at = data[at + 1 : end].decode("utf-8", "replace"), end
    except (struct.error, IndexError):
        return None
    if at != len(data):
        return None
    return Properties(content_type, content_encoding, headers, delivery_mode, priority, None, None, expiration, message_id)


_NO_HEADERS: Mapping[str, Any] = MappingProxyType({})


@lru_cache(maxsize=64)
def _words(data: bytes) -> tuple[str, str]:
    content_type, at = fields.decode_short(data, 0)
    return content_type, fields.decode_short(data, at)[0]


def decode_properties(data: bytes, at: int = 0) -> Properties:
    """Flags and values from that place to the end. Raises ProtocolError."""
    try:
        flags = data[at] << 8 | data[at + 1]
        at += 2
        if flags & 1:
            raise ProtocolError(SYNTAX_ERROR, "more than fifteen property flags")
        found = {}
        for name, decode in _plan(flags):
            found[name], at = decode(data, at, 0)
    except (struct.error, IndexError):
        raise ProtocolError(SYNTAX_ERROR, "properties that end too early") from None
    if at != len(data):
        raise ProtocolError(SYNTAX_ERROR, f"properties with {len(data) - at} bytes too many")
    return Properties(**found)


@lru_cache(maxsize=256)
def _plan(flags: int) -> tuple[tuple[str, fields.Decoder], ...]:
    return tuple(
        (each.name, fields.decode_time if each.domain == "timestamp" else DOMAINS[each.domain].decode)
        for each in PROPERTIES
        if flags & _BITS[each.name]
    )
