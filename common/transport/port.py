"""What a transport promises, in AMQP's terms. The conformance suite's tests carry these numbers.

 1. `publish` returns once the bus has the message (a broker's confirm), or raises; it never waits longer than its timeout.
 2. A mandatory message that no queue takes raises `Unroutable`; one that is not mandatory is dropped in silence.
 3. A topic exchange routes by AMQP's rules: words divided by dots, `*` one word, `#` none or more; a fanout exchange to all its
    queues; the default exchange (None) to the queue named by the routing key.
 4. Each message of a queue goes to one of its consumers; consumers of one queue take turns.
 5. A consumer holds at most `prefetch` unsettled deliveries; the rest wait in the queue.
 6. `ack` removes a delivery; `reject(requeue=True)` puts it back with `redelivered` set; `reject(requeue=False)` drops it.
    Settling twice is an error of the caller: ValueError.
 7. Deliveries unsettled when their consumer or connection ends go back to the queue.
 8. A message whose `expiration_ms` runs out before it is delivered is never delivered.
 9. Body, content type and headers arrive as they were sent.
10. A queue and its bindings are there before `consume` returns, and again after a reconnect, without the caller's help.
11. `consumers` counts who consumes a queue now: 0 when there is no such queue, None when the transport cannot know.
12. `close` ends every consumer and returns; using a closed transport raises `Closed`.
13. Messages between one publisher and one queue keep their order.
14. An unreachable bus raises `BusUnavailable` within the timeout, naming where it was looked for, never its password.
15. `declare` makes a queue with its bindings and consumes nothing: what is published from then on waits there.
16. `get` takes the oldest waiting message of a queue, unsettled as a delivery of `consume` is; None when nothing waits there.
17. `consume` says by `on_remade` when its queue had to be made anew: what waited there, and who was bound, was lost.
18. `depth` counts what waits in a queue and who consumes it; None when there is no such queue.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol, runtime_checkable

import msgspec

from common.base.errors import Invalid, Unavailable


class BusUnavailable(Unavailable):
    """The message bus {url} is not available: {reason}. Start it, or correct transport_url."""


class Unroutable(Invalid):
    """Nobody listens: no queue takes a message to {address}."""

    # Not NotFound: whoever asks for a thing, and finds nobody to ask, knows nothing of the thing.
    code = 404
    retryable = True


class Closed(Unavailable):
    """The transport {url} was closed."""

    retryable = False


class MessageTooLarge(Invalid):
    """A message of {size_bytes} bytes is larger than the limit of {limit_bytes} bytes."""

    code = 413


class Lack(Enum):
    """Promises that some transports cannot keep; each adapter declares its own in `lacks`."""

    REDELIVERY = auto()
    """7 holds when the consumer is closed in order, not when its process is killed."""
    COUNTING = auto()
    """11: `consumers` is None."""
    TURNS = auto()
    """4: a message goes to one consumer, but nobody promises which."""
    ONE_PROCESS = auto()
    """Other processes cannot reach it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange as it is declared. `kind` is "topic", "fanout" or "direct"."""

    name: str
    kind: str
    durable: bool = False
    auto_delete: bool = False

    def __hash__(self) -> int:
        return hash(self.name)  # each publish asks for it; two of one name and different kinds are rare


@dataclass(frozen=True, slots=True)
class Binding:
    """A queue takes from `exchange` what matches `key`."""

    exchange: Exchange
    key: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue as it is declared, with the bindings that it has while it is consumed.

    arguments           of the declaration: `x-expires`, `x-queue-type`
    consume_arguments   of the subscription; for a stream `x-stream-offset`, which after a reconnect is where it was left
    """

    name: str
    bindings: tuple[Binding, ...] = ()
    durable: bool = False
    auto_delete: bool = False
    exclusive: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    consume_arguments: Mapping[str, Any] = field(default_factory=dict)


class Message(msgspec.Struct, frozen=True, gc=False):
    """What is published; `msgspec.structs.replace` changes it.

    exchange        None: the default exchange, which routes to the queue named `key`
    expiration_ms   whole milliseconds >= 0 that it may wait in a queue; None: for ever
    """

    exchange: Exchange | None
    key: str
    body: bytes
    mandatory: bool = False
    expiration_ms: int | None = None
    headers: Mapping[str, Any] = msgspec.field(default_factory=dict)
    content_type: str = "application/json"
    content_encoding: str = "utf-8"


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How full a queue is; None is what a transport cannot know.

    ready       messages that wait
    unsettled   messages that consumers hold
    oldest_s    seconds since the oldest waiting message was published
    """

    ready: int
    unsettled: int | None = None
    consumers: int | None = None
    oldest_s: float | None = None


class Delivery(Protocol):
    """A message that a consumer holds until it settles it."""

    @property
    def body(self) -> bytes: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def headers(self) -> Mapping[str, Any]: ...
    @property
    def redelivered(self) -> bool: ...

    async def ack(self) -> None:
        """Done with it. Raises BusUnavailable when the connection that brought it is gone: it will be redelivered."""
        ...

    def ack_soon(self) -> None:
        """Ack it without waiting. A connection that is gone redelivers it, and nobody is told."""
        ...

    async def reject(self, *, requeue: bool) -> None:
        """Give it back, or drop it."""
        ...


@runtime_checkable
class Routed(Protocol):
    """A delivery that also knows how it was published; those of RabbitMQ do."""

    @property
    def exchange(self) -> str: ...
    @property
    def routing_key(self) -> str: ...


class Consumer(Protocol):
    """A running subscription."""

    async def cancel(self) -> None:
        """No further deliveries; those already handed out can still be settled. A second call does nothing."""
        ...


class Transport(Protocol):
    """A connection to a bus; numbered promises at the head of this module."""

    @property
    def lacks(self) -> frozenset[Lack]:
        """The promises that this adapter cannot keep."""
        ...

    @property
    def url(self) -> str:
        """Where it is connected to, without a password."""
        ...

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        """Hand `message` to the bus.

        Raises Unroutable (2), BusUnavailable (14), MessageTooLarge, Closed, common.base.errors.Timeout without a confirm in time.
        """
        ...

    async def consume(
        self, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None], on_remade: Callable[[], None] | None = None
    ) -> Consumer:
        """Declare and bind `queue` and call `on_delivery` for each message. Callbacks must return at once and must not raise."""
        ...

    async def declare(self, queue: Queue) -> None:
        """Make `queue`, its exchanges and bindings, as far as they are not there (15)."""
        ...

    async def get(self, queue: str) -> Delivery | None:
        """The oldest message that waits in the queue of that name (16)."""
        ...

    async def delete_queue(self, name: str) -> None:
        """Remove a queue and what waits in it; nothing happens when there is none."""
        ...

    async def consumers(self, queue: str) -> int | None:
        """How many consume the queue of that name now (11)."""
        ...

    async def depth(self, queue: str) -> QueueDepth | None:
        """How full the queue of that name is (18)."""
        ...

    async def close(self) -> None:
        """End everything; a second call does nothing."""
        ...


@runtime_checkable
class Pipelining(Protocol):
    """A transport that can publish without a task that waits."""

    def publish_soon(self, message: Message, on_end: Callable[[Exception | None], None]) -> bool:
        """Send it, if that needs no waiting now; `on_end` hears what came of it, and must return at once and not raise.

        It is told None with the confirm (1), Unroutable (2), BusUnavailable for a connection that was lost with it: nothing is
        tried again. False: it was not sent, and `on_end` is not called. Raises MessageTooLarge, Closed.
        """
        ...
