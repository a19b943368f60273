"""Taking single messages from RabbitMQ (`basic.get`), for tools that look into a queue."""

import asyncio
from contextlib import suppress

import aiormq
from aio_pika.exceptions import ChannelNotFoundEntity

from common.base.limits import CONNECT_TIMEOUT_S
from common.transport.errors import BusRefused
from common.transport.port import BusUnavailable
from common.transport.rabbit_consume import RabbitDelivery
from common.transport.rabbit_link import Link, Lost, watched
from common.transport.rabbit_outbox import Settlements
from common.transport.rabbit_settings import reason_of


class Getter:
    """One channel for all messages in hand; it ends when the last one is settled."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: aiormq.abc.AbstractChannel | None = None
        self._settlements: Settlements | None = None
        self._held: set[RabbitDelivery] = set()
        self._turn = asyncio.Lock()

    async def get(self, queue: str) -> RabbitDelivery | None:
        """The oldest waiting message; None when there is none or no such queue. Raises BusUnavailable, BusRefused."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S), self._turn:
                return await self._get(queue)
        except ChannelNotFoundEntity:
            return None
        except aiormq.ChannelClosed as exc:
            raise BusRefused(url=self._link.url, what=f"a message of queue {queue}", reason=reason_of(exc)) from exc
        except (Lost, TimeoutError) as exc:
            raise BusUnavailable(url=self._link.url, reason=str(exc) or f"no answer about queue {queue}") from exc

    def settled(self, delivery: RabbitDelivery) -> None:
        """One less in hand."""
        self._held.discard(delivery)
        if not self._held and self._channel is not None:
            channel, self._channel = self._channel, None
            self._link.end_channel_soon(channel)

    async def _get(self, queue: str) -> RabbitDelivery | None:
        # A queue that is not there costs the channel: it is asked for on another one, while messages are in hand.
        if self._held:
            async with self._link.short_channel() as channel:
                with watched():
                    await channel.queue_declare(queue, passive=True)
        if self._channel is None or self._channel.is_closed:
            self._held.clear()
            self._channel = await self._link.channel(confirms=False)
            self._settlements = Settlements(self._channel)
        try:
            with watched():
                message = await self._channel.basic_get(queue)
        except BaseException:
            await self._end_when_empty()
            raise
        if message.delivery_tag is None:
            await self._end_when_empty()
            return None
        assert self._settlements is not None
        delivery = RabbitDelivery(self, message, self._settlements, link=self._link)
        self._held.add(delivery)
        return delivery

    async def _end_when_empty(self) -> None:
        channel = self._channel
        if channel is not None and not self._held:
            self._channel = None
            with suppress(Lost):
                await self._link.end_channel(channel)
