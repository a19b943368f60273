"""Agreeing with peers that declared exchanges and queues differently: from the broker's words to what to declare next; pure.

Source: oslo_messaging/_drivers/impl_rabbit.py: a peer may have been told `amqp_durable_queues` and we not, or the other way.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from common.transport.port import Exchange, Queue

INTERNAL_ERROR_PAUSE_S = 2.0
"""oslo.messaging's wait after a 541, "INTERNAL_ERROR"."""

_CONFLICT = re.compile(r"inequivalent arg 'durable' for (exchange|queue) '([^']*)'")

Declared = TypeVar("Declared", Exchange, Queue)


@dataclass(frozen=True, slots=True)
class Conflict:
    """What the broker holds with the other durability: an "exchange" or a "queue", and its name."""

    kind: str
    name: str


def conflict_of(said: str) -> Conflict | None:
    """None when the broker's 406 is about something else than `durable`."""
    found = _CONFLICT.search(said)
    return Conflict(found[1], found[2]) if found else None


def flipped(wanted: Sequence[Declared], said: str) -> tuple[Declared, ...] | None:
    """`wanted` with the other durability for the one that the broker's 406 names; None when it names none of them."""
    conflict = conflict_of(said)
    answer = tuple(replace(item, durable=not item.durable) if _is(item, conflict) else item for item in wanted)
    return None if answer == tuple(wanted) else answer


def flipped_queue(queue: Queue, said: str) -> Queue | None:
    """The same for a queue and the exchanges it is bound to.

    Where the broker names an exchange, the queue follows it: an oslo.messaging peer that meets a transient exchange declares both
    as transient, and one that does not know how to follow a durable exchange does not get as far as this queue. A queue with a type
    of its own (quorum, stream) stays as it is: the broker has it durable or not at all.
    """
    if _is(queue, conflict_of(said)):
        return replace(queue, durable=not queue.durable)
    exchanges = flipped([binding.exchange for binding in queue.bindings], said)
    if exchanges is None:
        return None
    bindings = tuple(replace(binding, exchange=exchange) for binding, exchange in zip(queue.bindings, exchanges, strict=True))
    follows = "x-queue-type" not in queue.arguments and "x-expires" not in queue.arguments
    durable = all(exchange.durable for exchange in exchanges) if follows else queue.durable
    return replace(queue, bindings=bindings, durable=durable)


def is_stuck(queue: Queue, said: str) -> bool:
    """Whether the broker's 404 to its declaration is about this queue, which is there, on a node that is down.

    "no queue" is about one that went away in between, as by a deletion: whoever deletes it then takes the one that another has made anew.
    """
    return f"queue '{queue.name}'" in said and f"no queue '{queue.name}'" not in said


def _is(item: Exchange | Queue, conflict: Conflict | None) -> bool:
    return conflict == Conflict("exchange" if isinstance(item, Exchange) else "queue", item.name)
