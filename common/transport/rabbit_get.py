"""Taking single messages from RabbitMQ (`basic.get`), for tools that look into a queue."""

import asyncio
from contextlib import suppress

import aiormq
from aio_pika.exceptions import ChannelNotFoundEntity

from common.base.limits import CONNECT_TIMEOUT_S
from common.transport.errors import BusRefused
from common.transport.port import BusUnavailable
from common.transport.rabbit_consume import RabbitDelivery
from common.transport.rabbit_link import Link, Lost, reason_of, watched


class Getter:
    """Each message comes on a channel of its own, which ends when it is settled: a tool holds few, and for a short time."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def get(self, queue: str) -> RabbitDelivery | None:
        """The oldest waiting message; None when there is none or no such queue. Raises BusUnavailable, BusRefused."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await self._get(queue)
        except ChannelNotFoundEntity:
            return None
        except aiormq.ChannelClosed as exc:
            raise BusRefused(url=self._link.url, what=f"a message of queue {queue}", reason=reason_of(exc)) from exc
        except (Lost, TimeoutError) as exc:
            raise BusUnavailable(url=self._link.url, reason=str(exc) or f"no answer about queue {queue}") from exc

    async def _get(self, queue: str) -> RabbitDelivery | None:
        channel = await self._link.channel(confirms=False)
        message = None
        try:
            with watched():
                message = await channel.basic_get(queue)
        finally:
            if message is None or message.delivery_tag is None:
                await self._link.end_channel(channel)
        if message.delivery_tag is None:
            return None
        return RabbitDelivery(_Channel(self._link, channel), message, url=self._link.url)


class _Channel:
    """Implements `Holder`: the channel of one message."""

    def __init__(self, link: Link, channel: aiormq.abc.AbstractChannel) -> None:
        self._link = link
        self._channel = channel

    async def settled(self, delivery: RabbitDelivery) -> None:  # noqa: ARG002 - it is the only one
        with suppress(Lost):
            await self._link.end_channel(self._channel)
