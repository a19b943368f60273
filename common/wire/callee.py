"""The callee's half: which requests were served before, and what was answered."""

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Answer:
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
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._bodies: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0

    def recall(self, unique_id: str | None) -> Answer | None:
        """What the request of this id came to; None: it was never served here, or too long ago. One without an id is always new."""
        return None if unique_id is None else self._answers.get(unique_id)

    def record(self, unique_id: str | None, body: bytes | None) -> None:
        """The request was served."""
        if unique_id is None or unique_id in self._answers:
            return
        self._answers[unique_id] = Answer(body)
        if body is not None:
            self._bodies[unique_id] = len(body)
            self._bytes += len(body)
        while len(self._answers) > self._count:
            self._drop_body(self._answers.popitem(last=False)[0])
        while self._bytes > self._bytes_max:
            oldest = next(iter(self._bodies))
            self._drop_body(oldest)
            self._answers[oldest] = Answer()

    def _drop_body(self, unique_id: str) -> None:
        self._bytes -= self._bodies.pop(unique_id, 0)


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
