"""RabbitMQ as a transport, in the forms of oslo.messaging's rabbit driver."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Self

import aiormq
from aio_pika.exceptions import ChannelNotFoundEntity
from msgspec.structs import replace as changed

from common.base.clock import Clock
from common.base.limits import CONNECT_TIMEOUT_S
from common.transport.errors import BusRefused, check_prefetch, check_size
from common.transport.port import BusUnavailable, Closed, Delivery, Lack, Message, Queue, QueueDepth
from common.transport.rabbit_consume import RabbitConsumer
from common.transport.rabbit_declare import declare_alone
from common.transport.rabbit_get import Getter
from common.transport.rabbit_link import Link, Lost, watched
from common.transport.rabbit_publish import Publisher
from common.transport.rabbit_settings import RabbitSettings, reason_of, shuffled
from common.transport.rabbit_url import RabbitUrl
from common.wire.compression import HEADER, Compression, compressed

_DEFAULTS = RabbitSettings()


class RabbitTransport:
    """Implements `common.transport.port.Transport`.

    It publishes over one connection and consumes over another, made with the first consumer: a broker that runs out of memory
    stops to read from connections that publish, and would not see their acks either.
    """

    def __init__(self, outgoing: Link, incoming: Link, *, clock: Clock, compression: Compression | None = None) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._clock = clock
        self._compression = compression
        self._publisher = Publisher(outgoing, clock=clock)
        self._getter = Getter(incoming)
        self._consumers: dict[RabbitConsumer, None] = {}
        self._opening = asyncio.Lock()
        self._is_consuming = False
        self._is_closed = False

    @classmethod
    async def connect(cls, where: RabbitUrl, *, clock: Clock, connection_name: str, settings: RabbitSettings = _DEFAULTS) -> Self:
        """A transport with its first connection. Raises BusUnavailable within CONNECT_TIMEOUT_S, BusRefused, Misconfigured."""
        where = replace(where, hosts=tuple(shuffled(where.hosts, random.SystemRandom())))
        outgoing, incoming = (
            Link(where, clock=clock, connection_name=f"{connection_name}:{use}", settings=settings)
            for use in ("publish", "consume")
        )
        await outgoing.open()
        return cls(outgoing, incoming, clock=clock, compression=settings.compression)

    @property
    def lacks(self) -> frozenset[Lack]:
        return frozenset()

    @property
    def url(self) -> str:
        return self._outgoing.url

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        self._check_open()
        check_size(message)
        if self._compression is not None and HEADER not in message.headers:  # a dead letter may be compressed already
            body, header = compressed(message.body, self._compression)
            message = changed(message, body=body, headers={**message.headers, **header})
        await self._publisher.publish(message, timeout_s=timeout_s)

    async def consume(
        self, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None], on_remade: Callable[[], None] | None = None
    ) -> RabbitConsumer:
        self._check_open()
        check_prefetch(prefetch)
        await self._open_incoming()
        consumer = RabbitConsumer(
            self._incoming, queue, prefetch=prefetch, on_delivery=on_delivery, on_remade=on_remade, clock=self._clock
        )
        await consumer.start()
        self._consumers = {held: None for held in self._consumers if not held.is_over} | {consumer: None}
        return consumer

    async def declare(self, queue: Queue) -> None:
        self._check_open()
        await declare_alone(self._outgoing, queue, clock=self._clock)

    async def get(self, queue: str) -> Delivery | None:
        self._check_open()
        await self._open_incoming()
        return await self._getter.get(queue)

    async def delete_queue(self, name: str) -> None:
        async def delete(channel: aiormq.abc.AbstractChannel) -> None:
            await channel.queue_delete(name)

        await self._ask(f"the deletion of queue {name}", delete)

    async def consumers(self, queue: str) -> int | None:
        found: list[int] = []

        async def count(channel: aiormq.abc.AbstractChannel) -> None:
            found.append((await channel.queue_declare(queue, passive=True)).consumer_count or 0)

        await self._ask(f"a question for queue {queue}", count)
        return found[0] if found else 0

    async def depth(self, queue: str) -> QueueDepth | None:
        found: list[QueueDepth] = []

        async def count(channel: aiormq.abc.AbstractChannel) -> None:
            answer = await channel.queue_declare(queue, passive=True)
            found.append(QueueDepth(answer.message_count or 0, consumers=answer.consumer_count or 0))

        await self._ask(f"a question for queue {queue}", count)
        return found[0] if found else None

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        consumers, self._consumers = self._consumers, {}
        for consumer in consumers:
            await consumer.stop()
        await asyncio.gather(self._incoming.close(), self._outgoing.close())

    async def _open_incoming(self) -> None:
        async with self._opening:
            if not self._is_consuming:
                await self._incoming.open()
                self._is_consuming = True

    async def _ask(self, what: str, question: Callable[[aiormq.abc.AbstractChannel], Awaitable[None]]) -> None:
        """Do something on a channel that may be lost by it; a thing that is not there is no error."""
        self._check_open()
        # An exclusive queue knows only the connection that declared it.
        link = self._incoming if self._is_consuming else self._outgoing
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S), link.short_channel() as channel:
                with watched():
                    await question(channel)
        except ChannelNotFoundEntity:
            return
        except aiormq.ChannelClosed as exc:
            raise BusRefused(url=self.url, what=what, reason=reason_of(exc)) from exc
        except (Lost, TimeoutError) as exc:
            raise BusUnavailable(url=self.url, reason=str(exc) or f"no answer to {what}") from exc

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed(url=self.url)
