"""The caller's half: which calls wait for a reply, and whose reply this is."""

from collections.abc import Sequence
from typing import Generic, TypeVar

from common.base.errors import Unavailable
from common.wire.messages import Reply

W = TypeVar("W")


class TooManyCalls(Unavailable):
    """This process has {limit} calls in flight, its limit; one more is refused."""

    code = 429


class InFlight(Generic[W]):
    """Calls by `_msg_id`, each with the waiter of the caller's choice. Replies to nobody are counted in `late`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[str, W] = {}
        self.late = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, msg_id: str, waiter: W) -> None:
        """`waiter` waits for `msg_id` from now on, until `remove`. Raises TooManyCalls at the limit."""
        if len(self._waiting) >= self._limit:
            raise TooManyCalls(limit=self._limit)
        self._waiting[msg_id] = waiter

    def remove(self, msg_id: str) -> None:
        """Nobody waits for it any more."""
        del self._waiting[msg_id]

    def waiters(self) -> Sequence[W]:
        """Everybody who waits now."""
        return tuple(self._waiting.values())

    def claim(self, reply: Reply) -> W | None:
        """Who waits for this reply or sign of life; None when nobody does any more."""
        waiter = self._waiting.get(reply.msg_id)
        if waiter is None:
            self.late += 1
        return waiter
