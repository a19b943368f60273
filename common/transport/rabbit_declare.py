"""Declaring exchanges and queues at RabbitMQ, and agreeing with peers that declared them differently.

Source: oslo_messaging/_drivers/impl_rabbit.py: a peer may have been told `amqp_durable_queues` and we not, or the other way.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import aiormq
from aio_pika.exceptions import ChannelPreconditionFailed

from common.transport.port import Exchange, Queue

_CONFLICT = re.compile(r"inequivalent arg 'durable' for (exchange|queue) '([^']*)'")

Declared = TypeVar("Declared", Exchange, Queue)


@dataclass(frozen=True, slots=True)
class Conflict:
    """What the broker holds with the other durability: an "exchange" or a "queue", and its name."""

    kind: str
    name: str


def conflict_of(exc: ChannelPreconditionFailed) -> Conflict | None:
    """None when the broker's 406 is about something else than `durable`."""
    found = _CONFLICT.search(str(exc))
    return Conflict(found[1], found[2]) if found else None


def flipped(wanted: Sequence[Declared], exc: ChannelPreconditionFailed) -> tuple[Declared, ...]:
    """`wanted` with the other durability for the one that the broker's answer names. Raises `exc` when it names none of them."""
    conflict = conflict_of(exc)
    answer = tuple(replace(item, durable=not item.durable) if _is(item, conflict) else item for item in wanted)
    if answer == tuple(wanted):
        raise exc
    return answer


def flipped_queue(queue: Queue, exc: ChannelPreconditionFailed) -> Queue:
    """The same for a queue and the exchanges it is bound to."""
    conflict = conflict_of(exc)
    if _is(queue, conflict):
        return replace(queue, durable=not queue.durable)
    exchanges = flipped([binding.exchange for binding in queue.bindings], exc)
    bindings = tuple(replace(binding, exchange=exchange) for binding, exchange in zip(queue.bindings, exchanges, strict=True))
    return replace(queue, bindings=bindings)


def _is(item: Exchange | Queue, conflict: Conflict | None) -> bool:
    return conflict == Conflict("exchange" if isinstance(item, Exchange) else "queue", item.name)


async def declare_exchange(channel: aiormq.abc.AbstractChannel, exchange: Exchange) -> None:
    """Raises ChannelPreconditionFailed when it is there with other properties."""
    await channel.exchange_declare(
        exchange.name, exchange_type=exchange.kind, durable=exchange.durable, auto_delete=exchange.auto_delete
    )


async def declare_queue(channel: aiormq.abc.AbstractChannel, queue: Queue) -> None:
    """The exchanges, the queue, then its bindings. Raises ChannelPreconditionFailed as `declare_exchange`."""
    for exchange in dict.fromkeys(binding.exchange for binding in queue.bindings):
        await declare_exchange(channel, exchange)
    await channel.queue_declare(
        queue.name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=dict(queue.arguments),
    )
    for binding in queue.bindings:
        await channel.queue_bind(queue.name, binding.exchange.name, binding.key)
