"""Consuming from RabbitMQ, over every loss of the connection."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import aiormq
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

from common.base.clock import Clock
from common.base.limits import CONNECT_TIMEOUT_S, SETTLE_TIMEOUT_S
from common.transport.errors import BusRefused
from common.transport.port import BusUnavailable, Delivery, Queue
from common.transport.rabbit_declare import declare_queue, flipped_queue
from common.transport.rabbit_link import Link, Lost, pause_s, reason_of, watched
from common.transport.tasks import end, keep

_LOG = logging.getLogger(__name__)


class RabbitConsumer:
    """Implements `common.transport.port.Consumer`; `start` comes first.

    It has a channel of its own, so `prefetch` and settling are its own too. It begins anew when the channel ends, and when the
    broker cancels it because the queue was deleted or moved.
    """

    def __init__(
        self, link: Link, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None],
        on_remade: Callable[[], None] | None, clock: Clock,
    ) -> None:  # fmt: skip
        self.queue = queue
        self._on_remade = on_remade
        self._link = link
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._clock = clock
        self._channel: aiormq.abc.AbstractChannel | None = None
        self._tag: str | None = None
        self._unsettled: set[RabbitDelivery] = set()
        self._ended = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._is_cancelled = False

    @property
    def is_over(self) -> bool:
        """True when it was cancelled and everything it had handed out is settled or lost."""
        return self._is_cancelled and not self._unsettled

    async def start(self) -> None:
        """Returns when the queue is there and consumed. Raises BusUnavailable, BusRefused, Closed."""
        await self._begin()
        self._keeper = keep(self._keep(), name=f"consumes {self.queue.name}")

    async def cancel(self) -> None:
        if self._is_cancelled:
            return
        self._is_cancelled = True
        await self.stop()
        channel = self._channel
        if channel is None or channel.is_closed:
            return
        with suppress(Lost, TimeoutError, aiormq.ChannelClosed), watched():
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                await channel.basic_cancel(self._tag or "")
        await self._close_when_over()

    async def stop(self) -> None:
        """Begin no more; the connection is about to be closed."""
        await end(self._keeper)

    async def settled(self, delivery: "RabbitDelivery") -> None:
        """One delivery less to wait for."""
        self._unsettled.discard(delivery)
        await self._close_when_over()

    async def _close_when_over(self) -> None:
        if self.is_over and self._channel is not None:
            await self._link.end_channel(self._channel)

    async def _keep(self) -> None:
        while True:
            await self._ended.wait()
            if self._channel is not None:
                await self._link.end_channel(self._channel)
            self._unsettled.clear()
            await self._begin_again()

    async def _begin_again(self) -> None:
        failures = 0
        while True:
            await self._link.ready()
            try:
                is_remade = self._on_remade is not None and await self._is_gone()
                await self._begin()
            except BusUnavailable as exc:
                failures += 1
                _LOG.warning("cannot consume %s again: %s", self.queue.name, exc)
                await self._clock.sleep(pause_s(failures))
            else:
                if is_remade and self._on_remade is not None:
                    self._on_remade()
                return

    async def _is_gone(self) -> bool:
        """True when the broker no longer knows the queue. Raises BusUnavailable."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S), self._link.short_channel() as channel:
                with watched():
                    await channel.queue_declare(self.queue.name, passive=True)
        except ChannelNotFoundEntity:
            return True
        except aiormq.ChannelClosed:  # it is there, and busy or somebody else's: `_begin` says more
            return False
        except (Lost, TimeoutError) as exc:
            raise BusUnavailable(url=self._link.url, reason=str(exc) or f"no answer about queue {self.queue.name}") from exc
        return False

    async def _begin(self) -> None:
        await agreed(self._link, self.queue, self._consume)

    async def _consume(self, queue: Queue) -> None:
        channel = await self._link.channel(confirms=False)
        ended = self._ended = asyncio.Event()
        try:
            with watched():
                await channel.basic_qos(prefetch_count=self._prefetch)
                await declare_queue(channel, queue)
                channel.on_consumer_cancel_callbacks.add(_sets(ended))
                self._channel = channel
                answer = await channel.basic_consume(queue.name, self._take)
        except BaseException:
            await self._link.end_channel(channel)
            raise
        self._tag = answer.consumer_tag
        channel.closing.add_done_callback(lambda _: ended.set())

    async def _take(self, message: aiormq.abc.DeliveredMessage) -> None:
        """The driver runs one task for each message, in their order; nothing before the callback may yield."""
        delivery = RabbitDelivery(self, message, url=self._link.url)
        if self._is_cancelled:
            with suppress(BusUnavailable):
                await delivery.reject(requeue=True)
            return
        self._unsettled.add(delivery)
        self._on_delivery(delivery)


