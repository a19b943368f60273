"""Which queues take a message: AMQP's routing as pure functions.

Sources: AMQP 0-9-1 specification, 3.1.3 "Exchange types"; where it is silent, RabbitMQ's `rabbit_exchange_type_topic`.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """One binding as routing sees it: the queue `queue` takes from an exchange what matches `key`."""

    key: str
    queue: str


def destinations(kind: str, key: str, routes: Iterable[Route]) -> tuple[str, ...]:
    """The queues that take a message with the routing key `key`, each once, in the order of `routes`.

    kind      of the exchange: "topic", "fanout" or "direct"
    routes    the bindings of that exchange, no others
    Raises ValueError for another kind.
    """
    match kind:
        case "fanout":
            taken = [route.queue for route in routes]
        case "direct":
            taken = [route.queue for route in routes if route.key == key]
        case "topic":
            taken = [route.queue for route in routes if matches(route.key, key)]
        case _:
            raise ValueError(f"{kind!r} is no kind of exchange: topic, fanout or direct")
    return tuple(dict.fromkeys(taken))


def matches(pattern: str, key: str) -> bool:
    """True when a topic exchange's binding `pattern` takes the routing key `key`.

    Words are divided by dots; `*` stands for one word, `#` for none or more; any other word for itself. The empty key has no
    words (RabbitMQ's reading), while "." has two empty ones. Takes time of the product of both lengths at most.
    """
    words = _words(key)
    reached = {0}
    """Numbers of words that the pattern's words so far can take."""
    for wanted in _words(pattern):
        match wanted:
            case "#":
                reached = set(range(min(reached), len(words) + 1))
            case "*":
                reached = {taken + 1 for taken in reached if taken < len(words)}
            case _:
                reached = {taken + 1 for taken in reached if taken < len(words) and words[taken] == wanted}
        if not reached:
            return False
    return len(words) in reached


def _words(text: str) -> list[str]:
    return text.split(".") if text else []
