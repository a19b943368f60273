"""Callers that leave: their handlers end, and requests that are still to come are not begun."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable
from typing import TypeVar

from common.base.limits import CANCELLATIONS_REMEMBERED

T = TypeVar("T")


class CallerLeft(Exception):
    """Nobody waits for this call any more."""


class Callers:
    """The calls of one server by `_msg_id`, each with the task that runs it."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[object]] = {}
        self._left: OrderedDict[str, None] = OrderedDict()

    def leave(self, msg_id: str) -> None:
        """The caller of this call is gone."""
        self._left[msg_id] = None
        if len(self._left) > CANCELLATIONS_REMEMBERED:
            self._left.popitem(last=False)
        if (task := self._tasks.get(msg_id)) is not None:
            task.cancel()

    def may_have_left(self, msg_id: str | None) -> bool:
        """True when `has_left` must be asked."""
        return msg_id in self._left

    def has_left(self, msg_id: str | None) -> bool:
        """True once for a call whose caller left before it was begun."""
        return msg_id is not None and self._left.pop(msg_id, self) is None

    async def run(self, msg_id: str, work: Awaitable[T]) -> T:
        """What `work` returns, in the caller's own task. Raises CallerLeft when `leave` ended it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[msg_id] = task
        try:
            return await work
        except asyncio.CancelledError:
            if self.has_left(msg_id) and task.uncancel() == 0:
                raise CallerLeft from None
            raise
        finally:
            del self._tasks[msg_id]
