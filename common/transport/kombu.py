"""Any kombu URL as a transport: `kombu+filesystem:///folder` for a machine without a broker, `kombu+redis://host:port/db`,
`kombu+sqla+<database URL>`, `kombu+memory://` for tests.

kombu is used for what it keeps: queues, and a table of bindings for each exchange. Which queues take a message is
`common.transport.topology`'s matter, because kombu's `#` asks for a dot and its fanout needs support of the transport.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from common.base.clock import Clock
from common.base.errors import Timeout
from common.base.limits import CONNECT_TIMEOUT_S, SETTLE_TIMEOUT_S
from common.transport.errors import address, check_prefetch, check_size
from common.transport.kombu_consume import KombuConsumer, KombuDelivery
from common.transport.kombu_message import put
from common.transport.kombu_pull import Puller, declare, delete, exists
from common.transport.kombu_store import NoSuchQueue
from common.transport.kombu_thread import ChannelThread
from common.transport.kombu_url import connector
from common.transport.port import BusUnavailable, Closed, Delivery, Lack, Message, Queue, QueueDepth, Unroutable
from common.transport.rabbit_url import without_password
from common.transport.tasks import keep
from common.transport.topology import Route, destinations

_AGAIN_S = 1.0
"""Pause after the bus could not be read."""

_LOG = logging.getLogger(__name__)


class KombuTransport:
    """Implements `common.transport.port.Transport` with two threads, one to publish and one to consume.

    Over `filesystem`, `redis` and `sqla` it keeps all promises but whose turn it is (`kombu_store`). Over other kombu transports
    bindings are known to this process alone, nobody counts consumers, and a killed process takes its unsettled deliveries with it.
    `exclusive` is taken as `auto_delete`; `durable` means nothing.
    """

    def __init__(self, connect: Callable[[], Any], *, url: str, clock: Clock, name: str, is_shared: bool) -> None:
        self._url = url
        self._clock = clock
        self._is_shared = is_shared
        self._outgoing = ChannelThread(connect, name=f"{name}:publish", url=url)
        self._incoming = ChannelThread(connect, name=f"{name}:consume", url=url)
        self._puller = Puller(clock)
        self._pulling: asyncio.Task[None] | None = None
        self._is_closed = False
        self.acks: set[asyncio.Task[None]] = set()
        """Acks on their way; at most as many as there are unsettled deliveries."""

    @classmethod
    async def connect(cls, url: str, *, clock: Clock, connection_name: str) -> Self:
        """A transport whose bus answered. Raises Misconfigured, BusUnavailable within CONNECT_TIMEOUT_S."""
        connect, is_shared = connector(url)
        transport = cls(connect, url=without_password(url), clock=clock, name=connection_name, is_shared=is_shared)
        try:
            await transport._ask(transport._outgoing, lambda _: None)
        except BaseException:
            await transport.close()
            raise
        return transport

    @property
    def lacks(self) -> frozenset[Lack]:
        if self._is_shared:
            return frozenset({Lack.TURNS})
        return frozenset({Lack.REDELIVERY, Lack.COUNTING, Lack.TURNS, Lack.ONE_PROCESS})

    @property
    def url(self) -> str:
        return self._url

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        self._check_open()
        check_size(message)
        try:
            async with asyncio.timeout(timeout_s):
                is_taken = await self._outgoing.run(lambda channel: self._publish(channel, message))
        except TimeoutError as exc:
            raise Timeout(what=f"the message bus, to {address(message)},", timeout_s=timeout_s) from exc
        if message.mandatory and not is_taken:
            raise Unroutable(address=address(message))

    async def consume(
        self, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None], on_remade: Callable[[], None] | None = None
    ) -> KombuConsumer:
        self._check_open()
        check_prefetch(prefetch)
        consumer = KombuConsumer(self, queue, prefetch=prefetch, on_delivery=on_delivery, on_remade=on_remade)
        await self.in_consuming_thread(lambda channel: self._puller.subscribe(channel, consumer.subscriber))
        self._start_pulling()
        return consumer

    async def declare(self, queue: Queue) -> None:
        self._check_open()
        await self._ask(self._outgoing, lambda channel: declare(channel, queue))

    async def get(self, queue: str) -> Delivery | None:
        self._check_open()
        found = await self._ask(self._incoming, lambda channel: self._puller.get(channel, queue))
        self._start_pulling()
        return None if found is None else KombuDelivery(self, *found)

    async def delete_queue(self, name: str) -> None:
        self._check_open()
        await self._ask(self._outgoing, lambda channel: delete(channel, name))

    async def consumers(self, queue: str) -> int | None:
        self._check_open()
        if not self._is_shared:
            return None
        found: int = await self._ask(self._outgoing, lambda channel: channel.store.consumers(queue))
        return found

    async def depth(self, queue: str) -> QueueDepth | None:
        self._check_open()
        found: QueueDepth | None = await self._ask(self._outgoing, lambda channel: self._depth(channel, queue))
        return found

    async def close(self) -> None:
        if self._is_closed:
            return
        if self.acks:
            await asyncio.wait(self.acks, timeout=SETTLE_TIMEOUT_S)
        self._is_closed = True
        self._puller.wake()
        if self._pulling is not None:
            await asyncio.wait([self._pulling], timeout=SETTLE_TIMEOUT_S)
        if self._incoming.is_running:
            with suppress(BusUnavailable):
                await self._ask(self._incoming, self._puller.end)
        await asyncio.gather(self._incoming.close(), self._outgoing.close())
        self._puller.close()

    @property
    def puller(self) -> Puller:
        """Belongs to the consuming thread."""
        return self._puller

    @property
    def is_closed(self) -> bool:
        """True as soon as `close` began."""
        return self._is_closed

    async def in_consuming_thread(self, job: Callable[[Any], None], *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """Run a job there, at once even if the thread waits for messages. Raises BusUnavailable."""
        await self._ask(self._incoming, job, timeout_s=timeout_s)

    def _start_pulling(self) -> None:
        """Whoever holds a delivery has to say now and then that he lives, even if he consumes nothing."""
        if self._pulling is None:
            self._pulling = keep(self._pull(), name=f"pulls from {self._url}")

    async def _pull(self) -> None:
        while not self._is_closed:
            try:
                await self._incoming.run(self._puller.pull)
            except BusUnavailable as exc:
                _LOG.warning("cannot read the message bus: %s", exc)
                await self._clock.sleep(_AGAIN_S)

    async def _ask(self, thread: ChannelThread, job: Callable[[Any], Any], *, timeout_s: float = CONNECT_TIMEOUT_S) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await thread.run(job, on_queued=self._puller.wake)
        except TimeoutError as exc:
            raise BusUnavailable(url=self._url, reason=f"no answer within {timeout_s:g} s") from exc

    def _publish(self, channel: Any, message: Message) -> bool:
        """Runs in the publishing thread. True when some queue took it."""
        return sum(self._put(channel, message, queue) for queue in self._route(channel, message)) > 0

    def _put(self, channel: Any, message: Message, queue: str) -> bool:
        # kombu's own transports make a queue that is not there; those that share one refuse.
        if not self._is_shared and not exists(channel, queue):
            return False
        try:
            put(channel, message, queue, self._clock)
        except NoSuchQueue:
            return False
        return True

    def _depth(self, channel: Any, queue: str) -> QueueDepth | None:
        if self._is_shared:
            found: QueueDepth | None = channel.store.depth(queue)
            return found
        return QueueDepth(channel.queue_declare(queue, passive=True).message_count) if exists(channel, queue) else None

    @staticmethod
    def _route(channel: Any, message: Message) -> tuple[str, ...]:
        if message.exchange is None:
            return (message.key,)
        try:
            table = channel.get_table(message.exchange.name)
        except KeyError:
            # kombu's way to say that nobody declared it.
            return ()
        return destinations(message.exchange.kind, message.key, [Route(key, queue) for key, _, queue in table])

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed(url=self._url)
