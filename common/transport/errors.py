"""What the transports refuse in one voice."""

from common.base.limits import MESSAGE_BYTES_MAX
from common.transport.port import BusUnavailable, Message, MessageTooLarge


class BusRefused(BusUnavailable):
    """The message bus {url} refuses {what}: {reason}"""

    retryable = False


def check_size(message: Message) -> None:
    """Raises MessageTooLarge for a body that no receiver would take."""
    if len(message.body) > MESSAGE_BYTES_MAX:
        raise MessageTooLarge(size_bytes=len(message.body), limit_bytes=MESSAGE_BYTES_MAX)


def check_prefetch(prefetch: int) -> None:
    """Raises ValueError below 1: AMQP reads 0 as "no limit", and nothing here is without one."""
    if prefetch < 1:
        raise ValueError(f"prefetch is {prefetch}; wanted: 1 or more")


def address(message: Message) -> str:
    """Where a message goes, as people read it: `exchange/key`, or the queue's name."""
    return f"{message.exchange.name}/{message.key}" if message.exchange else f"queue {message.key}"
