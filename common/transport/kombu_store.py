"""kombu channels whose queues are kept as the port promises, in whatever kombu's transport connects to.

kombu's own virtual transports lose and double messages as soon as several processes share them. redis: a message is popped in one
step and noted as unacked in the next, and comes back after a fixed time (an hour) though its holder may be alive, or not at all;
an empty queue is no queue. SQL: a message is marked as done when it is read; bindings are known to one process only. Files: see
`kombu_folder`. On all: a requeued fanout message goes to all queues again, and `#` asks for a dot.
So this channel replaces how messages and bindings are kept, and leaves the rest to kombu: URLs, connection, encoding, channel, acks.
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection
from queue import Empty
from typing import Any, ClassVar, Protocol

from kombu.exceptions import ChannelError
from kombu.transport import virtual

from common.transport.port import QueueDepth

_KombuQoS: Any = virtual.QoS
_KombuChannel: Any = virtual.Channel
_ChannelError: Any = ChannelError
"""kombu's types say nothing."""

ANSWER_TIMEOUT_S = 4.0
"""Longest wait for one answer of redis or a database; less than whoever waits for the thread gives it."""
LEASE_S = 10.0
"""A member of a bus that has no other sign of its death is taken for dead after so long without a word."""

_LOG = logging.getLogger(__name__)


class NoSuchQueue(_ChannelError):  # type: ignore[misc]  # as said above
    """AMQP's 404."""


class Claim(Protocol):
    """A message that this member holds."""

    @property
    def data(self) -> bytes: ...
    @property
    def redelivered(self) -> bool: ...


class Presence(Protocol):
    """One consumer, as others count it."""

    @property
    def pipe(self) -> int:
        """A descriptor that is readable when the consumer is called; -1: nobody calls it, it has to ask."""
        ...

    def drain(self) -> None:
        """Forget the calls that wait."""
        ...

    def close(self) -> None:
        """A second call does nothing."""
        ...


class Store(Protocol):
    """Queues and bindings that processes share, seen by one member of the bus. All calls block; errors are the driver's."""

    poll_s: tuple[float, float]
    """A consumer looks by itself again after this time, and after longer and longer, up to that time, when nothing comes."""

    def declare(self, queue: str, *, auto_delete: bool, expires_ms: int | None) -> bool:
        """Make the queue unless it is there; True when it was not."""
        ...

    def has(self, queue: str) -> bool:
        """True when it was declared and not deleted."""
        ...

    def delete(self, queue: str) -> None:
        """Drop the queue, its bindings and messages, those that somebody holds too. Nothing happens when there is none."""
        ...

    def bind(self, exchange: str, key: str, queue: str) -> None:
        """The queue takes from the exchange; a second time nothing happens."""
        ...

    def table(self, exchange: str) -> list[tuple[str, str, str]]:
        """(routing key, anything, queue) of each binding; none when there is no such exchange."""
        ...

    def put(self, queue: str, data: bytes) -> bool:
        """Append a message and call the queue's consumers; False when there is no such queue."""
        ...

    def take(self, queue: str) -> Claim | None:
        """The queue's first message; None when none waits or there is no such queue."""
        ...

    def release(self, claim: Any) -> bool:
        """Done with it; False when it was not held any more, because this member was taken for dead."""
        ...

    def give_back(self, claim: Any) -> None:
        """To its old place in the queue."""
        ...

    def give_back_others(self, claims: Collection[Any]) -> None:
        """What this member holds, `claims` excepted: after an error nobody knows whether a message was taken or settled."""
        ...

    def join(self, queue: str) -> Presence:
        """One more consumer of the queue."""
        ...

    def consumers(self, queue: str) -> int:
        """How many living consumers the queue has."""
        ...

    def depth(self, queue: str) -> QueueDepth | None:
        """How full the queue is; None when there is none."""
        ...

    def drop_auto_delete(self, queue: str) -> None:
        """Delete the queue if it was declared to end with its last consumer, and has none."""
        ...

    def sweep(self, queues: Collection[str]) -> None:
        """Say that this member lives and uses `queues`; give back what dead ones held, drop the queues whose time is over."""
        ...

    def leave(self) -> None:
        """No longer a member; what it held goes back."""
        ...


