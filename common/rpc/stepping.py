"""Coroutines that are begun before anybody knows whether they need to wait.

A task for each request costs a tenth of a call, a time limit another one; a handler that finishes at once needs neither. Python 3.12
has eager tasks for the first; until then this is what they do.
"""

from collections.abc import Coroutine, Generator
from contextvars import Context
from types import coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Begun(Generic[T]):
    """A coroutine after its first step: it has ended with `result`, or waits for something and goes on with `rest`.

    context   what it runs in, this step and all others; None: that of whoever steps
    The constructor raises what the first step raised.
    """

    __slots__ = ("_context", "_waits_for", "_work", "is_done", "result")

    result: T

    def __init__(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> None:
        self._work = work
        self._context = context
        try:
            self._waits_for = work.send(None) if context is None else context.run(work.send, None)
        except StopIteration as ended:
            self.result = ended.value
            self.is_done = True
        else:
            self.is_done = False

    @coroutine
    def rest(self) -> Generator[Any, Any, T]:
        """What is left of it, in the task that awaits this, which must be the one that stepped it."""
        send, throw, waits_for = self._work.send, self._work.throw, self._waits_for
        run = None if self._context is None else self._context.run
        try:
            while True:
                try:
                    answer = yield waits_for
                except GeneratorExit:
                    self._work.close()
                    raise
                except BaseException as exc:  # noqa: BLE001 - what the task throws in is the coroutine's, a cancellation above all
                    waits_for = throw(exc) if run is None else run(throw, exc)
                else:
                    waits_for = send(answer) if run is None else run(send, answer)
        except StopIteration as ended:
            result: T = ended.value
            return result
