"""Declaring exchanges and queues at RabbitMQ, and agreeing with peers that declared them differently.

Source: oslo_messaging/_drivers/impl_rabbit.py: a peer may have been told `amqp_durable_queues` and we not, or the other way.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiormq
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

from common.base.clock import Clock
from common.base.limits import CONNECT_TIMEOUT_S
from common.transport.declaring import INTERNAL_ERROR_PAUSE_S, flipped_queue, is_stuck
from common.transport.errors import BusRefused
from common.transport.port import BusUnavailable, Exchange, Queue
from common.transport.rabbit_link import Link, Lost, watched
from common.transport.rabbit_settings import reason_of

_LOG = logging.getLogger(__name__)


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
    may_repeat = True
    while True:
        try:
            return await work(queue)
        except ChannelPreconditionFailed as exc:
            if not flips_left:
                raise
            flips_left -= 1
            other = flipped_queue(queue, str(exc))
            if other is None:
                raise
            queue = other
        except ChannelNotFoundEntity as exc:
            if not may_repeat:
                raise
            may_repeat = False
            if is_stuck(queue, str(exc)):
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


async def declare_exchange(channel: aiormq.abc.AbstractChannel, exchange: Exchange) -> None:
    """Raises ChannelPreconditionFailed when it is there with other properties."""
    await channel.exchange_declare(
        exchange.name, exchange_type=exchange.kind, durable=exchange.durable, auto_delete=exchange.auto_delete
    )


async def declare_queue(channel: aiormq.abc.AbstractChannel, queue: Queue, *, passive: bool = False) -> None:
    """The exchanges, the queue, then its bindings. Raises ChannelPreconditionFailed as `declare_exchange`.

    passive   a queue that is not there is refused (404) and not made
    """
    for exchange in dict.fromkeys(binding.exchange for binding in queue.bindings):
        await declare_exchange(channel, exchange)
    await channel.queue_declare(
        queue.name,
        passive=passive,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=dict(queue.arguments),
    )
    for binding in queue.bindings:
        await channel.queue_bind(queue.name, binding.exchange.name, binding.key)
