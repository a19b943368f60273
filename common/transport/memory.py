"""A message bus in this process's memory: AMQP's rules, no bytes leave the loop.

Its queues are not bounded, and `x-expires` and `durable` mean nothing: it lives as long as the process.
"""

import asyncio
import bisect
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from common.base.clock import Clock
from common.transport.errors import BusRefused, address, check_prefetch, check_size
from common.transport.port import BusUnavailable, Closed, Delivery, Exchange, Lack, Message, Queue, QueueDepth, Unroutable
from common.transport.topology import Route, destinations


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A message in one queue. `number` gives its place; a redelivered message keeps it."""

    number: int
    body: bytes
    content_type: str
    headers: Mapping[str, Any]
    expires_at: float | None
    redelivered: bool = False


@dataclass(slots=True)
class _Queue:
    declared: Queue
    owner: "MemoryTransport | None"
    ready: deque[_Waiting] = field(default_factory=deque)
    takers: deque["MemoryConsumer"] = field(default_factory=deque)
    """Who consumes it; the first is next in turn."""


@dataclass(slots=True)
class _Exchange:
    declared: Exchange
    routes: list[Route] = field(default_factory=list)


class MemoryBus:
    """What a broker would hold; all its transports live in one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._exchanges: dict[str, _Exchange] = {}
        self._queues: dict[str, _Queue] = {}
        self._numbers = count()

    def route(self, message: Message, *, url: str) -> tuple[str, ...]:
        """The queues that take `message` now; its exchange is declared on the way. Raises BusRefused."""
        if message.exchange is None:
            return (message.key,) if message.key in self._queues else ()
        exchange = self._declare_exchange(message.exchange, url=url)
        return destinations(exchange.declared.kind, message.key, exchange.routes)

    def put(self, message: Message, queue: str) -> None:
        """Append to one queue that exists; consumers hear of it when the caller yields to the loop."""
        held_s = None if message.expiration_ms is None else message.expiration_ms / 1000
        expires_at = None if held_s is None else self._clock.monotonic() + held_s
        waiting = _Waiting(next(self._numbers), bytes(message.body), message.content_type, dict(message.headers), expires_at)
        # A message that may not wait at all (0 ms) still reaches a consumer that is ready for it, as in RabbitMQ.
        if (taker := self._next_taker(queue)) is not None:
            taker.assign(waiting)
        else:
            self._queues[queue].ready.append(waiting)

    def declare(self, queue: Queue, owner: "MemoryTransport") -> None:
        """Make the queue, its exchanges and bindings, as far as they are not there. Raises BusRefused."""
        held = self._queues.get(queue.name)
        if held is not None and held.owner not in (None, owner):
            raise BusRefused(url=owner.url, what=f"queue {queue.name}", reason="it belongs to one other connection")
        if held is None:
            self._queues[queue.name] = _Queue(queue, owner if queue.exclusive else None)
        for binding in queue.bindings:
            routes = self._declare_exchange(binding.exchange, url=owner.url).routes
            if (route := Route(binding.key, queue.name)) not in routes:
                routes.append(route)

    def join(self, consumer: "MemoryConsumer") -> None:
        """Let `consumer` take its turns."""
        self._queues[consumer.queue.name].takers.append(consumer)
        self._serve(consumer.queue.name)

    def leave(self, consumer: "MemoryConsumer") -> None:
        """No more turns for `consumer`. The last one takes an auto-delete queue with it."""
        queue = self._queues.get(consumer.queue.name)
        if queue is None or consumer not in queue.takers:
            return
        queue.takers.remove(consumer)
        if queue.declared.auto_delete and not queue.takers:
            self._drop(queue.declared.name)

    def delete(self, name: str) -> None:
        """Drop what waits; a queue that is still consumed is at once declared again, as its consumers would do."""
        queue = self._queues.get(name)
        if queue is not None and queue.takers:
            queue.ready.clear()
            for taker in queue.takers:
                taker.remade()
        else:
            self._drop(name)

    def forget(self, owner: "MemoryTransport") -> None:
        """Drop the exclusive queues of a connection that ended."""
        for name in [name for name, queue in self._queues.items() if queue.owner is owner]:
            self._drop(name)

    def pop(self, name: str) -> _Waiting | None:
        """The oldest message that waits and is not over; it leaves the queue."""
        ready = self._queues[name].ready if name in self._queues else deque[_Waiting]()
        while ready:
            if not self._is_over(waiting := ready.popleft()):
                return waiting
        return None

    def give_back(self, name: str, waiting: _Waiting) -> None:
        """To the place in its queue that it had; nothing happens when the queue is gone."""
        if (queue := self._queues.get(name)) is not None:
            bisect.insort(queue.ready, waiting, key=lambda item: item.number)
            self._serve(name)

    def consumers(self, name: str) -> int:
        """0 when there is no such queue."""
        return len(self._queues[name].takers) if name in self._queues else 0

    def depth(self, name: str) -> QueueDepth | None:
        """None when there is no such queue."""
        if (queue := self._queues.get(name)) is None:
            return None
        ready = sum(not self._is_over(waiting) for waiting in queue.ready)
        return QueueDepth(ready, consumers=len(queue.takers))

    def serve(self, name: str) -> None:
        """A consumer of that queue has room again."""
        if name in self._queues:
            self._serve(name)

    def _serve(self, name: str) -> None:
        """Assign what waits to consumers with room, in turn. Expiry is judged here, as RabbitMQ does at a queue's head."""
        queue = self._queues[name]
        while queue.ready:
            if self._is_over(queue.ready[0]):
                queue.ready.popleft()
                continue
            if (taker := self._next_taker(name)) is None:
                return
            taker.assign(queue.ready.popleft())

    def _next_taker(self, name: str) -> "MemoryConsumer | None":
        """Who is to have the next message, and goes to the end of the turn; None when nobody has room."""
        takers = self._queues[name].takers
        taker = next((taker for taker in takers if taker.has_room), None)
        if taker is not None:
            takers.remove(taker)
            takers.append(taker)
        return taker

    def _is_over(self, waiting: _Waiting) -> bool:
        return waiting.expires_at is not None and waiting.expires_at <= self._clock.monotonic()

    def _declare_exchange(self, wanted: Exchange, *, url: str) -> _Exchange:
        held = self._exchanges.setdefault(wanted.name, _Exchange(wanted))
        if held.declared.kind != wanted.kind:
            reason = f"it is a {held.declared.kind} exchange, not {wanted.kind}"
            raise BusRefused(url=url, what=f"exchange {wanted.name}", reason=reason)
        return held

    def _drop(self, name: str) -> None:
        self._queues.pop(name, None)
        for exchange in list(self._exchanges.values()):
            kept = [route for route in exchange.routes if route.queue != name]
            if len(kept) < len(exchange.routes) and not kept and exchange.declared.auto_delete:
                del self._exchanges[exchange.declared.name]
            exchange.routes = kept


