"""RabbitMQ as a transport, in the forms of oslo.messaging's rabbit driver."""

import asyncio
from collections.abc import Awaitable, Callable

import aiormq
from aio_pika.exceptions import ChannelNotFoundEntity

from common.base.clock import Clock
from common.base.limits import CONNECT_TIMEOUT_S
from common.transport.errors import BusRefused
from common.transport.kept_transport import KeptTransport
from common.transport.port import BusUnavailable, Message, Queue, QueueDepth
from common.transport.rabbit_consume import RabbitConsumer
from common.transport.rabbit_declare import declare_alone
from common.transport.rabbit_get import Getter
from common.transport.rabbit_link import Link, Lost, watched
from common.transport.rabbit_publish import Publisher
from common.transport.rabbit_settings import reason_of
from common.wire.compression import Compression


class RabbitTransport(KeptTransport[Link]):
    """Implements `common.transport.port.Transport` over aio-pika."""

    make_link = Link
    make_consumer = RabbitConsumer

    def __init__(self, outgoing: Link, incoming: Link, *, clock: Clock, compression: Compression | None = None) -> None:
        super().__init__(outgoing, incoming, clock=clock, compression=compression)
        self._publisher = Publisher(outgoing, clock=clock)
        self._getter = Getter(incoming)

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        await self._publisher.publish(self._checked(message), timeout_s=timeout_s)

    async def declare(self, queue: Queue) -> None:
        self._check_open()
        await declare_alone(self._outgoing, queue, clock=self._clock)

    async def delete_queue(self, name: str) -> None:
        async def delete(channel: aiormq.abc.AbstractChannel) -> None:
            await channel.queue_delete(name)

        await self._ask(f"the deletion of queue {name}", delete)

    async def depth(self, queue: str) -> QueueDepth | None:
        found: list[QueueDepth] = []

        async def count(channel: aiormq.abc.AbstractChannel) -> None:
            answer = await channel.queue_declare(queue, passive=True)
            found.append(QueueDepth(answer.message_count or 0, consumers=answer.consumer_count or 0))

        await self._ask(f"a question for queue {queue}", count)
        return found[0] if found else None

    async def _ask(self, what: str, question: Callable[[aiormq.abc.AbstractChannel], Awaitable[None]]) -> None:
        """Do something on a channel that may be lost by it; a thing that is not there is no error."""
        self._check_open()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S), self._asking.short_channel() as channel:
                with watched():
                    await question(channel)
        except ChannelNotFoundEntity:
            return
        except aiormq.ChannelClosed as exc:
            raise BusRefused(url=self.url, what=what, reason=reason_of(exc)) from exc
        except (Lost, TimeoutError) as exc:
            raise BusUnavailable(url=self.url, reason=str(exc) or f"no answer to {what}") from exc
