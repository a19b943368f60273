"""Consuming over the engine of `common.amqp`, over every loss of the connection."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from common.amqp.content import Content
from common.amqp.events import Delivered
from common.amqp.states import CHANNEL_OPEN
from common.base.clock import Clock
from common.base.limits import SETTLE_TIMEOUT_S
from common.transport.amqp_channel import AmqpChannel, Lost, Refused
from common.transport.amqp_declare import agreed, declare_queue
from common.transport.amqp_link import AmqpLink, asked
from common.transport.kept_consumer import KeptConsumer, OnceSettled
from common.transport.port import BusUnavailable, Delivery, Queue
from common.transport.rabbit_settings import STREAM_OFFSET

_LOG = logging.getLogger(__name__)
_NO_HEADERS: Mapping[str, Any] = {}


class AmqpConsumer(KeptConsumer[AmqpLink]):
    """Over a channel of our own engine's."""

    def __init__(
        self, link: AmqpLink, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None],
        on_remade: Callable[[], None] | None, clock: Clock,
    ) -> None:  # fmt: skip
        super().__init__(link, queue, prefetch=prefetch, on_delivery=on_delivery, on_remade=on_remade, clock=clock)
        self._is_stream = STREAM_OFFSET in queue.consume_arguments
        self._channel: AmqpChannel | None = None
        self._tag = ""

    @property
    def is_over(self) -> bool:
        return self.is_cancelled and (self._channel is None or self._channel.is_closed or not self._channel.core.unsettled)

    async def _unsubscribe(self) -> None:
        channel = self._channel
        if channel is None or channel.is_closed:
            return
        with suppress(Lost, Refused, TimeoutError):
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                await channel.ask("basic.cancel", consumer_tag=self._tag)
                if self.is_over:
                    await channel.close_soon()

    def settled(self) -> None:
        """One delivery less to wait for."""
        if self.is_cancelled and self.is_over and self._channel is not None:
            self._channel.close_soon()

    async def _end_channel(self) -> None:
        if self._channel is not None:
            self._channel.close_soon()

    async def _is_gone(self) -> bool:
        question = {"queue": self.queue.name, "passive": True}
        try:
            return await asked(self._link, "queue.declare", what=f"queue {self.queue.name}", **question) is None
        except BusUnavailable as exc:
            if exc.retryable:
                raise
            return False  # it is there, and busy or somebody else's: `_begin` says more

    async def _begin(self) -> None:
        await agreed(self._link, self.queue, self._consume, clock=self._clock)

    async def _consume(self, queue: Queue) -> None:
        channel = await self._link.channel(confirms=False)
        ended = self._ended = asyncio.Event()
        try:
            await channel.ask("basic.qos", prefetch_count=self.prefetch)
            await declare_queue(channel, queue, passive=self._goes_on)
            channel.on_cancelled = partial(self._was_cancelled, ended)
            channel.on_delivery = self._take
            self._channel = channel
            answer = await channel.ask("basic.consume", queue=queue.name, arguments=self._consume_arguments())
        except BaseException:
            channel.close_soon()
            raise
        self._tag = answer.method["consumer_tag"]
        channel.on_ended = ended.set
        if channel.is_closed:
            ended.set()

    def _take(self, event: Delivered) -> None:
        """Runs where the bytes arrive, one message after another."""
        channel = self._channel
        if event.content.unreadable or self.is_cancelled or channel is None:
            self._not_taken(event)
            return
        if self._is_stream:
            offset = (event.content.properties.headers or _NO_HEADERS).get(STREAM_OFFSET)
            if isinstance(offset, int):
                self._offset = offset + 1
        self._on_delivery(AmqpDelivery(event, channel, self, self._link))

    def _not_taken(self, event: Delivered) -> None:
        assert self._channel is not None
        if event.content.unreadable:
            _LOG.warning("message of %s refused: %s", self.queue.name, event.content.unreadable)
        self._channel.reject(event.delivery_tag, requeue=not event.content.unreadable)


class Holder(Protocol):
    """Who handed a delivery out and, once `is_cancelled`, wants to know when it is settled."""

    is_cancelled: bool
    prefetch: int

    def settled(self) -> None: ...


class AmqpDelivery(OnceSettled):
    """Implements `common.transport.port.Delivery` and `Routed`."""

    __slots__ = ("_channel", "_content", "_holder", "_tag", "body", "headers", "redelivered")

    def __init__(self, event: Delivered, channel: AmqpChannel, holder: "Holder", link: AmqpLink) -> None:
        self._link = link
        self._is_settled = False
        content: Content = event.content
        self._content = content
        self._tag = event.delivery_tag
        self.body = content.body
        self.headers: Mapping[str, Any] = content.properties.headers or _NO_HEADERS
        self.redelivered = event.redelivered
        self._channel = channel
        self._holder = holder

    @property
    def content_type(self) -> str | None:
        return self._content.properties.content_type

    @property
    def exchange(self) -> str:
        return self._content.exchange

    @property
    def routing_key(self) -> str:
        return self._content.routing_key

    def ack_soon(self) -> None:
        """As `_settle`, without two calls in between: every message comes by here."""
        channel = self._channel
        if self._is_settled or channel.core.state is not CHANNEL_OPEN:
            super().ack_soon()
            return
        self._is_settled = True
        channel.ack_soon(self._tag, self._holder.prefetch)
        if self._holder.is_cancelled:
            self._holder.settled()

    def _sent(self, *, ack: bool, requeue: bool) -> bool:
        if self._channel.is_closed:
            return False
        if ack:
            self._channel.ack(self._tag)
        else:
            self._channel.reject(self._tag, requeue=requeue)
        self._holder.settled()
        return True
