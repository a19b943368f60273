"""The consuming side of the kombu transport: everything here runs in the thread that owns the channel."""

import math
import os
import select
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from kombu.exceptions import ChannelError

from common.base.clock import Clock
from common.transport.kombu_message import Received, is_over, mark_redelivered, received
from common.transport.kombu_store import Presence, StoreChannel
from common.transport.port import Queue

PULLED_AT_ONCE_MAX = 64
"""Messages taken before the thread looks for other jobs."""
OTHER_POLL_S = (0.005, 0.005)
"""kombu's own transports have to be asked."""
_POLL_GROWTH = 1.3
SWEEP_S = 2.0
_ALL_QUEUES = "every-queue-by-its-name"


@dataclass(slots=True, eq=False)
class Subscriber:
    """One consumer as the thread sees it. `hand` passes a delivery on to the event loop."""

    queue: Queue
    prefetch: int
    hand: Callable[[int, Received], None]
    remade: Callable[[], None] | None = None
    held: int = 0
    presence: Presence | None = None


@dataclass(slots=True)
class _Queue:
    declared: Queue
    takers: deque[Subscriber] = field(default_factory=deque)


class Puller:
    """Takes messages for its subscribers, as many as they may hold, and settles them.

    `wake` may be called from any thread.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._poll_s = 0.0
        self._queues: dict[str, _Queue] = {}
        self._unsettled: dict[int, tuple[Any, Subscriber]] = {}
        self._numbers = count()
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._swept_s = -math.inf

    def wake(self) -> None:
        """End the wait of `pull`: another job is there."""
        if self._signal >= 0:
            os.eventfd_write(self._signal, 1)

    def subscribe(self, channel: Any, subscriber: Subscriber) -> None:
        """Declare and bind the queue; `pull` then serves the subscriber."""
        declare(channel, subscriber.queue)
        if isinstance(channel, StoreChannel):
            subscriber.presence = channel.store.join(subscriber.queue.name)
        self._queues.setdefault(subscriber.queue.name, _Queue(subscriber.queue)).takers.append(subscriber)

    def unsubscribe(self, channel: Any, subscriber: Subscriber) -> None:
        """Serve it no more; what it holds can still be settled. The last one takes an auto-delete queue with it."""
        queue = self._queues.get(subscriber.queue.name)
        if queue is None or subscriber not in queue.takers:
            return
        queue.takers.remove(subscriber)
        if subscriber.presence is not None:
            subscriber.presence.close()
        if not queue.takers:
            del self._queues[subscriber.queue.name]
            if isinstance(channel, StoreChannel):
                channel.store.drop_auto_delete(subscriber.queue.name)
            elif queue.declared.auto_delete or queue.declared.exclusive:
                delete(channel, subscriber.queue.name)

    def settle(self, number: int, *, is_done: bool, requeue: bool) -> None:
        """Ack, requeue or drop the delivery of that number. Raises KeyError when it was given back by `end`."""
        message, subscriber = self._unsettled.pop(number)
        subscriber.held -= 1
        if is_done:
            message.ack()
        elif requeue:
            mark_redelivered(message)
            message.requeue()
        else:
            message.reject()

    def get(self, channel: Any, name: str) -> tuple[int, Received] | None:
        """The oldest message that waits, with the number by which it is settled."""
        while exists(channel, name) and (message := channel.basic_get(name)) is not None:
            if is_over(message, self._clock):
                message.reject()
                continue
            number = next(self._numbers)
            self._unsettled[number] = message, Subscriber(Queue(name), 1, lambda *_: None, held=1)
            return number, received(message)
        return None

    def pull(self, channel: Any) -> None:
        """Hand out what waits; when nothing does, wait for more, for `wake`, or for the time to look again.

        Whoever wakes it has put his message or job in its place before. So a call may be forgotten only at the end, when what it
        meant comes next anyway.
        """
        self._sweep(channel)
        if not sum(self._pull_queue(channel, queue) for queue in list(self._queues.values())):
            self._wait(channel)
            self._drain()
        else:
            self._poll_s = 0.0

    def end(self, channel: Any) -> None:
        """Unsubscribe everybody and give back what is unsettled, in its order."""
        for number in sorted(self._unsettled):
            self.settle(number, is_done=False, requeue=True)
        for queue in list(self._queues.values()):
            for subscriber in list(queue.takers):
                self.unsubscribe(channel, subscriber)

    def close(self) -> None:
        """The thread has ended."""
        signal, self._signal = self._signal, -1
        os.close(signal)

    def _pull_queue(self, channel: Any, queue: _Queue) -> int:
        """How many messages were taken from one queue."""
        name = queue.declared.name
        if not exists(channel, name):
            _restore(channel, queue)
        for pulled in range(PULLED_AT_ONCE_MAX):
            taker = next((taker for taker in queue.takers if taker.held < taker.prefetch), None)
            message = channel.basic_get(name) if taker is not None else None
            if taker is None or message is None:
                return pulled
            if is_over(message, self._clock):
                message.reject()
                continue
            queue.takers.remove(taker)
            queue.takers.append(taker)
            taker.held += 1
            number = next(self._numbers)
            self._unsettled[number] = message, taker
            taker.hand(number, received(message))
        return PULLED_AT_ONCE_MAX

    def _sweep(self, channel: Any) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._swept_s < SWEEP_S:
            return
        self._swept_s = now_s
        for queue in self._queues.values():
            _restore(channel, queue)
        if isinstance(channel, StoreChannel):
            channel.sweep(self._queues.keys())

    def _presences(self) -> list[Presence]:
        takers = [taker for queue in self._queues.values() for taker in queue.takers]
        return [taker.presence for taker in takers if taker.presence is not None]

    def _wait(self, channel: Any) -> None:
        poll = select.poll()
        for descriptor in (self._signal, *(presence.pipe for presence in self._presences())):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        first_s, last_s = channel.store.poll_s if isinstance(channel, StoreChannel) else OTHER_POLL_S
        self._poll_s = min(max(first_s, self._poll_s * _POLL_GROWTH), last_s)
        poll.poll(self._poll_s * 1000)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._signal)
        for presence in self._presences():
            presence.drain()


def _restore(channel: Any, queue: _Queue) -> None:
    """Declare and bind it again; whoever consumes it hears of it if it was gone."""
    was_there = exists(channel, queue.declared.name)
    # Between the question and the declaration it may go, so the declaration itself says it, where it can.
    if not declare(channel, queue.declared) and was_there:
        return
    for subscriber in queue.takers:
        if subscriber.remade is not None:
            subscriber.remade()


def declare(channel: Any, queue: Queue) -> bool:
    """The queue and its bindings; it is no error when they are there. True when the queue was made, as far as kombu tells.

    kombu deletes no queue that was never bound: it forgets only what its bindings name. So each is bound once more.
    """
    auto_delete = queue.auto_delete or queue.exclusive
    made = channel.queue_declare(queue.name, durable=queue.durable, auto_delete=auto_delete, arguments=dict(queue.arguments))
    bound = [(binding.exchange.name, binding.key) for binding in queue.bindings]
    if not isinstance(channel, StoreChannel):
        bound.append((_ALL_QUEUES, queue.name))
    for exchange, key in bound:
        channel.exchange_declare(exchange=exchange, type="topic")
        channel.queue_bind(queue.name, exchange=exchange, routing_key=key)
    return made is True


def exists(channel: Any, queue: str) -> bool:
    """True when it was declared; kombu transports that cannot tell say True."""
    try:
        channel.queue_declare(queue, passive=True)
    except ChannelError:
        return False
    return True


def delete(channel: Any, queue: str) -> None:
    """Drop a queue and what waits in it, if there is one."""
    if exists(channel, queue):
        if not isinstance(channel, StoreChannel):
            channel.queue_purge(queue)
        channel.queue_delete(queue)
