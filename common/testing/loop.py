"""An event loop on virtual time: no threads, no I/O, and the next timer is always due.

Work belongs to an `Owner`, a simulated process, found in the context that every callback of asyncio carries. So a process can be
killed (nothing of it ever runs again, not even a `finally`) or stopped (what is due to it waits) at any instant.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from itertools import count
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")

STEPS_MAX = 2_000_000
"""Callbacks of one run: beyond it something turns in a circle without time going on."""
VIRTUAL_S_MAX = 24 * 3600.0
"""Seconds of one run."""

_DUE = 1e-9
_BURIALS_MAX = 100


class Owner:
    """Whose work a callback is. One that is stopped for good was killed."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[asyncio.Handle] | None = None
        """What is due while it is stopped; None: it runs."""


OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)


class DeadLock(Exception):
    """Nothing is ready, nothing is timed: whoever waits now waits for ever."""


class RanTooLong(Exception):
    """A run went beyond its bound of steps or of virtual time."""


class _Task(asyncio.Task[Any]):
    """A task that sets keep in the order of making, so that a run does not depend on where objects lie in memory."""

    def __init__(self, number: int, *args: Any, **kwargs: Any) -> None:
        self._number = number
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """`time()` is virtual and begins at `begin_s`. Made for one run; see `run`."""

    # Of asyncio.BaseEventLoop, which typeshed does not show.
    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self, *, begin_s: float = 0.0, steps_max: int = STEPS_MAX, virtual_s_max: float = VIRTUAL_S_MAX) -> None:
        super().__init__()
        self._now_s = begin_s
        self._steps_left = steps_max
        self._end_s = begin_s + virtual_s_max
        self._tasks = count(1)
        self._alive: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = count()
        self._frozen: list[Owner] = []
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]  # typeshed wants a protocol with any keywords

    def time(self) -> float:
        return self._now_s

    def call_at(  # type: ignore[override]  # typeshed ties the arguments to the callback
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Timers that are due at the same instant run in the order of their making."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._timers_made), timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]  # noqa: ARG002
        """Threads have no place here."""
        raise RuntimeError(f"{func} wants a thread; a simulation has none")

    def freeze(self, owner: Owner) -> None:
        """What is due to `owner` waits from now on."""
        if owner.waiting is None:
            owner.waiting = []
            self._frozen.append(owner)

    def thaw(self, owner: Owner) -> None:
        """`owner` runs on, with what became due meanwhile."""
        waiting, owner.waiting = owner.waiting, None
        if waiting is not None:
            self._frozen.remove(owner)
            self._ready.extend(waiting)

    def close(self) -> None:
        super().close()
        self._timers.clear()

    def bury(self) -> None:
        """Cancel every task that is left, of stopped owners too, until none is. Their ports must not wait any more."""
        for owner in tuple(self._frozen):
            self.thaw(owner)
        for _ in range(_BURIALS_MAX):
            left = sorted((task for task in self._alive if not task.done()), key=hash)
            if not left:
                return
            for task in left:
                task.cancel()
            for _ in range(_BURIALS_MAX):
                if not self._ready:
                    break
                self.call_soon(self.stop)
                self.run_forever()
        raise RuntimeError(f"tasks outlive their cancellation: {left[:3]}")

    def _make_task(self, loop: asyncio.AbstractEventLoop, work: Generator[Any, None, T], context: Context | None = None) -> _Task:
        task = _Task(next(self._tasks), work, loop=loop, context=context)
        self._alive.add(task)  # asyncio.all_tasks would look through those of all loops that are not collected yet
        return task

    def _run_once(self) -> None:
        """As `asyncio.BaseEventLoop._run_once` of Python 3.11, with a jump where that one waits."""
        timers, ready = self._timers, self._ready
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not ready and not self._stopping:
            if not timers:
                raise DeadLock("nothing is ready and no timer is set")
            self._now_s = max(self._now_s, timers[0][0])
            if self._now_s > self._end_s:
                raise RanTooLong(f"the run is at {self._now_s:.0f} virtual seconds")
        due = self._now_s + _DUE
        while timers and timers[0][0] < due:
            ready.append(heapq.heappop(timers)[2])
        number = len(ready)
        self._steps_left -= number
        if self._steps_left < 0:
            raise RanTooLong(f"too many steps; the run is at {self._now_s:.3f} virtual seconds")
        for _ in range(number):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            owner = handle._context.get(OWNER)
            if owner is None or owner.waiting is None:
                handle._run()
            else:
                owner.waiting.append(handle)

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""


def run(loop: VirtualLoop, main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns. Whatever it left behind is cancelled, and the loop closed."""
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            loop.bury()
        finally:
            asyncio.set_event_loop(None)
            loop.close()
