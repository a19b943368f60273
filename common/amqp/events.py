"""What a connection tells its owner. `token` is whatever the owner gave with the request or the publish that it answers.

The classes are msgspec's, because one is made for every message: they cost a fifth of a frozen dataclass.
"""

from typing import Any

import msgspec

from common.amqp.content import Content
from common.amqp.methods import Method


class Opened(msgspec.Struct, frozen=True):
    """The connection is open. `heartbeat_s` 0: neither side watches the other."""

    server_properties: dict[str, Any]
    heartbeat_s: float


class ConnectionClosed(msgspec.Struct, frozen=True):
    """The connection has ended, the last event. `is_by_peer` false: by our close, a silent peer, or an error in what it sent."""

    reply_code: int
    reply_text: str
    is_by_peer: bool
    method: str = ""
    """What the peer closed it for."""


class Blocked(msgspec.Struct, frozen=True):
    """The broker is short of memory or disk and reads nothing more that is published."""

    reason: str


class Unblocked(msgspec.Struct, frozen=True):
    """It reads again."""


class Replied(msgspec.Struct, frozen=True):
    """The answer to a request. `content` comes with basic.get-ok."""

    channel: int
    token: Any
    method: Method
    content: Content | None = None


class ChannelClosed(msgspec.Struct, frozen=True):
    """A channel has ended, and its number is free. What was still waited for gets no answer: nobody knows whether it was done.

    method        what the peer closed it for
    requests      tokens without a reply, the oldest first: a peer that closed it because of a request means this one
    unconfirmed   tokens of publishes without a confirm
    """

    channel: int
    reply_code: int
    reply_text: str
    is_by_peer: bool
    method: str
    requests: tuple[Any, ...]
    unconfirmed: tuple[Any, ...]


class Confirmed(msgspec.Struct, frozen=True, gc=False):
    """The broker has these messages, or with `is_ack` false has none of them: basic.ack and basic.nack."""

    channel: int
    tokens: list[Any]
    is_ack: bool


class Returned(msgspec.Struct, frozen=True):
    """No queue took this mandatory message. Its confirm, which the broker sends all the same, is not told."""

    channel: int
    token: Any
    reply_code: int
    reply_text: str
    content: Content


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """A message for a consumer."""

    channel: int
    consumer_tag: str
    delivery_tag: int
    redelivered: bool
    content: Content


class ConsumerCancelled(msgspec.Struct, frozen=True):
    """The broker ended a consumer: its queue was deleted or moved."""

    channel: int
    consumer_tag: str


class FlowChanged(msgspec.Struct, frozen=True):
    """The broker asks to publish no more on this channel, or to go on."""

    channel: int
    is_active: bool


Event = (
    Opened
    | ConnectionClosed
    | Blocked
    | Unblocked
    | Replied
    | ChannelClosed
    | Confirmed
    | Returned
    | Delivered
    | ConsumerCancelled
    | FlowChanged
)
