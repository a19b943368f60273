"""Declaring exchanges and queues at RabbitMQ, and agreeing with peers that declared them differently.

Source: oslo_messaging/_drivers/impl_rabbit.py: a peer may have been told `amqp_durable_queues` and we not, or the other way.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import aiormq
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

from common.base.clock import Clock
from common.base.limits import CONNECT_TIMEOUT_S
from common.transport.errors import BusRefused
from common.transport.port import BusUnavailable, Exchange, Queue
from common.transport.rabbit_link import Link, Lost, reason_of, watched

INTERNAL_ERROR_PAUSE_S = 2.0
"""oslo.messaging's wait after a 541, "INTERNAL_ERROR"."""

_LOG = logging.getLogger(__name__)

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
    """The same for a queue and the exchanges it is bound to.

    Where the broker names an exchange, the queue follows it: an oslo.messaging peer that meets a transient exchange declares both
    as transient, and one that does not know how to follow a durable exchange does not get as far as this queue. A queue with a type
    of its own (quorum, stream) stays as it is: the broker has it durable or not at all.
    """
    if _is(queue, conflict_of(exc)):
        return replace(queue, durable=not queue.durable)
    exchanges = flipped([binding.exchange for binding in queue.bindings], exc)
    bindings = tuple(replace(binding, exchange=exchange) for binding, exchange in zip(queue.bindings, exchanges, strict=True))
    follows = "x-queue-type" not in queue.arguments and "x-expires" not in queue.arguments
    durable = all(exchange.durable for exchange in exchanges) if follows else queue.durable
    return replace(queue, bindings=bindings, durable=durable)


async def agreed(link: Link, queue: Queue, work: Callable[[Queue], Awaitable[None]], *, clock: Clock) -> None:
    """Do `work`, which declares the queue, until the broker takes it (oslo-wire 2.4).

    It is given the queue in the durability that the broker insists on; a queue that is stuck on a node that is down is deleted
    once, with what it holds; after an internal error of the broker it is tried once more.
    Raises BusUnavailable within CONNECT_TIMEOUT_S, BusRefused.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            try:
                await _agreed(link, queue, work)
            except Lost as exc:
                if not _is_internal_error(exc):
                    raise
                _LOG.warning("internal error of %s at the declaration of queue %s; it is tried once more", link.url, queue.name)
                await clock.sleep(INTERNAL_ERROR_PAUSE_S)
                await _agreed(link, queue, work)
    except aiormq.ChannelClosed as exc:
        raise BusRefused(url=link.url, what=f"queue {queue.name}", reason=reason_of(exc)) from exc
    except Lost as exc:
        raise BusUnavailable(url=link.url, reason=str(exc)) from exc
    except TimeoutError as exc:
        reason = f"queue {queue.name} could not be declared within {CONNECT_TIMEOUT_S:g} s"
        raise BusUnavailable(url=link.url, reason=reason) from exc


async def declare_alone(link: Link, queue: Queue, *, clock: Clock) -> None:
    """Make a queue that nobody here consumes. Raises BusUnavailable, BusRefused."""

    async def declare(wanted: Queue) -> None:
        async with link.short_channel() as channel:
            with watched():
                await declare_queue(channel, wanted)

    await agreed(link, queue, declare, clock=clock)


async def _agreed(link: Link, queue: Queue, work: Callable[[Queue], Awaitable[None]]) -> None:
    flips_left = 1 + len(queue.bindings)
    may_delete = True
    while True:
        try:
            return await work(queue)
        except ChannelPreconditionFailed as exc:
            if not flips_left:
                raise
            flips_left -= 1
            queue = flipped_queue(queue, exc)
        except ChannelNotFoundEntity as exc:
            if not may_delete:
                raise
            may_delete = False
            if f"queue '{queue.name}'" in str(exc):
                _LOG.warning("queue %s is stuck and deleted: %s", queue.name, reason_of(exc))
                await _delete(link, queue.name)


async def _delete(link: Link, name: str) -> None:
    """Whatever the broker says to that: the next declaration shows whether it helped."""
    with suppress(aiormq.ChannelClosed):
        async with link.short_channel() as channel:
            with watched():
                await channel.queue_delete(name)


def _is_internal_error(exc: Lost) -> bool:
    return isinstance(exc.__cause__, aiormq.exceptions.ConnectionInternalError) or "INTERNAL_ERROR" in str(exc)


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
