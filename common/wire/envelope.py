"""The outer layer: {"oslo.version": "2.0", "oslo.message": "<JSON>"} (`_drivers/common.py` serialize_msg, deserialize_msg).

A body without these two keys is itself the message (format 1.0); any other version than 2.0 is refused, as oslo does.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

VERSION = "2.0"
_VERSION_KEY = "oslo.version"
_MESSAGE_KEY = "oslo.message"


class NotAMessage(ValueError):
    """The bytes are no message of this protocol. The text says what was found; it never quotes the body."""


def pack(message: Mapping[str, Any]) -> bytes:
    """The body of a message. Raises TypeError when a value is not JSON's."""
    inner = msgspec.json.encode(message).decode()
    return msgspec.json.encode({_VERSION_KEY: VERSION, _MESSAGE_KEY: inner})


def unpack(body: bytes) -> dict[str, Any]:
    """The message in a body. Raises NotAMessage."""
    outer = _object(body, "body")
    if _VERSION_KEY not in outer or _MESSAGE_KEY not in outer:
        return outer
    if outer[_VERSION_KEY] != VERSION:
        raise NotAMessage(f"envelope version {str(outer[_VERSION_KEY])[:20]!r}; wanted {VERSION}")
    inner = outer[_MESSAGE_KEY]
    if not isinstance(inner, str):
        raise NotAMessage(f"oslo.message is {type(inner).__name__}; wanted a JSON string")
    return _object(inner.encode(), "oslo.message")


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise NotAMessage(f"{what} of {len(data)} bytes is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise NotAMessage(f"{what} is {type(value).__name__}; wanted an object")
    return value
