"""RabbitMQ as a transport over two kept connections: what both engines share."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from msgspec.structs import replace as changed

from common.base.clock import Clock
from common.base.limits import MESSAGE_BYTES_MAX
from common.transport.errors import check_prefetch, check_size
from common.transport.kept_consumer import KeptConsumer
from common.transport.kept_link import KeptLink
from common.transport.port import Closed, Delivery, Lack, Message, Queue, QueueDepth
from common.transport.rabbit_settings import RabbitSettings, shuffled
from common.transport.rabbit_url import RabbitUrl
from common.wire.compression import HEADER, Compression, compressed

L = TypeVar("L", bound=KeptLink[Any])

_DEFAULTS = RabbitSettings()


class Getting(Protocol):
    """Takes single messages out of queues."""

    async def get(self, queue: str) -> Delivery | None: ...


class KeptTransport(ABC, Generic[L]):
    """Implements `common.transport.port.Transport`.

    It publishes over one connection and consumes over another, made with the first consumer: a broker that runs out of memory
    stops to read from connections that publish, and would not see their acks either.

    make_link, make_consumer   the engine's own
    """

    make_link: ClassVar[Callable[..., KeptLink[Any]]]
    make_consumer: ClassVar[Callable[..., KeptConsumer[Any]]]
    _getter: Getting

    def __init__(self, outgoing: L, incoming: L, *, clock: Clock, compression: Compression | None = None) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._clock = clock
        self._compression = compression
        self._consumers: dict[KeptConsumer[Any], None] = {}
        self._opening = asyncio.Lock()
        self._is_consuming = False
        self._is_closed = False

    @classmethod
    async def connect(cls, where: RabbitUrl, *, clock: Clock, connection_name: str, settings: RabbitSettings = _DEFAULTS) -> Self:
        """A transport with its first connection. Raises BusUnavailable within CONNECT_TIMEOUT_S, BusRefused, Misconfigured."""
        where = replace(where, hosts=tuple(shuffled(where.hosts, random.SystemRandom())))
        outgoing, incoming = (
            cls.make_link(where, clock=clock, connection_name=f"{connection_name}:{use}", settings=settings)
            for use in ("publish", "consume")
        )
        await outgoing.open()
        return cls(outgoing, incoming, clock=clock, compression=settings.compression)  # type: ignore[arg-type]  # make_link makes an L

    @property
    def lacks(self) -> frozenset[Lack]:
        return frozenset()

    @property
    def url(self) -> str:
        return self._outgoing.url

    @abstractmethod
    async def publish(self, message: Message, *, timeout_s: float) -> None: ...

    async def consume(
        self, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None], on_remade: Callable[[], None] | None = None
    ) -> KeptConsumer[Any]:
        self._check_open()
        check_prefetch(prefetch)
        await self._open_incoming()
        consumer = type(self).make_consumer(
            self._incoming, queue, prefetch=prefetch, on_delivery=on_delivery, on_remade=on_remade, clock=self._clock
        )
        await consumer.start()
        self._consumers = {held: None for held in self._consumers if not held.is_over} | {consumer: None}
        return consumer

    @abstractmethod
    async def declare(self, queue: Queue) -> None: ...

    async def get(self, queue: str) -> Delivery | None:
        self._check_open()
        await self._open_incoming()
        return await self._getter.get(queue)

    @abstractmethod
    async def delete_queue(self, name: str) -> None: ...

    async def consumers(self, queue: str) -> int | None:
        found = await self.depth(queue)
        return 0 if found is None else found.consumers

    @abstractmethod
    async def depth(self, queue: str) -> QueueDepth | None: ...

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        consumers, self._consumers = self._consumers, {}
        for consumer in consumers:
            await consumer.stop()
        await asyncio.gather(self._incoming.close(), self._outgoing.close())

    def _checked(self, message: Message) -> Message:
        """As it goes out. Raises Closed, MessageTooLarge."""
        if self._is_closed or len(message.body) > MESSAGE_BYTES_MAX:
            self._check_open()
            check_size(message)
        if self._compression is None or HEADER in message.headers:  # a dead letter may be compressed already
            return message
        body, header = compressed(message.body, self._compression)
        return changed(message, body=body, headers={**message.headers, **header})

    @property
    def _asking(self) -> L:
        """An exclusive queue knows only the connection that declared it."""
        return self._incoming if self._is_consuming else self._outgoing

    async def _open_incoming(self) -> None:
        async with self._opening:
            if not self._is_consuming:
                await self._incoming.open()
                self._is_consuming = True

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed(url=self.url)
