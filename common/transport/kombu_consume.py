"""Consumers and deliveries of the kombu transport: the side of the event loop."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from common.base.limits import SETTLE_TIMEOUT_S
from common.transport.kombu_message import Received
from common.transport.kombu_pull import Puller, Subscriber
from common.transport.port import BusUnavailable, Delivery, Queue


class Owner(Protocol):
    """What a consumer needs of its transport."""

    @property
    def url(self) -> str: ...
    @property
    def puller(self) -> Puller: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def acks(self) -> set[asyncio.Task[None]]: ...
    async def in_consuming_thread(self, job: Callable[[Any], None], *, timeout_s: float = ...) -> None: ...


class KombuConsumer:
    """Implements `common.transport.port.Consumer`."""

    def __init__(
        self, owner: Owner, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None],
        on_remade: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._owner = owner
        self._on_delivery = on_delivery
        self._loop = asyncio.get_running_loop()
        self._is_cancelled = False
        self._on_remade = on_remade
        self.subscriber = Subscriber(queue, prefetch, self._hand_over, self._remade)

    async def cancel(self) -> None:
        if self._is_cancelled or self._owner.is_closed:
            return
        self._is_cancelled = True
        # When this returns, all that the thread handed over before has reached the callback.
        await self._owner.in_consuming_thread(lambda channel: self._owner.puller.unsubscribe(channel, self.subscriber))

    def _hand_over(self, number: int, received: Received) -> None:
        """Called in the thread. At most `prefetch` are on their way."""
        self._loop.call_soon_threadsafe(self._hand, KombuDelivery(self._owner, number, received))

    def _remade(self) -> None:
        """Called in the thread."""
        if self._on_remade is not None:
            self._loop.call_soon_threadsafe(self._on_remade)

    def _hand(self, delivery: "KombuDelivery") -> None:
        if not self._owner.is_closed:
            self._on_delivery(delivery)


class KombuDelivery:
    """Implements `common.transport.port.Delivery`."""

    def __init__(self, owner: Owner, number: int, received: Received) -> None:
        self._owner = owner
        self._number = number
        self._received = received
        self._is_settled = False

    @property
    def body(self) -> bytes:
        return self._received.body

    @property
    def content_type(self) -> str | None:
        return self._received.content_type

    @property
    def headers(self) -> Mapping[str, Any]:
        return self._received.headers

    @property
    def redelivered(self) -> bool:
        return self._received.redelivered

    async def ack(self) -> None:
        await self._settle(is_done=True, requeue=False)

    def ack_soon(self) -> None:
        task = self._owner.acks
        waiting = asyncio.get_running_loop().create_task(self._acked(), name="acks a delivery")
        task.add(waiting)
        waiting.add_done_callback(task.discard)

    async def _acked(self) -> None:
        with suppress(BusUnavailable):
            await self.ack()

    async def reject(self, *, requeue: bool) -> None:
        await self._settle(is_done=False, requeue=requeue)

    async def _settle(self, *, is_done: bool, requeue: bool) -> None:
        if self._is_settled:
            raise ValueError("this delivery was settled before")
        self._is_settled = True
        if self._owner.is_closed:
            raise BusUnavailable(url=self._owner.url, reason="the connection that brought the message was closed")
        settle = self._owner.puller.settle
        await self._owner.in_consuming_thread(
            lambda _: settle(self._number, is_done=is_done, requeue=requeue), timeout_s=SETTLE_TIMEOUT_S
        )
