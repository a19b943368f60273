"""What every listener does with a delivery: read it, know a duplicate, run it within bounds, settle it last, drain at the end."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from common.base.clock import Clock
from common.base.errors import Unavailable
from common.base.limits import DRAIN_TIMEOUT_S
from common.host.lean import structlog
from common.notify.dispatch import Dispatcher, Message, Verdict
from common.notify.once import Held, Once, Standing
from common.notify.options import NotificationOptions
from common.notify.topology import Target, listener_queues
from common.transport.port import Consumer, Delivery, Transport
from common.wire.envelope import NotAMessage
from common.wire.notification import decode_notification

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Counts:
    """What became of deliveries.

    handled      endpoints ran, and none asked it back
    failed       an endpoint raised
    requeued     given back to the queue
    given_up     an endpoint raised or asked it back, and it was acked all the same: the listener has no `allow_requeue`
    duplicates   dropped: the same was handled, or was at work
    refused      dropped: it is no notification
    remade       times that a queue was found gone, with what waited in it
    """

    handled: int = 0
    failed: int = 0
    requeued: int = 0
    given_up: int = 0
    duplicates: int = 0
    refused: int = 0
    remade: int = 0


class Intake(ABC):
    """Base of the listeners. `async with` starts and drains it."""

    def __init__(
        self, transport: Transport, targets: Sequence[Target], endpoints: Sequence[object], *, clock: Clock, pool: str | None,
        allow_requeue: bool, options: NotificationOptions | None, grace_s: float = DRAIN_TIMEOUT_S,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._options = options or NotificationOptions()
        self._dispatcher = Dispatcher(endpoints, allow_requeue=allow_requeue)
        self._queues = listener_queues(self._options, targets, self._dispatcher.priorities, pool)
        self._clock = clock
        self._allow_requeue = allow_requeue
        self._grace_s = grace_s
        self._once = Once(self._options.duplicates_remembered)
        self._consumers: list[Consumer] = []
        self._running: set[asyncio.Task[None]] = set()
        # A transport may call us in its publisher's context; what an endpoint logs must not carry the sender's words.
        self._context = copy_context()
        self.counts = Counts()

    async def __aenter__(self) -> Self:
        try:
            for queue in self._queues:
                consumer = await self._transport.consume(
                    queue, prefetch=self._options.prefetch, on_delivery=self._on_delivery, on_remade=self._on_remade
                )
                self._consumers.append(consumer)
        except BaseException:
            await self.drain()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.drain()

    async def drain(self) -> None:
        """Take nothing new, let what is in hand end within the grace, give the rest back to the bus."""
        consumers, self._consumers = self._consumers, []
        for consumer in consumers:
            await consumer.cancel()
        self.hurry()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    @abstractmethod
    def take(self, held: Held) -> None:
        """A new notification."""

    @abstractmethod
    def hurry(self) -> None:
        """No further delivery will come."""

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Begin something that the drain waits for."""
        task = asyncio.get_running_loop().create_task(
            work, name=f"notifications {self._queues[0].name}", context=self._context.copy()
        )
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def finish(self, verdict: Verdict, held: Sequence[Held]) -> None:
        """Count, wait where it is given back, settle."""
        self.counts.failed += len(held) * verdict.failed
        if not verdict.asked_back:
            self.counts.handled += len(held)
        elif self._allow_requeue:
            self.counts.requeued += len(held)
            await self._clock.sleep(self._options.requeue_delay_s)
        else:
            self.counts.given_up += len(held)
            events = ", ".join(sorted({item.message.received.event_type for item in held}))
            _log.error("notifications given up: this listener gives none back", event_types=events, messages=len(held))
        await self.settle(held, is_done=not (verdict.asked_back and self._allow_requeue))

    async def settle(self, held: Sequence[Held], *, is_done: bool) -> None:
        """Ack, or give back, every delivery of what was held."""
        for item in held:
            for delivery in self._once.end(item, is_done=is_done):
                await _settle(delivery, ack=is_done, requeue=not is_done)

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            message = Message.of(decode_notification(delivery.body))
        except NotAMessage as exc:
            self.counts.refused += 1
            _log.warning("message refused", queues=[queue.name for queue in self._queues], reason=str(exc))
            self.spawn(_settle(delivery, ack=False, requeue=False))
            return
        held = Held(message, [delivery])
        match self._once.begin(held):
            case Standing.NEW:
                self.take(held)
            case Standing.COPY:
                self.counts.duplicates += 1
            case Standing.DONE:
                self.counts.duplicates += 1
                _log.info("duplicate dropped", event_type=message.received.event_type)
                self.spawn(_settle(delivery, ack=True))

    def _on_remade(self) -> None:
        self.counts.remade += 1
        _log.warning("a queue was gone and had to be made anew; what waited in it is lost", queues=[q.name for q in self._queues])


async def _settle(delivery: Delivery, *, ack: bool, requeue: bool = False) -> None:
    try:
        if ack:
            await delivery.ack()
        else:
            await delivery.reject(requeue=requeue)
    except Unavailable as exc:
        _log.info("delivery could not be settled; the bus gives it again", reason=str(exc))
