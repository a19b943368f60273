"""RabbitMQ as a transport over our own engine (`common.amqp`), in the forms of oslo.messaging's rabbit driver.

`rabbit://` over aio-pika and `amqp://` over this put the same bytes on the wire; processes of both may share a bus.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from msgspec.structs import replace as changed

from common.amqp.events import Replied
from common.base.clock import Clock
from common.transport.amqp_consume import AmqpConsumer
from common.transport.amqp_declare import declare_alone
from common.transport.amqp_get import AmqpGetter
from common.transport.amqp_link import AmqpLink, asked
from common.transport.amqp_publish import AmqpPublisher
from common.transport.errors import check_prefetch, check_size
from common.transport.port import Closed, Delivery, Lack, Message, Queue, QueueDepth
from common.transport.rabbit_settings import RabbitSettings, shuffled
from common.transport.rabbit_url import RabbitUrl
from common.wire.compression import HEADER, Compression, compressed

_DEFAULTS = RabbitSettings()


class AmqpTransport:
    """Implements `common.transport.port.Transport` and `Pipelining`.

    It publishes over one connection and consumes over another, made with the first consumer: a broker that runs out of memory
    stops to read from connections that publish, and would not see their acks either.
    """

    def __init__(self, outgoing: AmqpLink, incoming: AmqpLink, *, clock: Clock, compression: Compression | None = None) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._clock = clock
        self._compression = compression
        self._publisher = AmqpPublisher(outgoing, clock=clock)
        self._getter = AmqpGetter(incoming)
        self._consumers: dict[AmqpConsumer, None] = {}
        self._opening = asyncio.Lock()
        self._is_consuming = False
        self._is_closed = False

    @classmethod
    async def connect(cls, where: RabbitUrl, *, clock: Clock, connection_name: str, settings: RabbitSettings = _DEFAULTS) -> Self:
        """A transport with its first connection. Raises BusUnavailable within CONNECT_TIMEOUT_S, BusRefused, Misconfigured."""
        where = replace(where, hosts=tuple(shuffled(where.hosts, random.SystemRandom())))
        outgoing, incoming = (
            AmqpLink(where, clock=clock, connection_name=f"{connection_name}:{use}", settings=settings)
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
        await self._publisher.publish(self._checked(message), timeout_s=timeout_s)

    def publish_soon(self, message: Message, on_end: Callable[[Exception | None], None]) -> bool:
        return self._publisher.publish_soon(self._checked(message), on_end)

    async def consume(
        self, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None], on_remade: Callable[[], None] | None = None
    ) -> AmqpConsumer:
        self._check_open()
        check_prefetch(prefetch)
        await self._open_incoming()
        consumer = AmqpConsumer(
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
        self._check_open()
        await asked(self._asking, "queue.delete", what=f"the deletion of queue {name}", queue=name)

    async def consumers(self, queue: str) -> int | None:
        found = await self._look(queue)
        return 0 if found is None else found.method["consumer_count"]

    async def depth(self, queue: str) -> QueueDepth | None:
        found = await self._look(queue)
        if found is None:
            return None
        return QueueDepth(found.method["message_count"], consumers=found.method["consumer_count"])

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        consumers, self._consumers = self._consumers, {}
        for consumer in consumers:
            await consumer.stop()
        await asyncio.gather(self._incoming.close(), self._outgoing.close())
        self._publisher.close()

    def _checked(self, message: Message) -> Message:
        """As it goes out. Raises Closed, MessageTooLarge."""
        self._check_open()
        check_size(message)
        if self._compression is None or HEADER in message.headers:  # a dead letter may be compressed already
            return message
        body, header = compressed(message.body, self._compression)
        return changed(message, body=body, headers={**message.headers, **header})

    @property
    def _asking(self) -> AmqpLink:
        """An exclusive queue knows only the connection that declared it."""
        return self._incoming if self._is_consuming else self._outgoing

    async def _look(self, queue: str) -> Replied | None:
        self._check_open()
        return await asked(self._asking, "queue.declare", what=f"a question for queue {queue}", queue=queue, passive=True)

    async def _open_incoming(self) -> None:
        async with self._opening:
            if not self._is_consuming:
                await self._incoming.open()
                self._is_consuming = True

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed(url=self.url)
