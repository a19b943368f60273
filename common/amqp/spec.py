"""The specification as data: every class and method that RabbitMQ implements.

Written from amqp0-9-1.xml and RabbitMQ's list of extensions (https://www.rabbitmq.com/docs/specification, "Extensions"): confirm.*,
basic.nack, exchange.bind and unbind, connection.blocked, unblocked and update-secret.
"""

from dataclasses import dataclass

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"

METHOD_FRAME, HEADER_FRAME, BODY_FRAME, HEARTBEAT_FRAME = 1, 2, 3, 8
FRAME_END = 0xCE
FRAME_OVERHEAD = 8
"""Bytes of a frame around its payload: type, channel, size; end."""

CLIENT, SERVER = "client", "server"
BOTH = "both"

CLASS_BASIC = 60


@dataclass(frozen=True, slots=True)
class Field:
    """An argument of a method or a property of a message. `domain` is one of the elementary ones of 4.2.1."""

    name: str
    domain: str


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """One method.

    sender    who may send it: CLIENT, SERVER or BOTH
    replies   what answers it; empty: nothing does. With `nowait` set nothing does either
    content   a message follows it
    """

    name: str
    class_id: int
    method_id: int
    fields: tuple[Field, ...]
    sender: str
    replies: tuple[str, ...] = ()
    content: bool = False

    @property
    def key(self) -> int:
        """Both numbers, as they stand at the head of a method frame."""
        return self.class_id << 16 | self.method_id


def _fields(text: str) -> tuple[Field, ...]:
    return tuple(Field(*word.split(":")) for word in text.split())


def _method(
    class_id: int, method_id: int, name: str, sender: str, fields: str = "", *, replies: str = "", content: bool = False
) -> MethodSpec:
    return MethodSpec(name, class_id, method_id, _fields(fields), sender, tuple(replies.split()), content)


_CLOSE = "reply_code:short reply_text:shortstr class_id:short method_id:short"
_PLACE = "exchange:shortstr routing_key:shortstr"
_BINDING = "destination:shortstr source:shortstr routing_key:shortstr"
_TUNE = "channel_max:short frame_max:long heartbeat:short"