class StoreQoS(_KombuQoS):  # type: ignore[misc]  # as said above
    """Settles at the store what is settled at kombu."""

    def ack(self, delivery_tag: str) -> None:
        self.channel.settle(delivery_tag, requeue=False)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self.channel.settle(delivery_tag, requeue=requeue)
        self._quick_ack(delivery_tag)


class StoreChannel(_KombuChannel, ABC):  # type: ignore[misc]  # as said above
    """A kombu channel whose queues are a `Store`'s. Comes before kombu's own channel among the bases."""

    QoS = StoreQoS
    do_restore = False
    expected_errors: ClassVar[tuple[type[BaseException], ...]] = (OSError,)
    """What may come out of the store when the bus is away."""

    def __init__(self, connection: Any, **options: Any) -> None:
        super().__init__(connection, **options)
        self.store = self.open_store()
        self._claims: dict[str, Any] = {}
        self._is_doubtful = False

    @abstractmethod
    def open_store(self) -> Store:
        """Where the messages are."""

    def exchange_declare(self, **_: Any) -> None:
        """An exchange is its bindings; what kind it is, the publisher knows."""

    def queue_declare(self, queue: str, passive: bool = False, **options: Any) -> bool:
        """True when the queue was made. Raises ChannelError 404 for a passive one of a queue that is not there."""
        if not passive:
            expires_ms = (options.get("arguments") or {}).get("x-expires")
            return self.store.declare(queue, auto_delete=bool(options.get("auto_delete")), expires_ms=expires_ms)
        if not self.store.has(queue):
            raise _no_queue(queue)
        return False

    def queue_bind(self, queue: str, exchange: str, routing_key: str = "", **_: Any) -> None:
        self.store.bind(exchange, routing_key, queue)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> None:  # noqa: ARG002 - kombu's
        self.store.delete(queue)

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        return self.store.table(exchange)

    def settle(self, delivery_tag: str, *, requeue: bool) -> None:
        """Let go of what `basic_get` claimed. Raises ChannelError when it is not ours any more."""
        claim = self._claims.pop(delivery_tag)
        try:
            if requeue:
                self.store.give_back(claim)
            elif not self.store.release(claim):
                raise ChannelError("the message went to another consumer: this one gave no sign of life for too long")
        except self.expected_errors:
            self._is_doubtful = True
            raise

    def sweep(self, queues: Collection[str]) -> None:
        """What is to be done now and then."""
        self.store.sweep(queues)
        if self._is_doubtful:
            self.store.give_back_others(list(self._claims.values()))
            self._is_doubtful = False

    def close(self) -> None:
        """What is unsettled goes back."""
        if self.closed:
            return
        self._claims.clear()
        try:
            self.store.leave()
        finally:
            super().close()

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:
        if not self.store.put(queue, json.dumps(payload).encode()):
            raise _no_queue(queue)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002 - kombu's signature
        while (claim := self._take(queue)) is not None:
            try:
                message: dict[str, Any] = json.loads(claim.data)
                message["properties"]["redelivered"] = claim.redelivered
                self._claims[message["properties"]["delivery_tag"]] = claim
            except (ValueError, KeyError, TypeError):
                # A power cut may leave an empty file; nobody could read it at a second try either.
                _LOG.exception("dropped an entry of queue %s that is no message", queue)
                self.store.release(claim)
            else:
                return message
        raise Empty

    def _take(self, queue: str) -> Claim | None:
        try:
            return self.store.take(queue)
        except self.expected_errors:
            self._is_doubtful = True
            raise


def _no_queue(queue: str) -> NoSuchQueue:
    return NoSuchQueue(f"NOT_FOUND - no queue {queue!r}", (50, 10), "Queue.declare", "404")
