"""The bytes of a publish: method, header and body frames (AMQP 0-9-1, 2.3.5 and 4.2; Basic.Publish is 60.40).

Written out by hand for the one method that every message needs; pamqp, which knows all of them, takes several times as long.
"""

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pamqp.encode

_FRAME = struct.Struct(">BHI")
_METHOD, _HEADER, _BODY = 1, 2, 3
_END = b"\xce"
_CONTENT = struct.Struct(">HHQH")
_CLASS_BASIC = 60
_BASIC_PUBLISH = struct.pack(">HHH", _CLASS_BASIC, 40, 0)
_MANDATORY = b"\x01"
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE, _PRIORITY, _EXPIRATION, _MESSAGE_ID = (
    1 << bit for bit in (15, 14, 13, 12, 11, 8, 7)
)
_ALWAYS = _CONTENT_TYPE | _CONTENT_ENCODING | _HEADERS | _DELIVERY_MODE | _PRIORITY | _MESSAGE_ID
_PERSISTENT_PRIORITY_0 = b"\x02\x00"
_NO_HEADERS = b"\x00\x00\x00\x00"
FRAME_OVERHEAD = 8
"""Bytes of a frame around its payload."""


def publish_frames(
    channel: int, *, exchange: str, key: str, mandatory: bool, body: bytes, content_type: str, content_encoding: str,
    headers: Mapping[str, Any], expiration_ms: int | None, message_id: str, frame_max: int,
) -> bytes:  # fmt: skip
    """One message with oslo.messaging's properties: persistent, priority 0.

    frame_max   bytes of the largest frame, with its overhead
    Raises ValueError for a name of more than 255 bytes.
    """
    flags = _ALWAYS | (_EXPIRATION if expiration_ms is not None else 0)
    properties = b"".join(
        (
            _words(content_type, content_encoding),
            pamqp.encode.field_table(dict(headers)) if headers else _NO_HEADERS,
            _PERSISTENT_PRIORITY_0,
            b"" if expiration_ms is None else _short(str(expiration_ms)),
            _short(message_id),
        )
    )
    header = _CONTENT.pack(_CLASS_BASIC, 0, len(body), flags) + properties
    parts = [_method(channel, exchange, key, mandatory), _FRAME.pack(_HEADER, channel, len(header)), header, _END]
    size = frame_max - FRAME_OVERHEAD
    for start in range(0, len(body), size):
        chunk = body[start : start + size] if len(body) > size else body
        parts += (_FRAME.pack(_BODY, channel, len(chunk)), chunk, _END)
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _method(channel: int, exchange: str, key: str, mandatory: bool) -> bytes:
    payload = _BASIC_PUBLISH + _short(exchange) + _short(key) + (_MANDATORY if mandatory else b"\x00")
    return _FRAME.pack(_METHOD, channel, len(payload)) + payload + _END


@lru_cache(maxsize=64)
def _words(content_type: str, content_encoding: str) -> bytes:
    return _short(content_type) + _short(content_encoding)


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise ValueError(f"a name of {len(data)} bytes; AMQP takes 255")
    return bytes((len(data),)) + data
