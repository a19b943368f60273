"""Taking single messages (`basic.get`) over the engine of `common.amqp`, for tools that look into a queue."""

import asyncio

from common.amqp.events import Delivered
from common.base.limits import CONNECT_TIMEOUT_S
from common.transport.amqp_channel import AmqpChannel, Lost, Refused
from common.transport.amqp_consume import AmqpDelivery
from common.transport.amqp_link import AmqpLink
from common.transport.errors import BusRefused
from common.transport.port import BusUnavailable

_NOT_FOUND = 404


class AmqpGetter:
    """Implements `amqp_consume.Holder`: one channel for all messages in hand; it ends when the last one is settled."""

    is_cancelled = True
    prefetch = 1

    def __init__(self, link: AmqpLink) -> None:
        self._link = link
        self._channel: AmqpChannel | None = None
        self._turn = asyncio.Lock()

    async def get(self, queue: str) -> AmqpDelivery | None:
        """The oldest waiting message; None when there is none or no such queue. Raises BusUnavailable, BusRefused."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S), self._turn:
                return await self._get(queue)
        except Refused as exc:
            if exc.code == _NOT_FOUND:
                return None
            raise BusRefused(url=self._link.url, what=f"a message of queue {queue}", reason=str(exc)) from exc
        except (Lost, TimeoutError) as exc:
            raise BusUnavailable(url=self._link.url, reason=str(exc) or f"no answer about queue {queue}") from exc

    def settled(self) -> None:
        """One less in hand."""
        if self._channel is not None and not self._channel.core.unsettled:
            channel, self._channel = self._channel, None
            channel.close_soon()

    async def _get(self, queue: str) -> AmqpDelivery | None:
        # A queue that is not there costs the channel: it is asked for on another one, while messages are in hand.
        if self._channel is not None and self._channel.core.unsettled:
            async with self._link.short_channel() as channel:
                await channel.ask("queue.declare", queue=queue, passive=True)
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._link.channel(confirms=False)
        channel = self._channel
        try:
            answer = await channel.ask("basic.get", queue=queue)
        except BaseException:
            self.settled()
            raise
        if answer.content is None:
            self.settled()
            return None
        method = answer.method
        event = Delivered(channel.core.number, "", method["delivery_tag"], method["redelivered"], answer.content)
        return AmqpDelivery(event, channel, self, self._link)
