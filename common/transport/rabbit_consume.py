"""Consuming from RabbitMQ, over every loss of the connection."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Protocol

import aiormq
from aio_pika.exceptions import ChannelNotFoundEntity

from common.base.clock import Clock
from common.base.limits import CONNECT_TIMEOUT_S, SETTLE_TIMEOUT_S
from common.transport.kept_consumer import KeptConsumer, OnceSettled
from common.transport.port import BusUnavailable, Delivery, Queue
from common.transport.rabbit_declare import agreed, declare_queue
from common.transport.rabbit_link import Link, Lost, watched
from common.transport.rabbit_outbox import Settlements
from common.transport.rabbit_settings import STREAM_OFFSET

_LOG = logging.getLogger(__name__)


class RabbitConsumer(KeptConsumer[Link]):
    """Over a channel of aiormq's."""

    def __init__(
        self, link: Link, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None],
        on_remade: Callable[[], None] | None, clock: Clock,
    ) -> None:  # fmt: skip
        super().__init__(link, queue, prefetch=prefetch, on_delivery=on_delivery, on_remade=on_remade, clock=clock)
        self._channel: aiormq.abc.AbstractChannel | None = None
        self._settlements: Settlements | None = None
        self._tag: str | None = None
        self._unsettled: set[RabbitDelivery] = set()

    @property
    def is_over(self) -> bool:
        return self.is_cancelled and not self._unsettled

    async def _unsubscribe(self) -> None:
        channel = self._channel
        if channel is None or channel.is_closed:
            return
        with suppress(Lost, TimeoutError, aiormq.ChannelClosed), watched():
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                await channel.basic_cancel(self._tag or "")
        self._close_when_over()
        await self._link.channels_ended()

    def settled(self, delivery: "RabbitDelivery") -> None:
        """One delivery less to wait for."""
        self._unsettled.discard(delivery)
        if self.is_cancelled:
            self._close_when_over()

    def _close_when_over(self) -> None:
        if self.is_over and self._channel is not None:
            self._link.end_channel_soon(self._channel)

    async def _end_channel(self) -> None:
        if self._channel is not None:
            await self._link.end_channel(self._channel)
        self._unsettled.clear()

    async def _is_gone(self) -> bool:
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
        await agreed(self._link, self.queue, self._consume, clock=self._clock)

    async def _consume(self, queue: Queue) -> None:
        channel = await self._link.channel(confirms=False)
        ended = self._ended = asyncio.Event()
        try:
            with watched():
                await channel.basic_qos(prefetch_count=self.prefetch)
                await declare_queue(channel, queue, passive=self._goes_on)
                channel.on_consumer_cancel_callbacks.add(lambda _: self._was_cancelled(ended))
                run_at_once(channel, self._take)
                self._channel, self._settlements = channel, Settlements(channel)
                answer = await channel.basic_consume(queue.name, self._take, arguments=self._consume_arguments())
        except BaseException:
            await self._link.end_channel(channel)
            raise
        self._tag = answer.consumer_tag
        channel.closing.add_done_callback(lambda _: ended.set())

    async def _take(self, message: aiormq.abc.DeliveredMessage) -> None:
        """Runs in the driver's reader, one message after another: it waits for nothing."""
        assert self._settlements is not None
        delivery = RabbitDelivery(self, message, self._settlements, link=self._link)
        if self.is_cancelled:
            with suppress(BusUnavailable):
                await delivery.reject(requeue=True)
            return
        self._unsettled.add(delivery)
        if isinstance(offset := delivery.headers.get(STREAM_OFFSET), int):
            self._offset = offset + 1
        self._on_delivery(delivery)


def run_at_once(channel: aiormq.abc.AbstractChannel, callback: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """Let `channel` run that callback, which never waits, without the task that the driver makes for each message.

    The task costs a tenth of a call. Should a later driver wrap the callback in something else, it makes its tasks again.
    """
    code, make_task = callback.__code__, channel.create_task

    def create_task(work: Any) -> Any:
        if getattr(work, "cr_code", None) is not code:
            return make_task(work)
        try:
            work.send(None)
        except StopIteration:
            return _Ended()
        raise RuntimeError("a consumer's callback waited")

    channel.create_task = create_task  # type: ignore[assignment, method-assign]  # of this one channel


class _Ended:
    """What the driver sees of a task that is over before it could look; its callback reports errors, of which there is none."""

    def add_done_callback(self, callback: Callable[..., object]) -> None: ...


class Holder(Protocol):
    """Who handed a delivery out and wants to know when it is settled."""

    def settled(self, delivery: "RabbitDelivery") -> None: ...


class RabbitDelivery(OnceSettled):
    """Implements `common.transport.port.Delivery` and `Routed`."""

    __slots__ = ("_holder", "_message", "_settlements")

    def __init__(self, holder: Holder, message: aiormq.abc.DeliveredMessage, settlements: Settlements, *, link: Link) -> None:
        super().__init__(link)
        self._holder = holder
        self._message = message
        self._settlements = settlements
        settlements.delivered(self._delivery_tag)

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

    @property
    def _delivery_tag(self) -> int:
        tag = self._message.delivery_tag
        assert tag is not None
        return tag

    def _sent(self, *, ack: bool, requeue: bool) -> bool:
        is_there = not self._settlements.is_lost
        if is_there and ack:
            self._settlements.ack(self._delivery_tag)
        elif is_there:
            self._settlements.reject(self._delivery_tag, requeue=requeue)
        self._holder.settled(self)
        return is_there