async def agreed(link: Link, queue: Queue, work: Callable[[Queue], Awaitable[None]]) -> None:
    """Do `work` with the queue in the durability that the broker insists on. Raises BusUnavailable, BusRefused."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            for _ in range(2 + len(queue.bindings)):
                try:
                    return await work(queue)
                except ChannelPreconditionFailed as exc:
                    queue = flipped_queue(queue, exc)
    except aiormq.ChannelClosed as exc:
        raise BusRefused(url=link.url, what=f"queue {queue.name}", reason=reason_of(exc)) from exc
    except Lost as exc:
        raise BusUnavailable(url=link.url, reason=str(exc)) from exc
    except TimeoutError as exc:
        reason = f"queue {queue.name} could not be declared within {CONNECT_TIMEOUT_S:g} s"
        raise BusUnavailable(url=link.url, reason=reason) from exc
    raise BusRefused(url=link.url, what=f"queue {queue.name}", reason="its durability changes all the time")


async def declare_alone(link: Link, queue: Queue) -> None:
    """Make a queue that nobody here consumes. Raises BusUnavailable, BusRefused."""

    async def declare(wanted: Queue) -> None:
        async with link.short_channel() as channel:
            with watched():
                await declare_queue(channel, wanted)

    await agreed(link, queue, declare)


def _sets(event: asyncio.Event) -> Callable[[aiormq.spec.Basic.Cancel], None]:
    def on_cancel(_: aiormq.spec.Basic.Cancel) -> None:
        event.set()

    return on_cancel


class Holder(Protocol):
    """Who handed a delivery out and wants to know when it is settled."""

    async def settled(self, delivery: "RabbitDelivery") -> None: ...


class RabbitDelivery:
    """Implements `common.transport.port.Delivery` and `Routed`."""

    def __init__(self, consumer: Holder, message: aiormq.abc.DeliveredMessage, *, url: str) -> None:
        self._consumer = consumer
        self._message = message
        self._url = url
        self._is_settled = False

    @property
    def body(self) -> bytes:
        return self._message.body

    @property
    def content_type(self) -> str | None:
        return self._message.header.properties.content_type

    @property
    def headers(self) -> Mapping[str, Any]:
        return self._message.header.properties.headers or {}

    @property
    def redelivered(self) -> bool:
        return bool(self._message.redelivered)

    @property
    def exchange(self) -> str:
        return self._message.exchange or ""

    @property
    def routing_key(self) -> str:
        return self._message.routing_key or ""

    async def ack(self) -> None:
        await self._settle(lambda channel, tag: channel.basic_ack(tag))

    async def reject(self, *, requeue: bool) -> None:
        await self._settle(lambda channel, tag: channel.basic_reject(tag, requeue=requeue))

    async def _settle(self, tell: Callable[[aiormq.abc.AbstractChannel, int], Any]) -> None:
        if self._is_settled:
            raise ValueError("this delivery was settled before")
        self._is_settled = True
        tag = self._message.delivery_tag
        assert tag is not None
        try:
            with watched():
                async with asyncio.timeout(SETTLE_TIMEOUT_S):
                    await tell(self._message.channel, tag)
        except (Lost, TimeoutError) as exc:
            raise BusUnavailable(url=self._url, reason="the connection that brought the message is gone") from exc
        finally:
            await self._consumer.settled(self)