class MemoryDelivery:
    """Implements `common.transport.port.Delivery`."""

    def __init__(self, consumer: "MemoryConsumer", waiting: _Waiting) -> None:
        self._consumer = consumer
        self._waiting = waiting
        self._is_settled = False

    @property
    def body(self) -> bytes:
        return self._waiting.body

    @property
    def content_type(self) -> str | None:
        return self._waiting.content_type

    @property
    def headers(self) -> Mapping[str, Any]:
        return self._waiting.headers

    @property
    def redelivered(self) -> bool:
        return self._waiting.redelivered

    async def ack(self) -> None:
        self._settle()
        self._consumer.release(self._waiting, requeue=False)

    def ack_soon(self) -> None:
        self._settle()
        with suppress(BusUnavailable):
            self._consumer.release(self._waiting, requeue=False)

    async def reject(self, *, requeue: bool) -> None:
        self._settle()
        self._consumer.release(self._waiting, requeue=requeue)

    def _settle(self) -> None:
        if self._is_settled:
            raise ValueError("this delivery was settled before")
        self._is_settled = True


class MemoryConsumer:
    """Implements `common.transport.port.Consumer`."""

    def __init__(
        self, transport: "MemoryTransport", queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None],
        on_remade: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self.queue = queue
        self.on_remade = on_remade
        self._transport = transport
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._unsettled: list[_Waiting] = []
        self._handed: set[int] = set()
        self._is_cancelled = False
        self._is_ended = False

    @property
    def has_room(self) -> bool:
        """True while another delivery may be assigned."""
        return not self._is_cancelled and len(self._unsettled) < self._prefetch

    def assign(self, waiting: _Waiting) -> None:
        """Take a message; the callback gets it in the loop's next round, never inside the publisher's call."""
        self._unsettled.append(waiting)
        asyncio.get_running_loop().call_soon(self._hand, waiting)

    def release(self, waiting: _Waiting, *, requeue: bool) -> None:
        """A delivery was settled. Raises BusUnavailable when the transport was closed meanwhile."""
        if self._is_ended:
            raise BusUnavailable(url=self._transport.url, reason="the connection that brought the message was closed")
        self._unsettled.remove(waiting)
        if requeue:
            self._give_back(waiting)
        self._handed.discard(waiting.number)
        self._transport.bus.serve(self.queue.name)
        self._leave_when_done()

    async def cancel(self) -> None:
        if self._is_cancelled:
            return
        self._is_cancelled = True
        for waiting in [item for item in self._unsettled if item.number not in self._handed]:
            self._unsettled.remove(waiting)
            self._give_back(waiting)
        self._transport.bus.leave(self)
        self._leave_when_done()

    def remade(self) -> None:
        """Tell who asked that the queue was deleted and declared again."""
        if self.on_remade is not None:
            asyncio.get_running_loop().call_soon(self.on_remade)

    def take(self, waiting: _Waiting) -> MemoryDelivery:
        """Hand `waiting` to a caller who asked for one message."""
        self._is_cancelled = True
        self._unsettled.append(waiting)
        self._handed.add(waiting.number)
        return MemoryDelivery(self, waiting)

    def end(self) -> None:
        """The connection is gone: what is unsettled goes back."""
        self._is_cancelled = self._is_ended = True
        unsettled, self._unsettled = self._unsettled, []
        for waiting in unsettled:
            self._give_back(waiting)
        self._transport.bus.leave(self)

    def _hand(self, waiting: _Waiting) -> None:
        if waiting not in self._unsettled:
            return
        self._handed.add(waiting.number)
        self._on_delivery(MemoryDelivery(self, waiting))

    def _give_back(self, waiting: _Waiting) -> None:
        was_handed = waiting.number in self._handed
        self._handed.discard(waiting.number)
        self._transport.bus.give_back(self.queue.name, replace(waiting, redelivered=waiting.redelivered or was_handed))

    def _leave_when_done(self) -> None:
        if self._is_cancelled and not self._unsettled:
            self._transport.forget(self)


