"""Publishing to RabbitMQ with confirms."""

import asyncio
from dataclasses import dataclass

import aiormq
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError, PublishError

from common.base.clock import Clock
from common.base.errors import Timeout
from common.transport.declaring import flipped
from common.transport.errors import BusRefused, address
from common.transport.port import BusUnavailable, Exchange, Message, Unroutable
from common.transport.rabbit_declare import declare_exchange
from common.transport.rabbit_link import Link, Lost, watched
from common.transport.rabbit_outbox import Outbox
from common.transport.rabbit_settings import pause_s, reason_of

DECLARATIONS_MAX = 4
"""Tries to publish to an exchange that is gone each time, before it is called a refusal."""


NACKS_MAX = 5
"""Tries to publish what the broker does not take, before it is called away: some three seconds."""


class Publisher:
    """Publishes over one link.

    Exchanges that delete themselves have a channel of their own, used by one message at a time: when such an exchange is gone,
    the broker closes the channel, and no other message shall lose its confirm by that.
    """

    def __init__(self, link: Link, *, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._steady = _Lane(link)
        self._fleeting = _Lane(link)
        self._turn = asyncio.Lock()

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        """Returns with the broker's confirm.

        A message whose confirm was lost with the connection is sent again: its queue may then hold it twice.
        Raises Unroutable, BusUnavailable (its field `is_sent`: the broker may have the message all the same), Timeout, Closed.
        """
        lane = self._fleeting if message.exchange is not None and message.exchange.auto_delete else self._steady
        sending = _Sending(message)
        try:
            async with asyncio.timeout(timeout_s):
                if lane is self._fleeting:
                    async with self._turn:
                        await self._publish(lane, sending)
                else:
                    await self._publish(lane, sending)
        except TimeoutError as exc:
            if not self._link.is_up:
                raise BusUnavailable(url=self._link.url, reason=self._link.reason, is_sent=sending.is_begun) from exc
            raise Timeout(what=f"the message bus's confirm of a message to {address(message)}", timeout_s=timeout_s) from exc

    async def _publish(self, lane: "_Lane", sending: "_Sending") -> None:
        message = sending.message
        failures = missing = nacks = 0
        while True:
            try:
                await lane.publish(sending)
            except Lost:
                failures += 1
                await self._clock.sleep(pause_s(failures))
            except PublishError as exc:
                raise Unroutable(address=address(message)) from exc
            except DeliveryError as exc:
                # basic.nack: no queue has it, so it may be sent again.
                nacks += 1
                if nacks < NACKS_MAX:
                    await self._clock.sleep(pause_s(nacks))
                    continue
                raise BusUnavailable(url=self._link.url, reason=f"it did not take a message to {address(message)}") from exc
            except ChannelNotFoundEntity as exc:
                missing += 1
                if missing == DECLARATIONS_MAX:
                    raise self._refused(message, exc) from exc
            except aiormq.ChannelClosed as exc:
                raise self._refused(message, exc) from exc
            else:
                return

    def _refused(self, message: Message, exc: aiormq.ChannelClosed) -> BusRefused:
        return BusRefused(url=self._link.url, what=f"a message to {address(message)}", reason=reason_of(exc))


@dataclass(slots=True)
class _Sending:
    """A message, and whether it was ever given to a connection."""

    message: Message
    is_begun: bool = False


class _Lane:
    """One channel with confirms, opened again after a loss, and the exchanges that were declared since it was opened."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._outbox: Outbox | None = None
        self._declared: set[Exchange] = set()
        self._lock = asyncio.Lock()

    async def publish(self, sending: "_Sending") -> None:
        """Returns with the confirm. Raises Lost, and what the broker answers."""
        message = sending.message
        exchange, outbox = message.exchange, self._outbox
        if outbox is None or outbox.channel.is_closed or (exchange is not None and exchange not in self._declared):
            outbox = await self._open(exchange)
        confirm = outbox.publish(message)
        sending.is_begun = True
        with watched():
            await confirm

    async def _open(self, exchange: Exchange | None) -> Outbox:
        async with self._lock:
            if self._outbox is None or self._outbox.channel.is_closed:
                self._outbox = Outbox(await self._link.channel(confirms=True))
                self._declared.clear()
            if exchange is not None and exchange not in self._declared:
                with watched():
                    await self._declare(exchange)
                self._declared.add(exchange)
            return self._outbox

    async def _declare(self, exchange: Exchange) -> None:
        """On a channel of its own: neither a refusal nor a cancelled caller shall close the one where others wait for confirms."""
        try:
            async with self._link.short_channel() as channel:
                await declare_exchange(channel, exchange)
        except ChannelPreconditionFailed as exc:
            other = flipped((exchange,), str(exc))
            if other is None:
                raise
            async with self._link.short_channel() as channel:
                await declare_exchange(channel, *other)
