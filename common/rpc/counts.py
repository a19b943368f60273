"""What happened on a connection that no caller hears of, counted: for metrics, tools and tests."""

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum


class Event(StrEnum):
    """What is counted. The reasons of an event are few, so that each can be a label."""

    REFUSED = "refused"
    """A message that cannot be read, or asks for what must not be; the reason says which."""
    REDELIVERED = "redelivered"
    """A request that came again after its server died or lost the bus."""
    DUPLICATE = "duplicate"
    """A request that was served before; it got the same answer."""
    DEAD_LETTER = "dead_letter"
    """A message that went to the dead-letter queue."""
    CANCELLED = "cancelled"
    """A call whose caller left."""
    EXPIRED = "expired"
    """A call whose deadline passed while it was served."""
    REPLY_ORPHAN = "reply_orphan"
    """A reply that nobody waited for."""
    REPLY_LOST = "reply_lost"
    """A reply whose queue was missing until its time was over."""
    RESENT = "resent"
    """A call of an exactly-once method that was sent again."""


class Counts:
    """Counts of one process or one test."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Event, str]] = Counter()

    def add(self, event: Event, reason: str = "") -> None:
        """One more."""
        self._counts[event, reason] += 1

    def of(self, event: Event) -> int:
        """How often, for whatever reason."""
        return sum(number for (found, _), number in self._counts.items() if found is event)

    def __iter__(self) -> Iterator[tuple[Event, str, int]]:
        """(event, reason, number), in a fixed order. Other threads may ask too: the copy is made in one step."""
        return iter(sorted((event, reason, number) for (event, reason), number in tuple(self._counts.items())))
