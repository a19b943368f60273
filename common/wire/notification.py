"""Notifications on the wire: format 2.0, in an envelope (driver `messagingv2`), and 1.0, without one (`messaging`) (oslo-wire 8).

Without an envelope the message is kombu's to write, which gives some Python types a form of their own:
{"__type__": "datetime", "__value__": "2026-11-23T03:13:00"} (kombu/utils/json.py). With one they are text.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from common.wire.envelope import NotAMessage, open_envelope, pack
from common.wire.values import WrongValue, to_primitive

_CONTEXT = "_context_"
_SECRETS = {"auth_token", "service_catalog"}


class Priority(StrEnum):
    """As in routing keys and in the names of methods; the message has it in capitals."""

    AUDIT = "audit"
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    CRITICAL = "critical"
    SAMPLE = "sample"


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification.

    publisher_id   `service.host`
    message_id     a UUID with dashes; the same in every copy that was sent of it
    timestamp      naive UTC as `str(datetime)` writes it
    unique_id      new for every copy that was sent; a repeated one is a duplicate
    context        the request's context, without the `_context_` of the wire
    """

    event_type: str
    priority: Priority
    payload: Any
    publisher_id: str | None = None
    message_id: str | None = None
    timestamp: str | None = None
    unique_id: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)


def routing_key(topic: str, priority: Priority) -> str:
    """`<topic>.<priority>`. It is also the name of the queue that is bound to it by default."""
    return f"{topic}.{priority}"


def redacted(context: Mapping[str, Any]) -> dict[str, Any]:
    """`context` with null for a token or a catalogue: who listens to notifications must not get the right to act for users."""
    return {key: None if key in _SECRETS else value for key, value in context.items()}


def encode_notification(notification: Notification, *, envelope: bool) -> bytes:
    """The body in format 2.0, or without `envelope` in 1.0. Raises WrongValue for what cannot be sent."""
    message = {
        "message_id": notification.message_id,
        "publisher_id": notification.publisher_id,
        "event_type": notification.event_type,
        "priority": notification.priority.upper(),
        "payload": notification.payload,
        "timestamp": notification.timestamp,
        "_unique_id": notification.unique_id,
        **{_CONTEXT + key: value for key, value in redacted(notification.context).items()},
    }
    if envelope:
        return pack(to_primitive(message))
    return msgspec.json.encode(to_primitive(_tagged(message)))


def decode_notification(body: bytes) -> Notification:
    """The notification in a body of either format. Raises NotAMessage, naming what is missing or of a wrong type."""
    message, has_envelope = open_envelope(body)
    if not has_envelope:
        message = _untagged_message(message)
    event_type = message.get("event_type")
    if not isinstance(event_type, str):
        raise NotAMessage(f"event_type is {_kind(event_type)}; wanted text")
    context = {key[len(_CONTEXT) :]: value for key, value in message.items() if key.startswith(_CONTEXT)}
    return Notification(
        event_type=event_type,
        priority=_priority(message.get("priority")),
        payload=message.get("payload"),
        publisher_id=_text(message, "publisher_id"),
        message_id=_text(message, "message_id"),
        timestamp=_text(message, "timestamp"),
        unique_id=_text(message, "_unique_id"),
        context=redacted(context),
    )


def _priority(found: Any) -> Priority:
    try:
        return Priority(found.lower())
    except (AttributeError, ValueError):
        shown = repr(found[:20]) if isinstance(found, str) else _kind(found)
        raise NotAMessage(f"priority is {shown}; wanted one of {', '.join(Priority)}, in capitals") from None


def _text(message: Mapping[str, Any], key: str) -> str | None:
    value = message.get(key)
    if value is not None and not isinstance(value, str):
        raise NotAMessage(f"{key} is {_kind(value)}; wanted text")
    return value


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__


_TYPE = "__type__"
_VALUE = "__value__"
_TAGGED = (datetime, date, time, Decimal, UUID, bytes)


def _tagged(value: Any) -> Any:
    """JSON's types and kombu's tags. Raises WrongValue."""
    try:
        return _with_tags(msgspec.to_builtins(value, str_keys=True, builtin_types=_TAGGED))
    except (TypeError, ValueError, RecursionError) as exc:
        raise WrongValue(f"{type(value).__name__} cannot be sent: {exc}") from exc


def _with_tags(value: Any) -> Any:
    match value:
        case dict():
            return {key: _with_tags(item) for key, item in value.items()}
        case list() | tuple():
            return [_with_tags(item) for item in value]
        case bytes():
            return _bytes(value)
        case _:
            for kind, (python, write) in _WRITERS.items():
                if isinstance(value, python):
                    return {_TYPE: kind, _VALUE: write(value)}
            return value


def _bytes(value: bytes) -> dict[str, str]:
    try:
        return {_TYPE: "bytes", _VALUE: value.decode()}
    except UnicodeDecodeError:
        return {_TYPE: "base64", _VALUE: base64.b64encode(value).decode()}


_WRITERS: Mapping[str, tuple[type, Callable[[Any], Any]]] = {
    "datetime": (datetime, datetime.isoformat),  # before date: every datetime is one
    "date": (date, date.isoformat),
    "time": (time, time.isoformat),
    "decimal": (Decimal, str),
    "uuid": (UUID, lambda value: {"hex": value.hex}),
}
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": lambda text: datetime.fromisoformat(text).date(),
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda parts: UUID(hex=parts["hex"]),
    "bytes": str.encode,
    "base64": lambda text: base64.b64decode(text, validate=True),
}


def _untagged_message(message: dict[str, Any]) -> dict[str, Any]:
    try:
        found = _without_tags(message)
    except RecursionError:
        raise NotAMessage("body is nested too deep") from None
    if not isinstance(found, dict):
        raise NotAMessage(f"body is {type(found).__name__}; wanted an object")
    return found


def _without_tags(value: Any) -> Any:
    match value:
        case dict():
            found = {key: _without_tags(item) for key, item in value.items()}
            return _read(found) if found.keys() == {_TYPE, _VALUE} else found
        case list():
            return [_without_tags(item) for item in value]
        case _:
            return value


def _read(tagged: dict[str, Any]) -> Any:
    kind = tagged[_TYPE]
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise NotAMessage(f"{_TYPE} is of no known kind; known: {', '.join(_READERS)}")
    try:
        return reader(tagged[_VALUE])
    except (ArithmeticError, TypeError, ValueError, LookupError, AttributeError):
        raise NotAMessage(f"{_VALUE} is no {kind}") from None
