"""Consuming over the engine of `common.amqp`, over every loss of the connection."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from common.amqp.content import Content
from common.amqp.events import Delivered
from common.base.clock import Clock
from common.base.limits import SETTLE_TIMEOUT_S
from common.transport.amqp_channel import AmqpChannel, Lost, Refused
from common.transport.amqp_declare import agreed, declare_queue
from common.transport.amqp_link import AmqpLink, asked
from common.transport.port import BusUnavailable, Delivery, Queue
from common.transport.rabbit_settings import STREAM_OFFSET, pause_s
from common.transport.tasks import end, keep

_LOG = logging.getLogger(__name__)
_NO_HEADERS: Mapping[str, Any] = {}


class AmqpConsumer:
    """Implements `common.transport.port.Consumer`; `start` comes first.

    It has a channel of its own, so `prefetch` and settling are its own too. It begins anew when the channel ends, and when the
    broker cancels it because the queue was deleted or moved.
    """

    def __init__(
        self, link: AmqpLink, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None],
        on_remade: Callable[[], None] | None, clock: Clock,
    ) -> None:  # fmt: skip
        self.queue = queue
        self._on_remade = on_remade
        self._link = link
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._clock = clock
        self._is_stream = STREAM_OFFSET in queue.consume_arguments
        self._channel: AmqpChannel | None = None
        self._tag = ""
        self._ended = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._is_cancelled = False
        self._offset: int | None = None
        """The first message of a stream that was not seen yet."""

    @property
    def is_over(self) -> bool:
        """True when it was cancelled and everything it had handed out is settled or lost."""
        return self._is_cancelled and (self._channel is None or self._channel.is_closed or not self._channel.core.unsettled)

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
        with suppress(Lost, Refused, TimeoutError):
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                await channel.ask("basic.cancel", consumer_tag=self._tag)
                if self.is_over:
                    await channel.close_soon()

    async def stop(self) -> None:
        """Begin no more; the connection is about to be closed."""
        await end(self._keeper)

    def settled(self) -> None:
        """One delivery less to wait for."""
        if self._is_cancelled and self.is_over and self._channel is not None:
            self._channel.close_soon()

    async def _keep(self) -> None:
        while True:
            await self._ended.wait()
            if self._channel is not None:
                self._channel.close_soon()
            if self._link.is_up:
                await self._clock.sleep(self._link.delay_before_again_s())
            await self._begin_again()

    async def _begin_again(self) -> None:
        failures = 0
        while True:
            await self._link.ready()
            try:
                is_remade = (self._on_remade is not None or self._offset is not None) and await self._is_gone()
                if is_remade:
                    self._offset = None
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
        question = {"queue": self.queue.name, "passive": True}
        try:
            return await asked(self._link, "queue.declare", what=f"queue {self.queue.name}", **question) is None
        except BusUnavailable as exc:
            if exc.retryable:
                raise
            return False  # it is there, and busy or somebody else's: `_begin` says more

    async def _begin(self) -> None:
        """Declare, bind and consume."""
        await agreed(self._link, self.queue, self._consume, clock=self._clock)

    async def _consume(self, queue: Queue) -> None:
        channel = await self._link.channel(confirms=False)
        ended = self._ended = asyncio.Event()
        try:
            await channel.ask("basic.qos", prefetch_count=self._prefetch)
            await declare_queue(channel, queue)
            channel.on_cancelled = self._on_cancelled(ended)
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

    def _on_cancelled(self, ended: asyncio.Event) -> Callable[[], None]:
        def on_cancelled() -> None:
            self._offset = None  # the stream was deleted; a new one counts from 0, and would be silent up to this number
            ended.set()

        return on_cancelled

    def _consume_arguments(self) -> dict[str, Any]:
        arguments = dict(self.queue.consume_arguments)
        if self._is_stream and self._offset is not None:
            arguments[STREAM_OFFSET] = self._offset
        return arguments

    def _take(self, event: Delivered) -> None:
        """Runs where the bytes arrive, one message after another."""
        assert self._channel is not None
        if event.content.unreadable or self._is_cancelled:
            self._not_taken(event)
            return
        if self._is_stream:
            offset = (event.content.properties.headers or _NO_HEADERS).get(STREAM_OFFSET)
            if isinstance(offset, int):
                self._offset = offset + 1
        self._on_delivery(AmqpDelivery(event, self._channel, self, url=self._link.url))

    def _not_taken(self, event: Delivered) -> None:
        assert self._channel is not None
        if event.content.unreadable:
            _LOG.warning("message of %s refused: %s", self.queue.name, event.content.unreadable)
        self._channel.reject(event.delivery_tag, requeue=not event.content.unreadable)


class Holder(Protocol):
    """Who handed a delivery out and wants to know when it is settled."""

    def settled(self) -> None: ...


class AmqpDelivery:
    """Implements `common.transport.port.Delivery` and `Routed`."""

    __slots__ = ("_channel", "_content", "_holder", "_is_settled", "_tag", "_url", "redelivered")

    def __init__(self, event: Delivered, channel: AmqpChannel, holder: "Holder", *, url: str) -> None:
        self._content: Content = event.content
        self._tag = event.delivery_tag
        self.redelivered = event.redelivered
        self._channel = channel
        self._holder = holder
        self._url = url
        self._is_settled = False

    @property
    def body(self) -> bytes:
        return self._content.body

    @property
    def content_type(self) -> str | None:
        return self._content.properties.content_type

    @property
    def headers(self) -> Mapping[str, Any]:
        return self._content.properties.headers or _NO_HEADERS

    @property
    def exchange(self) -> str:
        return self._content.exchange

    @property
    def routing_key(self) -> str:
        return self._content.routing_key

    async def ack(self) -> None:
        if not self._settle_by(self._channel.ack):
            raise self._gone()

    def ack_soon(self) -> None:
        self._settle_by(self._channel.ack)

    async def reject(self, *, requeue: bool) -> None:
        if not self._settle_by(lambda tag: self._channel.reject(tag, requeue=requeue)):
            raise self._gone()

    def _settle_by(self, settle: Callable[[int], None]) -> bool:
        """False when the connection is gone."""
        if self._is_settled:
            raise ValueError("this delivery was settled before")
        self._is_settled = True
        if self._channel.is_closed:
            return False
        settle(self._tag)
        self._holder.settled()
        return True

    def _gone(self) -> BusUnavailable:
        return BusUnavailable(url=self._url, reason="the connection that brought the message is gone")
