"""A consumer at RabbitMQ that begins anew whenever it ends, and a delivery that is settled once: what both engines share."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from common.base.clock import Clock
from common.transport.kept_link import KeptLink
from common.transport.port import BusUnavailable, Delivery, Queue
from common.transport.rabbit_settings import STREAM_OFFSET, pause_s
from common.transport.tasks import end, keep

L = TypeVar("L", bound=KeptLink[Any])

_LOG = logging.getLogger(__name__)


class KeptConsumer(ABC, Generic[L]):
    """Implements `common.transport.port.Consumer`; `start` comes first.

    It has a channel of its own, so `prefetch` and settling are its own too. It begins anew when the channel ends, and when the
    broker cancels it because the queue was deleted or moved.
    """

    def __init__(
        self, link: L, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None],
        on_remade: Callable[[], None] | None, clock: Clock,
    ) -> None:  # fmt: skip
        self.queue = queue
        self._on_remade = on_remade
        self._link = link
        self.prefetch = prefetch
        self._on_delivery = on_delivery
        self._clock = clock
        self._ended = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.is_cancelled = False
        self._offset: int | None = None
        """The first message of a stream that was not seen yet; 0: it was made anew, and all in it are news."""

    async def start(self) -> None:
        """Returns when the queue is there and consumed. Raises BusUnavailable, BusRefused, Closed."""
        await self._begin()
        self._keeper = keep(self._keep(), name=f"consumes {self.queue.name}")

    async def cancel(self) -> None:
        if self.is_cancelled:
            return
        self.is_cancelled = True
        await self.stop()
        await self._unsubscribe()

    async def stop(self) -> None:
        """Begin no more; the connection is about to be closed."""
        await end(self._keeper)

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """True when it was cancelled and everything it had handed out is settled or lost."""

    @abstractmethod
    async def _begin(self) -> None:
        """Declare, bind and consume. Raises BusUnavailable, BusRefused, Closed."""

    @abstractmethod
    async def _unsubscribe(self) -> None:
        """Tell the broker, where it is there; the channel ends with the last delivery."""

    @abstractmethod
    async def _end_channel(self) -> None:
        """End the channel that consumed, which may have ended by itself; what it had handed out is lost."""

    @abstractmethod
    async def _is_gone(self) -> bool:
        """True when the broker no longer knows the queue. Raises BusUnavailable."""

    @property
    def _goes_on(self) -> bool:
        """In a stream, behind the last message that was seen: its declaration is passive then.

        A stream that was deleted just now would be made anew by any other, count from 0, and be silent up to that message.
        """
        return bool(self._offset)

    def _was_cancelled(self, ended: asyncio.Event) -> None:
        """By the broker, which does so with the readers of a stream when it is deleted."""
        self._begin_new_stream()
        ended.set()

    def _begin_new_stream(self) -> None:
        """A new stream counts from 0, and would be silent up to the number where the old one was left.

        Its first message may come before this reader does, or at that very moment, when RabbitMQ 3.10 loses it to one who asks for the last.
        """
        if STREAM_OFFSET in self.queue.consume_arguments:
            self._offset = 0

    def _consume_arguments(self) -> dict[str, Any]:
        arguments = dict(self.queue.consume_arguments)
        if STREAM_OFFSET in arguments and self._offset is not None:
            arguments[STREAM_OFFSET] = self._offset
        return arguments

    async def _keep(self) -> None:
        while True:
            await self._ended.wait()
            await self._end_channel()
            if self._link.is_up:
                await self._clock.sleep(self._link.delay_before_again_s())
            await self._begin_again()

    async def _begin_again(self) -> None:
        failures = 0
        while True:
            await self._link.ready()
            try:
                is_remade = (self._on_remade is not None or self._offset is not None) and await self._is_gone()
                if is_remade:
                    self._begin_new_stream()
                await self._begin()
            except BusUnavailable as exc:
                failures += 1
                _LOG.warning("cannot consume %s again: %s", self.queue.name, exc)
                await self._clock.sleep(pause_s(failures))
            else:
                if is_remade and self._on_remade is not None:
                    self._on_remade()
                return


class OnceSettled(ABC):
    """The settling half of `common.transport.port.Delivery`."""

    __slots__ = ("_is_settled", "_link")

    def __init__(self, link: KeptLink[Any]) -> None:
        self._link = link
        self._is_settled = False

    async def ack(self) -> None:
        if not self._settle(ack=True):
            raise self._gone()

    def ack_soon(self) -> None:
        self._settle(ack=True)

    async def reject(self, *, requeue: bool) -> None:
        if not self._settle(ack=False, requeue=requeue):
            raise self._gone()

    def _settle(self, *, ack: bool, requeue: bool = False) -> bool:
        """False when the connection is gone."""
        if self._is_settled:
            raise ValueError("this delivery was settled before")
        self._is_settled = True
        return self._sent(ack=ack, requeue=requeue)

    @abstractmethod
    def _sent(self, *, ack: bool, requeue: bool) -> bool:
        """Settle it at the broker. False when the connection is gone."""

    def _gone(self) -> BusUnavailable:
        return BusUnavailable(url=self._link.url, reason="the connection that brought the message is gone")
