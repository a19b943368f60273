"""Messages that no server can do anything with, kept with the reason until a person has looked at them.

Each topic has one queue for them, `<topic>_dead_letter`, durable and bounded. What led there travels in headers.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from common.base.clock import Clock
from common.base.errors import Fault, NotFound
from common.base.limits import DEAD_LETTERS_BYTES_MAX, DEAD_LETTERS_MAX, FAULT_TEXT_MAX, PUBLISH_TIMEOUT_S
from common.rpc.options import RpcOptions
from common.rpc.topology import topic_exchange
from common.transport.port import Delivery, Message, Queue, Transport, Unroutable
from common.wire.address import dead_letter_queue
from common.wire.compression import plain
from common.wire.envelope import NotAMessage
from common.wire.messages import Request, decode_request

ATTEMPTS = "x-lite-attempts"
"""How often a message was begun without an end, before this delivery."""
_BROKERS_ATTEMPTS = "x-delivery-count"
"""RabbitMQ's own count, of quorum queues."""
REQUEUES = "x-lite-requeues"
"""How often a person sent the message back. Each time it is a new piece of work: what came of it before no longer counts."""
_EXCHANGE = "x-lite-exchange"
_QUEUE, _REASON, _ERROR, _SERVER, _AT = "x-lite-queue", "x-lite-reason", "x-lite-error", "x-lite-server", "x-lite-died-at"


class NoSuchDeadLetter(NotFound):
    """No dead letter {name} in {queue}; `lite dlq list` shows those that are there."""


_NEVER = [None, None]


def attempts_of(headers: Mapping[str, Any]) -> int:
    """How often the message was begun before; 0 for what is no number."""
    found = [headers.get(_BROKERS_ATTEMPTS), headers.get(ATTEMPTS)]
    if found == _NEVER:
        return 0
    return max((number for number in found if isinstance(number, int) and not isinstance(number, bool) and number > 0), default=0)


def requeues_of(headers: Mapping[str, Any]) -> int:
    """How often the message was sent back by hand."""
    found = headers.get(REQUEUES)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0


def is_counted(headers: Mapping[str, Any]) -> bool:
    """True when the broker counts deliveries itself."""
    return _BROKERS_ATTEMPTS in headers


