"""Messages between the port and kombu. What kombu has no place for travels in its free properties, not in the headers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from common.base.clock import Clock
from common.transport.port import Message

_EXPIRES_AT = "expires_at"
_REDELIVERED = "redelivered"


@dataclass(frozen=True, slots=True)
class Received:
    """What a delivery shows of its message."""

    body: bytes
    content_type: str | None
    headers: Mapping[str, Any]
    redelivered: bool


def put(channel: Any, message: Message, queue: str, clock: Clock) -> None:
    """Append to one queue, whatever exchange the message came by: so a requeued one returns to that queue alone."""
    properties: dict[str, Any] = {"delivery_mode": 2}
    if message.expiration_ms is not None:
        properties[_EXPIRES_AT] = wall_s(clock) + message.expiration_ms / 1000
    prepared = channel.prepare_message(
        message.body,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=dict(message.headers),
        properties=properties,
    )
    channel.basic_publish(prepared, exchange="", routing_key=queue)


def received(message: Any) -> Received:
    """What kombu's message holds. kombu gives an empty body as text."""
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body or b"")
    return Received(body, message.content_type, dict(message.headers), bool(message.properties.get(_REDELIVERED)))


def mark_redelivered(message: Any) -> None:
    """So that its next receiver sees it."""
    message.properties[_REDELIVERED] = True


def is_over(message: Any, clock: Clock) -> bool:
    """True when the time that it may wait ran out. Only peers of ours stamp it, and all are on one machine's clock."""
    expires_at = message.properties.get(_EXPIRES_AT)
    return expires_at is not None and expires_at <= wall_s(clock)


def wall_s(clock: Clock) -> float:
    """The time of day, seconds since 1970."""
    return clock.utcnow().replace(tzinfo=UTC).timestamp()