def _nothing(_: Delivery) -> None:
    """A taker of one message gets no others."""


class MemoryTransport:
    """Implements `common.transport.port.Transport` on a bus that is given to it."""

    def __init__(self, bus: MemoryBus, *, name: str = "") -> None:
        self.bus = bus
        self._url = f"memory://{name}"
        self._consumers: dict[MemoryConsumer, None] = {}
        self._is_closed = False

    @property
    def lacks(self) -> frozenset[Lack]:
        return frozenset({Lack.ONE_PROCESS})

    @property
    def url(self) -> str:
        return self._url

    async def publish(self, message: Message, *, timeout_s: float) -> None:  # noqa: ARG002 - memory never waits
        self._check_open()
        check_size(message)
        queues = self.bus.route(message, url=self._url)
        if not queues and message.mandatory:
            raise Unroutable(address=address(message))
        for queue in queues:
            self.bus.put(message, queue)

    async def consume(
        self, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None], on_remade: Callable[[], None] | None = None
    ) -> MemoryConsumer:
        self._check_open()
        check_prefetch(prefetch)
        self.bus.declare(queue, self)
        consumer = MemoryConsumer(self, queue, prefetch=prefetch, on_delivery=on_delivery, on_remade=on_remade)
        self._consumers[consumer] = None
        self.bus.join(consumer)
        return consumer

    async def declare(self, queue: Queue) -> None:
        self._check_open()
        self.bus.declare(queue, self)

    async def get(self, queue: str) -> Delivery | None:
        self._check_open()
        if (waiting := self.bus.pop(queue)) is None:
            return None
        taker = MemoryConsumer(self, Queue(queue), prefetch=1, on_delivery=_nothing)
        self._consumers[taker] = None
        return taker.take(waiting)

    async def delete_queue(self, name: str) -> None:
        self._check_open()
        self.bus.delete(name)

    async def consumers(self, queue: str) -> int | None:
        self._check_open()
        return self.bus.consumers(queue)

    async def depth(self, queue: str) -> QueueDepth | None:
        self._check_open()
        return self.bus.depth(queue)

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        consumers, self._consumers = self._consumers, {}
        for consumer in consumers:
            consumer.end()
        self.bus.forget(self)

    def forget(self, consumer: MemoryConsumer) -> None:
        """A cancelled consumer settled its last delivery."""
        self._consumers.pop(consumer, None)

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed(url=self._url)


class MemoryBuses:
    """The buses of one process by name: what `memory://name` means there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buses: dict[str, MemoryBus] = {}

    def bus(self, name: str) -> MemoryBus:
        """The bus of that name; the first to ask makes it."""
        if name not in self._buses:
            self._buses[name] = MemoryBus(self._clock)
        return self._buses[name]
