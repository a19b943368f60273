"""Notifications onto the bus, within a time and a memory that do not grow with the length of an outage."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from common.base.clock import Clock
from common.base.errors import Fault, Timeout, Unavailable
from common.base.limits import NOTIFICATION_QUEUE_KNOWN_S, NOTIFICATIONS_PENDING_BYTES_MAX
from common.base.retry import Retry
from common.host.locks import KeyedLocks
from common.notify.options import NotificationOptions
from common.notify.topology import Target, default_queue
from common.transport.port import Message, Queue, Transport, Unroutable
from common.wire.notification import Priority

_AGAIN = Retry(first_delay_s=0.1, delay_s_max=2.0)


class TooManyNotifications(Unavailable):
    """Notifications of {found} bytes wait for the bus, of {limit} that may; one more is dropped."""

    code = 429
    retryable = False


class Publisher:
    """Publishes over one transport.

    Whoever publishes first declares the default queue, so that nothing is lost before a listener exists. Messages are mandatory:
    a queue that somebody deleted is declared again. Where a pool takes the copy this does not show, and so the declaration is
    repeated after some time: a broker that restarted has forgotten its transient queues.
    """

    def __init__(self, transport: Transport, *, options: NotificationOptions, clock: Clock) -> None:
        self._transport = transport
        self._options = options
        self._clock = clock
        self._declared: dict[str, float] = {}
        self._locks = KeyedLocks()
        self._bytes = 0

    async def publish(self, topic: str, priority: Priority, body: bytes, *, retry: int) -> None:
        """Returns with the bus's confirm.

        Raises within `timeout_s` what the last try raised: BusUnavailable, Timeout, MessageTooLarge, Closed; TooManyNotifications.
        """
        queue = default_queue(self._options, Target(topic), priority)
        deadline = self._clock.monotonic() + self._options.timeout_s
        failures = 0
        with self._room(len(body)):
            while True:
                try:
                    await self._try(queue, body, deadline)
                except Fault as exc:
                    failures += 1
                    self._declared.pop(queue.name, None)
                    delay_s = _AGAIN.delay_s(failures)
                    is_last = not exc.retryable or 0 <= retry < failures
                    if is_last or self._clock.monotonic() + delay_s >= deadline:
                        raise
                    await self._clock.sleep(delay_s)
                else:
                    return

    @contextmanager
    def _room(self, size: int) -> Iterator[None]:
        if self._bytes + size > NOTIFICATIONS_PENDING_BYTES_MAX:
            raise TooManyNotifications(found=self._bytes, limit=NOTIFICATIONS_PENDING_BYTES_MAX)
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    async def _try(self, queue: Queue, body: bytes, deadline: float) -> None:
        await self._declare(queue, deadline)
        try:
            await self._put(queue, body, deadline)
        except Unroutable:
            self._declared.pop(queue.name, None)
            await self._declare(queue, deadline)
            await self._put(queue, body, deadline)

    async def _put(self, queue: Queue, body: bytes, deadline: float) -> None:
        (binding,) = queue.bindings
        message = Message(binding.exchange, binding.key, body, mandatory=True)
        await self._transport.publish(message, timeout_s=self._left_s(deadline))

    async def _declare(self, queue: Queue, deadline: float) -> None:
        if self._is_known(queue):
            return
        left_s = self._left_s(deadline)
        try:
            async with asyncio.timeout(left_s), self._locks.hold(queue.name):
                if not self._is_known(queue):
                    await self._transport.declare(queue)
                    self._declared[queue.name] = self._clock.monotonic()
        except TimeoutError as exc:
            raise Timeout(what=f"the declaration of queue {queue.name}", timeout_s=left_s) from exc

    def _is_known(self, queue: Queue) -> bool:
        declared_at = self._declared.get(queue.name)
        return declared_at is not None and self._clock.monotonic() - declared_at < NOTIFICATION_QUEUE_KNOWN_S

    def _left_s(self, deadline: float) -> float:
        return max(deadline - self._clock.monotonic(), 0.0)