def queue_of(topic: str) -> Queue:
    """The dead-letter queue of a topic, as it is declared."""
    bounds = {"x-max-length": DEAD_LETTERS_MAX, "x-max-length-bytes": DEAD_LETTERS_BYTES_MAX}
    return Queue(dead_letter_queue(topic), durable=True, arguments=bounds)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that lies there.

    id        its `_unique_id`; of a message that cannot be read, a digest of its body
    queue     where it came from, and goes back to
    request   None when it cannot be read
    """

    id: str
    queue: str
    reason: str
    error: str
    server: str
    died_at: str
    attempts: int
    body: bytes
    request: Request | None

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        """What a delivery from a dead-letter queue tells."""
        import hashlib  # noqa: PLC0415  # a server needs none of it

        body = delivery.body
        try:
            body = plain(delivery.body, delivery.headers)
            request = decode_request(body)
        except NotAMessage:
            request = None
        words = {key: str(delivery.headers.get(key, "")) for key in (_QUEUE, _REASON, _ERROR, _SERVER, _AT)}
        return cls(
            id=(request.unique_id if request else None) or hashlib.sha256(body).hexdigest()[:32],
            queue=words[_QUEUE],
            reason=words[_REASON],
            error=words[_ERROR],
            server=words[_SERVER],
            died_at=words[_AT],
            attempts=attempts_of(delivery.headers),
            body=body,
            request=request,
        )


class Morgue:
    """Where a server puts what is dead."""

    def __init__(self, transport: Transport, *, topic: str, server: str, exchange: str, clock: Clock) -> None:
        self._transport = transport
        self._queue = queue_of(topic)
        self._server = server
        self._exchange = exchange
        self._clock = clock
        self._is_declared = False

    async def take(self, delivery: Delivery, *, queue: str, error: Exception, attempts: int) -> None:
        """Keep a copy of `delivery`, which the caller then acks. Raises Unavailable when the bus does not take it."""
        if not self._is_declared:
            await self._transport.declare(self._queue)
            self._is_declared = True
        headers = {
            **delivery.headers,
            ATTEMPTS: attempts,
            _QUEUE: queue,
            _EXCHANGE: self._exchange,
            _REASON: str(error)[:FAULT_TEXT_MAX],
            _ERROR: type(error).__name__,
            _SERVER: self._server,
            _AT: f"{self._clock.utcnow():%Y-%m-%dT%H:%M:%SZ}",
        }
        await self._transport.publish(
            Message(None, self._queue.name, delivery.body, headers=headers, content_type=delivery.content_type or ""),
            timeout_s=PUBLISH_TIMEOUT_S,
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """One of many that were sent back or dropped. `error`: why it is still there."""

    letter: DeadLetter
    error: Fault | None = None


class DeadLetters:
    """The dead letters of one topic, for those who look after them."""

    def __init__(self, transport: Transport, topic: str, options: RpcOptions | None = None) -> None:
        self._transport = transport
        self._options = options or RpcOptions()
        self.queue = dead_letter_queue(topic)

    async def all(self, limit: int) -> list[DeadLetter]:
        """The oldest `limit` of them; they stay."""
        return [letter for letter, _ in await self._held(limit, keep=_none)]

    async def find(self, name: str) -> DeadLetter:
        """The one of that id, or of the only id that begins so. Raises NoSuchDeadLetter."""
        return _one(await self._held(DEAD_LETTERS_MAX, keep=_none), name, self.queue)[0]

    async def requeue(self, name: str) -> DeadLetter:
        """Send it to the queue that it came from, with its count at nought. Raises NoSuchDeadLetter, Unroutable: it stays."""
        return await self._take(name, is_sent=True)

    async def drop(self, name: str) -> DeadLetter:
        """Remove it for good. Raises NoSuchDeadLetter."""
        return await self._take(name, is_sent=False)

    async def requeue_all(self, ids: Collection[str]) -> list[Taken]:
        """Send back those of these ids, the oldest first; one that its queue does not take stays, and tells why."""
        return await self._take_all(ids, is_sent=True)

    async def drop_all(self, ids: Collection[str]) -> list[Taken]:
        """Remove those of these ids for good."""
        return await self._take_all(ids, is_sent=False)

    async def _take_all(self, ids: Collection[str], *, is_sent: bool) -> list[Taken]:
        held = await self._held(DEAD_LETTERS_MAX, keep=lambda letter: letter.id in ids)
        wanted = [(letter, delivery) for letter, delivery in held if letter.id in ids]
        taken: list[Taken] = []
        try:
            while wanted:
                letter, delivery = wanted[0]
                taken.append(Taken(letter, await self._settle(letter, delivery, is_sent=is_sent)))
                wanted.pop(0)
        finally:
            for _, delivery in wanted:
                await delivery.reject(requeue=True)
        return taken

    async def _settle(self, letter: DeadLetter, delivery: Delivery, *, is_sent: bool) -> Fault | None:
        if is_sent:
            try:
                await self._send(letter, delivery)
            except Unroutable as exc:
                await delivery.reject(requeue=True)
                return exc
        await delivery.ack()
        return None

    async def _take(self, name: str, *, is_sent: bool) -> DeadLetter:
        held = await self._held(DEAD_LETTERS_MAX, keep=partial(_is_named, name=name))
        try:
            letter, delivery = _one(held, name, self.queue)
            if is_sent:
                await self._send(letter, delivery)
            await delivery.ack()
            held = [(other, found) for other, found in held if found is not delivery]
        finally:
            for other, found in held:
                if _is_named(other, name):
                    await found.reject(requeue=True)
        return letter

    async def _send(self, letter: DeadLetter, delivery: Delivery) -> None:
        content_type = delivery.content_type or "application/json"
        headers = {REQUEUES: requeues_of(delivery.headers) + 1}
        # By the exchange it came by, not straight to its queue: whoever looks after dead letters need not be let to
        # write into every queue.
        origin = delivery.headers.get(_EXCHANGE)
        exchange = topic_exchange(self._options, origin) if isinstance(origin, str) and origin else None
        message = Message(exchange, letter.queue, letter.body, mandatory=True, headers=headers, content_type=content_type)
        await self._transport.publish(message, timeout_s=PUBLISH_TIMEOUT_S)

    async def _held(self, limit: int, *, keep: Callable[[DeadLetter], bool]) -> list[tuple[DeadLetter, Delivery]]:
        """The oldest `limit`; those that are to be kept stay in hand, the others go back."""
        found: list[tuple[DeadLetter, Delivery]] = []
        try:
            while len(found) < limit and (delivery := await self._transport.get(self.queue)) is not None:
                found.append((DeadLetter.of(delivery), delivery))
        finally:
            for letter, delivery in reversed(found):
                if not keep(letter):
                    await delivery.reject(requeue=True)
        return found


def _none(_: DeadLetter) -> bool:
    return False


def _is_named(letter: DeadLetter, name: str) -> bool:
    return letter.id.startswith(name)


def _one(held: list[tuple[DeadLetter, Delivery]], name: str, queue: str) -> tuple[DeadLetter, Delivery]:
    named = [(letter, delivery) for letter, delivery in held if _is_named(letter, name)]
    exact = [(letter, delivery) for letter, delivery in named if letter.id == name]
    if len(exact or named) != 1:
        raise NoSuchDeadLetter(name=name if not named else f"{name} alone: {len(named)} begin so", queue=queue)
    return (exact or named)[0]
