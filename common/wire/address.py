"""Names on the bus, as oslo.messaging's rabbit driver makes them (oslo-wire 2.1, 2.2)."""

from common.base.ids import new_hex

_NAME_MAX = 255
"""Bytes of a short string of AMQP."""


def routing_key(topic: str, server: str | None) -> str:
    """`<topic>` for any server, `<topic>.<server>` for one. It is also the name of the queue."""
    return topic if server is None else f"{topic}.{server}"


def fanout_exchange(topic: str) -> str:
    """The exchange that reaches every server of a topic. The control exchange is not part of its name (oslo-wire 13.14)."""
    return f"{topic}_fanout"


def fanout_queue(topic: str) -> str:
    """A new name for one server's own fanout queue."""
    return f"{topic}_fanout_{new_hex()}"


def reply_queue() -> str:
    """A new name for one client's replies."""
    return f"reply_{new_hex()}"


def cancel_exchange(topic: str) -> str:
    """The fanout exchange by which callers tell the servers of a topic that they left. No other framework's peer is bound to it."""
    return f"{topic}_cancel"


def dead_letter_queue(topic: str) -> str:
    """Where a topic's servers put messages that they can do nothing with."""
    return f"{topic}_dead_letter"


def is_reply_queue(name: str) -> bool:
    """True for names that peers give their reply queues; a reply goes nowhere else, whatever a request asks."""
    return name.startswith("reply_") and len(name) <= _NAME_MAX
