"""The callee's half: which requests were served before, and what was answered."""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

import msgspec


class Answer(msgspec.Struct, frozen=True):
    """What a request came to. `body`: the reply to send again; None when nobody waited for one, or it was too old to be kept."""

    body: bytes | None = None


class Answers:
    """The last `count` requests by `_unique_id`, with their replies as long as all of these fit into `bytes_max`.

    A bus that redelivers gives each request at least once, and a caller that lost its bus may repeat one; this makes it once per
    process, and lets the repeated one end like the first.
    """

    def __init__(self, count: int, bytes_max: int) -> None:
        self._count = count
        self._bytes_max = bytes_max
        # One dictionary and two queues of the same strings: half the memory of ordered dictionaries.
        self._answers: dict[str, bytes | None] = {}
        self._order: deque[str] = deque()
        self._with_body: deque[str] = deque()
        self._bytes = 0

    def recall(self, unique_id: str | None) -> Answer | None:
        """What the request of this id came to; None: it was never served here, or too long ago. One without an id is always new."""
        if unique_id is None or unique_id not in self._answers:
            return None
        return Answer(self._answers[unique_id])

    def knows(self, unique_id: str) -> bool:
        """True when `recall` has an answer."""
        return unique_id in self._answers

    def record(self, unique_id: str | None, body: bytes | None) -> None:
        """The request was served."""
        if unique_id is None or unique_id in self._answers:
            return
        self._answers[unique_id] = body
        self._order.append(unique_id)
        if body is not None:
            self._with_body.append(unique_id)
            self._bytes += len(body)
        while self._bytes > self._bytes_max:
            self._drop_oldest_body()
        while len(self._order) > self._count:
            oldest = self._order.popleft()
            if self._with_body and self._with_body[0] == oldest:
                self._drop_oldest_body()
            del self._answers[oldest]

    def _drop_oldest_body(self) -> None:
        oldest = self._with_body.popleft()
        self._bytes -= len(self._answers[oldest] or b"")
        self._answers[oldest] = None


class Standing(Enum):
    """How a request stands that is to be served once among several processes."""

    NEW = auto()
    """Nobody began it; whoever asked has begun it now."""
    HELD = auto()
    """Somebody is at it who was alive a moment ago."""
    LOST = auto()
    """Whoever began it is gone: it may have happened, or a part of it."""
    DONE = auto()
    """It was served; the answer is at hand."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A request in an inbox. `owner`: who began it; `answer`: when it is DONE."""

    standing: Standing
    owner: str = ""
    answer: Answer | None = None
