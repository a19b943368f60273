"""Declaring exchanges and queues over the engine of `common.amqp`, and agreeing with peers that declared them differently."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from common.base.clock import Clock
from common.base.limits import CONNECT_TIMEOUT_S
from common.transport.amqp_channel import AmqpChannel, Lost, Refused
from common.transport.amqp_link import AmqpLink
from common.transport.declaring import INTERNAL_ERROR_PAUSE_S, flipped_queue, is_stuck
from common.transport.errors import BusRefused
from common.transport.port import BusUnavailable, Exchange, Queue

_NOT_FOUND, _PRECONDITION_FAILED, _INTERNAL_ERROR = 404, 406, 541
_LOG = logging.getLogger(__name__)


async def agreed(link: AmqpLink, queue: Queue, work: Callable[[Queue], Awaitable[None]], *, clock: Clock) -> None:
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
                if exc.code != _INTERNAL_ERROR:
                    raise
                _LOG.warning("internal error of %s at the declaration of queue %s; it is tried once more", link.url, queue.name)
                await clock.sleep(INTERNAL_ERROR_PAUSE_S)
                await _agreed(link, queue, work)
    except Refused as exc:
        raise BusRefused(url=link.url, what=f"queue {queue.name}", reason=str(exc)) from exc
    except Lost as exc:
        raise BusUnavailable(url=link.url, reason=str(exc)) from exc
    except TimeoutError as exc:
        reason = f"queue {queue.name} could not be declared within {CONNECT_TIMEOUT_S:g} s"
        raise BusUnavailable(url=link.url, reason=reason) from exc


async def declare_alone(link: AmqpLink, queue: Queue, *, clock: Clock) -> None:
    """Make a queue that nobody here consumes. Raises BusUnavailable, BusRefused."""

    async def declare(wanted: Queue) -> None:
        async with link.short_channel() as channel:
            await declare_queue(channel, wanted)

    await agreed(link, queue, declare, clock=clock)


async def _agreed(link: AmqpLink, queue: Queue, work: Callable[[Queue], Awaitable[None]]) -> None:
    flips_left = 1 + len(queue.bindings)
    may_repeat = True
    while True:
        try:
            return await work(queue)
        except Refused as exc:
            if exc.code == _PRECONDITION_FAILED:
                other = flipped_queue(queue, str(exc))
                if other is None or not flips_left:
                    raise
                flips_left -= 1
                queue = other
            elif exc.code == _NOT_FOUND and may_repeat:
                may_repeat = False
                if is_stuck(queue, str(exc)):
                    _LOG.warning("queue %s is stuck and deleted: %s", queue.name, exc)
                    await _delete(link, queue.name)
            else:
                raise


async def _delete(link: AmqpLink, name: str) -> None:
    """Whatever the broker says to that: the next declaration shows whether it helped."""
    with suppress(Refused):
        async with link.short_channel() as channel:
            await channel.ask("queue.delete", queue=name)


async def declare_exchange(channel: AmqpChannel, exchange: Exchange) -> None:
    """Raises Refused (406) when it is there with other properties."""
    await channel.ask(
        "exchange.declare", exchange=exchange.name, type=exchange.kind, durable=exchange.durable, auto_delete=exchange.auto_delete
    )


async def declare_queue(channel: AmqpChannel, queue: Queue, *, passive: bool = False) -> None:
    """The exchanges, the queue, then its bindings. Raises Refused as `declare_exchange`.

    passive   a queue that is not there is refused (404) and not made
    """
    for exchange in dict.fromkeys(binding.exchange for binding in queue.bindings):
        await declare_exchange(channel, exchange)
    await channel.ask(
        "queue.declare",
        queue=queue.name,
        passive=passive,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=dict(queue.arguments),
    )
    for binding in queue.bindings:
        await channel.ask("queue.bind", queue=queue.name, exchange=binding.exchange.name, routing_key=binding.key)