METHODS: tuple[MethodSpec, ...] = (
    _method(
        10, 10, "connection.start", SERVER,
        "version_major:octet version_minor:octet server_properties:table mechanisms:longstr locales:longstr",
        replies="connection.start-ok",
    ),
    _method(
        10, 11, "connection.start-ok", CLIENT,
        "client_properties:table mechanism:shortstr response:longstr locale:shortstr",
    ),
    _method(10, 20, "connection.secure", SERVER, "challenge:longstr", replies="connection.secure-ok"),
    _method(10, 21, "connection.secure-ok", CLIENT, "response:longstr"),
    _method(10, 30, "connection.tune", SERVER, _TUNE, replies="connection.tune-ok"),
    _method(10, 31, "connection.tune-ok", CLIENT, _TUNE),
    _method(
        10, 40, "connection.open", CLIENT, "virtual_host:shortstr reserved_1:shortstr reserved_2:bit", replies="connection.open-ok"
    ),
    _method(10, 41, "connection.open-ok", SERVER, "reserved_1:shortstr"),
    _method(10, 50, "connection.close", BOTH, _CLOSE, replies="connection.close-ok"),
    _method(10, 51, "connection.close-ok", BOTH),
    _method(10, 60, "connection.blocked", SERVER, "reason:shortstr"),
    _method(10, 61, "connection.unblocked", SERVER),
    _method(
        10, 70, "connection.update-secret", CLIENT, "new_secret:longstr reason:shortstr", replies="connection.update-secret-ok"
    ),
    _method(10, 71, "connection.update-secret-ok", SERVER),
    _method(20, 10, "channel.open", CLIENT, "reserved_1:shortstr", replies="channel.open-ok"),
    _method(20, 11, "channel.open-ok", SERVER, "reserved_1:longstr"),
    _method(20, 20, "channel.flow", BOTH, "active:bit", replies="channel.flow-ok"),
    _method(20, 21, "channel.flow-ok", BOTH, "active:bit"),
    _method(20, 40, "channel.close", BOTH, _CLOSE, replies="channel.close-ok"),
    _method(20, 41, "channel.close-ok", BOTH),
    _method(
        30, 10, "access.request", CLIENT,
        "realm:shortstr exclusive:bit passive:bit active:bit write:bit read:bit",
        replies="access.request-ok",
    ),
    _method(30, 11, "access.request-ok", SERVER, "ticket:short"),
    _method(
        40, 10, "exchange.declare", CLIENT,
        "reserved_1:short exchange:shortstr type:shortstr passive:bit durable:bit auto_delete:bit internal:bit nowait:bit "
        "arguments:table",
        replies="exchange.declare-ok",
    ),
    _method(40, 11, "exchange.declare-ok", SERVER),
    _method(
        40, 20, "exchange.delete", CLIENT, "reserved_1:short exchange:shortstr if_unused:bit nowait:bit",
        replies="exchange.delete-ok",
    ),
    _method(40, 21, "exchange.delete-ok", SERVER),
    _method(40, 30, "exchange.bind", CLIENT, f"reserved_1:short {_BINDING} nowait:bit arguments:table", replies="exchange.bind-ok"),
    _method(40, 31, "exchange.bind-ok", SERVER),
    _method(
        40, 40, "exchange.unbind", CLIENT, f"reserved_1:short {_BINDING} nowait:bit arguments:table", replies="exchange.unbind-ok"
    ),
    _method(40, 51, "exchange.unbind-ok", SERVER),  # 51, where 41 would be expected
    _method(
        50, 10, "queue.declare", CLIENT,
        "reserved_1:short queue:shortstr passive:bit durable:bit exclusive:bit auto_delete:bit nowait:bit arguments:table",
        replies="queue.declare-ok",
    ),
    _method(50, 11, "queue.declare-ok", SERVER, "queue:shortstr message_count:long consumer_count:long"),
    _method(
        50, 20, "queue.bind", CLIENT, f"reserved_1:short queue:shortstr {_PLACE} nowait:bit arguments:table", replies="queue.bind-ok"
    ),
    _method(50, 21, "queue.bind-ok", SERVER),
    _method(50, 30, "queue.purge", CLIENT, "reserved_1:short queue:shortstr nowait:bit", replies="queue.purge-ok"),
    _method(50, 31, "queue.purge-ok", SERVER, "message_count:long"),
    _method(
        50, 40, "queue.delete", CLIENT, "reserved_1:short queue:shortstr if_unused:bit if_empty:bit nowait:bit",
        replies="queue.delete-ok",
    ),
    _method(50, 41, "queue.delete-ok", SERVER, "message_count:long"),
    _method(50, 50, "queue.unbind", CLIENT, f"reserved_1:short queue:shortstr {_PLACE} arguments:table", replies="queue.unbind-ok"),
    _method(50, 51, "queue.unbind-ok", SERVER),
    _method(60, 10, "basic.qos", CLIENT, "prefetch_size:long prefetch_count:short global:bit", replies="basic.qos-ok"),
    _method(60, 11, "basic.qos-ok", SERVER),
    _method(
        60, 20, "basic.consume", CLIENT,
        "reserved_1:short queue:shortstr consumer_tag:shortstr no_local:bit no_ack:bit exclusive:bit nowait:bit arguments:table",
        replies="basic.consume-ok",
    ),
    _method(60, 21, "basic.consume-ok", SERVER, "consumer_tag:shortstr"),
    _method(60, 30, "basic.cancel", BOTH, "consumer_tag:shortstr nowait:bit", replies="basic.cancel-ok"),
    _method(60, 31, "basic.cancel-ok", BOTH, "consumer_tag:shortstr"),
    _method(60, 40, "basic.publish", CLIENT, f"reserved_1:short {_PLACE} mandatory:bit immediate:bit", content=True),
    _method(60, 50, "basic.return", SERVER, f"reply_code:short reply_text:shortstr {_PLACE}", content=True),
    _method(
        60, 60, "basic.deliver", SERVER, f"consumer_tag:shortstr delivery_tag:longlong redelivered:bit {_PLACE}", content=True
    ),
    _method(
        60, 70, "basic.get", CLIENT, "reserved_1:short queue:shortstr no_ack:bit", replies="basic.get-ok basic.get-empty"
    ),
    _method(60, 71, "basic.get-ok", SERVER, f"delivery_tag:longlong redelivered:bit {_PLACE} message_count:long", content=True),
    _method(60, 72, "basic.get-empty", SERVER, "reserved_1:shortstr"),
    _method(60, 80, "basic.ack", BOTH, "delivery_tag:longlong multiple:bit"),
    _method(60, 90, "basic.reject", CLIENT, "delivery_tag:longlong requeue:bit"),
    _method(60, 100, "basic.recover-async", CLIENT, "requeue:bit"),
    _method(60, 110, "basic.recover", CLIENT, "requeue:bit", replies="basic.recover-ok"),
    _method(60, 111, "basic.recover-ok", SERVER),
    _method(60, 120, "basic.nack", BOTH, "delivery_tag:longlong multiple:bit requeue:bit"),
    _method(85, 10, "confirm.select", CLIENT, "nowait:bit", replies="confirm.select-ok"),
    _method(85, 11, "confirm.select-ok", SERVER),
    _method(90, 10, "tx.select", CLIENT, replies="tx.select-ok"),
    _method(90, 11, "tx.select-ok", SERVER),
    _method(90, 20, "tx.commit", CLIENT, replies="tx.commit-ok"),
    _method(90, 21, "tx.commit-ok", SERVER),
    _method(90, 30, "tx.rollback", CLIENT, replies="tx.rollback-ok"),
    _method(90, 31, "tx.rollback-ok", SERVER),
)  # fmt: skip

PROPERTIES: tuple[Field, ...] = _fields(
    "content_type:shortstr content_encoding:shortstr headers:table delivery_mode:octet priority:octet correlation_id:shortstr "
    "reply_to:shortstr expiration:shortstr message_id:shortstr timestamp:timestamp type:shortstr user_id:shortstr "
    "app_id:shortstr cluster_id:shortstr"
)
"""Of class basic, from the flag bit 15 downwards."""

BY_NAME = {method.name: method for method in METHODS}
BY_KEY = {method.key: method for method in METHODS}
