"""A process's connection to the memory bus: what it sends and takes can be lost, doubled, late, out of turn, or cut off."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec.structs import replace as changed

from common.base.errors import Timeout
from common.testing.fate import Crossing, Kind
from common.testing.process import Process
from common.transport.errors import address
from common.transport.memory import MemoryBus, MemoryConsumer, MemoryTransport
from common.transport.port import BusUnavailable, Delivery, Lack, Message, Queue, QueueDepth, Unroutable

T = TypeVar("T")

TRIP_S = 0.0005
"""From the call of `publish` to the broker."""
LATE_S = 70.0
"""A message that is late lies in its queue so long: beyond every deadline of a call."""
SWAP_S = 0.05
"""A message that is overtaken lies so long."""
AWAY_S = 1.0
"""From the cut of a connection to the next one."""

_METHOD = re.compile(rb'\\"method\\":\s?\\"(\w+)')


def label(body: bytes) -> str:
    """The method that a message asks for, or "reply"."""
    found = _METHOD.search(body)
    return found[1].decode() if found else "reply"


@dataclass(slots=True)
class _Subscription:
    """What was asked to be consumed, and where it is consumed now."""

    queue: Queue
    prefetch: int
    on_delivery: Callable[[Delivery], None]
    on_remade: Callable[[], None] | None
    inner: MemoryConsumer | None = None
    is_cancelled: bool = False


class SimulatedDelivery:
    """Implements `common.transport.port.Delivery`."""

    def __init__(self, transport: "SimulatedTransport", inner: Delivery) -> None:
        self._transport = transport
        self._inner = inner

    @property
    def body(self) -> bytes:
        return self._inner.body

    @property
    def content_type(self) -> str | None:
        return self._inner.content_type

    @property
    def headers(self) -> Mapping[str, Any]:
        return self._inner.headers

    @property
    def redelivered(self) -> bool:
        return self._inner.redelivered

    async def ack(self) -> None:
        process = self._transport.process
        await process.living()
        crossing = self._before()
        await process.living()
        at_once(process, self._inner.ack)
        process.suffer(crossing, crossing.after)
        await process.living()

    def ack_soon(self) -> None:
        process = self._transport.process
        if process.is_dead:
            return
        crossing = self._before()
        if not process.is_dead:
            process.outside(self._inner.ack_soon)
            process.suffer(crossing, crossing.after)

    async def reject(self, *, requeue: bool) -> None:
        await self._transport.process.living()
        at_once(self._transport.process, lambda: self._inner.reject(requeue=requeue))

    def _before(self) -> Crossing:
        process = self._transport.process
        crossing = process.cross(Kind.ACK, label(self.body))
        if process.suffer(crossing, crossing.before) == "cut":
            self._transport.cut()
        return crossing


class SimulatedConsumer:
    """Implements `common.transport.port.Consumer`."""

    def __init__(self, transport: "SimulatedTransport", subscription: _Subscription) -> None:
        self._transport = transport
        self._subscription = subscription

    async def cancel(self) -> None:
        await self._transport.process.living()
        self._subscription.is_cancelled = True
        self._transport.subscriptions.pop(id(self._subscription), None)
        if (inner := self._subscription.inner) is not None:
            at_once(self._transport.process, inner.cancel)


class SimulatedTransport:
    """Implements `common.transport.port.Transport` for one process. A connection that was cut comes back by itself."""

    def __init__(self, bus: MemoryBus, process: Process) -> None:
        self.process = process
        self.subscriptions: dict[int, _Subscription] = {}
        self._bus = bus
        self._inner: MemoryTransport | None = MemoryTransport(bus, name="simulated")
        process.hold(self)

    @property
    def lacks(self) -> frozenset[Lack]:
        return frozenset({Lack.ONE_PROCESS})

    @property
    def url(self) -> str:
        return "memory://simulated"

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        process = self.process
        await process.living()
        crossing = process.cross(
            Kind.PUBLISH, f"{message.key or 'everywhere'}.{label(message.body)}" if _is_request(message) else "reply"
        )
        await asyncio.sleep(process.fate.delay_s(Kind.PUBLISH, TRIP_S))
        fault = process.suffer(crossing, crossing.before)
        await process.living()
        match fault:
            case "cut":
                self.cut()
            case "lost":
                await self._no_confirm(timeout_s)
            case "late" | "swap":
                self._put_later(message, LATE_S if fault == "late" else SWAP_S)
                return
        inner = self._open()
        at_once(process, lambda: inner.publish(message, timeout_s=timeout_s))
        fault = process.suffer(crossing, crossing.after)
        await process.living()
        match fault:
            case "cut":
                self.cut()
                raise BusUnavailable(url=self.url, reason="the connection was cut before the confirm")
            case "unconfirmed":
                await self._no_confirm(timeout_s)
            case "twice":
                at_once(process, lambda: inner.publish(message, timeout_s=timeout_s))

    async def consume(
        self, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None], on_remade: Callable[[], None] | None = None
    ) -> SimulatedConsumer:
        await self.process.living()
        subscription = _Subscription(queue, prefetch, on_delivery, on_remade)
        self._subscribe(self._open(), subscription)
        self.subscriptions[id(subscription)] = subscription
        return SimulatedConsumer(self, subscription)

    async def declare(self, queue: Queue) -> None:
        await self.process.living()
        at_once(self.process, lambda: self._open().declare(queue))

    async def get(self, queue: str) -> Delivery | None:
        await self.process.living()
        found = at_once(self.process, lambda: self._open().get(queue))
        return None if found is None else SimulatedDelivery(self, found)

    async def delete_queue(self, name: str) -> None:
        await self.process.living()
        at_once(self.process, lambda: self._open().delete_queue(name))

    async def consumers(self, queue: str) -> int | None:
        await self.process.living()
        return at_once(self.process, lambda: self._open().consumers(queue))

    async def depth(self, queue: str) -> QueueDepth | None:
        await self.process.living()
        return at_once(self.process, lambda: self._open().depth(queue))

    async def close(self) -> None:
        await self.process.living()
        self.subscriptions.clear()
        if self._inner is not None:
            at_once(self.process, self._inner.close)

    def drop(self) -> None:
        """The process is dead, and so is its connection."""
        self.subscriptions.clear()
        if self._inner is not None:
            at_once(self.process, self._inner.close)

    def forget_queues(self) -> None:
        """What this process consumed is no queue any more, as with auto-delete ones; one in which something waits stays."""
        for subscription in self.subscriptions.values():
            name = subscription.queue.name
            inner, queue = subscription.inner, self._bus._queues.get(name)
            if any(name in queues for queues, _ in self.process.fate.underway):
                continue
            if inner is not None and queue is not None and not queue.ready and not inner._unsettled and len(queue.takers) == 1:
                at_once(self.process, inner.cancel)
                self._bus.delete(name)

    def cut(self) -> None:
        """The connection breaks. What is not settled goes back, and the same subscriptions come again a little later."""
        if self._inner is None or self.process.is_dead:
            return
        at_once(self.process, self._inner.close)
        self._inner = None
        self.process.later(AWAY_S, self._come_back)

    def _come_back(self) -> None:
        if self.process.is_dead:
            return
        self._inner = MemoryTransport(self._bus, name="simulated")
        for subscription in self.subscriptions.values():
            is_remade = self._bus.depth(subscription.queue.name) is None
            self._subscribe(self._inner, subscription)
            if is_remade and subscription.on_remade is not None:
                asyncio.get_running_loop().call_soon(subscription.on_remade, context=self.process.context)

    def _subscribe(self, inner: MemoryTransport, subscription: _Subscription) -> None:
        def on_delivery(delivery: Delivery) -> None:
            """Called by the bus, in the world's context."""
            crossing = self.process.cross(Kind.DELIVER, label(delivery.body))
            if self.process.suffer(crossing, crossing.before) == "cut":
                self.cut()
            if not self.process.is_dead:
                mine = SimulatedDelivery(self, delivery)
                asyncio.get_running_loop().call_soon(subscription.on_delivery, mine, context=self.process.context)

        consumer = inner.consume(subscription.queue, prefetch=subscription.prefetch, on_delivery=on_delivery)
        subscription.inner = at_once(self.process, lambda: consumer)

    async def _no_confirm(self, timeout_s: float) -> None:
        """The broker is silent until whoever waits has had enough; the fault is over then. Raises Timeout."""
        with self.process.fate.hanging(asyncio.get_running_loop().time, timeout_s):
            await asyncio.sleep(timeout_s)
        raise Timeout(what="the broker's confirm", timeout_s=timeout_s)

    def _put_later(self, message: Message, delay_s: float) -> None:
        """The broker has it in its queues, and nobody gets it for a while; what expires meanwhile never arrives.

        Raises Unroutable as a broker that takes it at once: without a queue there is nothing for it to lie in.
        """
        left_ms = None
        if message.expiration_ms is not None:
            left_ms = message.expiration_ms - int(delay_s * 1000)
            if left_ms <= 0:
                self.process.fate.lasts(asyncio.get_running_loop().time() + message.expiration_ms / 1000)
                return
        late = changed(message, expiration_ms=left_ms)
        queues = self._bus.route(late, url=self.url)
        if not queues and message.mandatory:
            raise Unroutable(address=address(message))
        lying = queues, late.body
        underway = self.process.fate.underway
        underway.append(lying)

        def put() -> None:
            underway.remove(lying)
            for queue in queues:
                if self._bus.depth(queue) is not None:
                    self._bus.put(late, queue)

        self.process.later(delay_s, put)

    def _open(self) -> MemoryTransport:
        if self._inner is None:
            raise BusUnavailable(url=self.url, reason="the connection was cut")
        return self._inner


def _is_request(message: Message) -> bool:
    return label(message.body) != "reply"


def at_once(process: Process, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What a coroutine that never waits returns, run in the world's context."""

    def step() -> T:
        coroutine = work()
        try:
            coroutine.send(None)
        except StopIteration as done:
            value: T = done.value
            return value
        raise AssertionError("the memory bus waited")

    return process.outside(step)
