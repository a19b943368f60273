"""The outer layer: {"oslo.version": "2.0", "oslo.message": "<JSON>"} (`_drivers/common.py` serialize_msg, deserialize_msg).

A body without these two keys is itself the message (format 1.0); any other version than 2.0 is refused, as oslo does.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from common.base.limits import MESSAGE_BYTES_MAX, NESTING_MAX
from common.wire.nesting import is_deep, is_surely_flat

T = TypeVar("T")

VERSION = "2.0"
_VERSION_KEY = "oslo.version"
_MESSAGE_KEY = "oslo.message"
_BEFORE = b'{"oslo.version":"2.0","oslo.message":'
UNREADABLE = (msgspec.DecodeError, UnicodeError, OverflowError, RecursionError)
"""What a decoder of msgspec raises for bytes that are not what it reads."""
_NOT_JSON = (b"NaN", b"Infinity")


class NotAMessage(ValueError):
    """The bytes are no message of this protocol. The text says what was found; it never quotes the body.

    kind   one word for counting: "json", "envelope", "compression", "size", "key", "reply_q"
    """

    def __init__(self, text: str, *, kind: str = "key") -> None:
        super().__init__(text)
        self.kind = kind


def pack(message: Mapping[str, Any]) -> bytes:
    """The body of a message. Raises TypeError when a value is not JSON's."""
    return enveloped(msgspec.json.encode(message))


def enveloped(message: bytes) -> bytes:
    """The body of a message that is JSON already."""
    return _BEFORE + msgspec.json.encode(message.decode()) + b"}"


def unpack(body: bytes) -> dict[str, Any]:
    """The message in a body. Raises NotAMessage."""
    return open_envelope(body)[0]


def open_envelope(body: bytes) -> tuple[dict[str, Any], bool]:
    """The message in a body, and whether it had an envelope. Raises NotAMessage."""
    if len(body) > MESSAGE_BYTES_MAX:
        raise NotAMessage(f"body of {len(body)} bytes; the limit is {MESSAGE_BYTES_MAX}", kind="size")
    if (inner := _inner_of(body)) is not None:
        return _object(inner.encode(), "oslo.message"), True
    outer = _object(body, "body")
    if _VERSION_KEY not in outer or _MESSAGE_KEY not in outer:
        return outer, False
    if outer[_VERSION_KEY] != VERSION:
        found = outer[_VERSION_KEY]
        shown = repr(found[:20]) if isinstance(found, str) else f"of type {type(found).__name__}"
        raise NotAMessage(f"envelope version {shown}; wanted {VERSION}", kind="envelope")
    inner = outer[_MESSAGE_KEY]
    if not isinstance(inner, str):
        raise NotAMessage(f"oslo.message is {type(inner).__name__}; wanted a JSON string", kind="envelope")
    return _object(inner.encode(), "oslo.message"), True


def opened(body: bytes, usual: msgspec.json.Decoder[T]) -> T | None:
    """The message in an envelope, where `usual` can read it; None: `unpack` must look at it, and may say what is wrong with it."""
    if len(body) > MESSAGE_BYTES_MAX or (inner := _inner_of(body)) is None:
        return None
    if not is_surely_flat(body):  # no bracket of the inner message is escaped
        return None
    try:
        return usual.decode(inner)
    except UNREADABLE:
        return None


class _Outer(msgspec.Struct, gc=False):
    """An envelope as nearly all are; of other keys nobody knows."""

    version: str = msgspec.field(name=_VERSION_KEY)
    message: str = msgspec.field(name=_MESSAGE_KEY)


_OUTER = msgspec.json.Decoder(_Outer)


def _inner_of(body: bytes) -> str | None:
    """The message in an envelope of our version; None: it is something else, or wrong, and must be looked at more closely."""
    try:
        outer = _OUTER.decode(body)
    except UNREADABLE:
        return None
    return outer.message if outer.version == VERSION else None


def _decoded(data: bytes) -> Any:
    """oslo writes NaN and Infinity, which are not JSON: Python's own reader takes them. Raises ValueError or RecursionError."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError):
        if not any(word in data for word in _NOT_JSON):
            raise
    value = json.loads(data.decode())
    msgspec.json.encode(value)  # half of a surrogate pair, which Python's reader takes as well, could not be sent on
    return value


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = _decoded(data)
    except (ValueError, RecursionError) as exc:
        raise NotAMessage(f"{what} of {len(data)} bytes is not JSON: {exc}", kind="json") from None
    if not isinstance(value, dict):
        raise NotAMessage(f"{what} is {type(value).__name__}; wanted an object", kind="json")
    if not is_surely_flat(data) and is_deep(value):
        raise NotAMessage(f"{what} of {len(data)} bytes is nested deeper than {NESTING_MAX}", kind="json")
    return value
