"""The edge of every process, where errors become exit codes; and a service's life: ready, told to stop, drained in its grace or ended without it.

starting --ready()--> running --SIGTERM or SIGINT--> draining --body returns--> exit 0
                                                     draining --grace is over, or a second signal--> cancelled, exit 75
a Fault at any time: one line on stderr and its exit code; any other error: its traceback, exit 70
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from common.app.exits import Ending, Exit, ending
from common.app.masking import mask_text
from common.app.notify import READY, STOPPING, WATCHDOG, sd_notify, watchdog_interval_s
from common.base.clock import Clock
from common.base.limits import DRAIN_TIMEOUT_S
from common.host.clock import SystemClock

CANCEL_TIMEOUT_S = 5.0
"""After its grace a body is cancelled; one that does not end for that long is left behind with the whole process."""


def run_command(command: Callable[[], int], *, trace: bool) -> int:
    """What `command` returns, or the exit code of the error that left it, which is told in a line (`ending`). Broken pipes pass."""
    try:
        return command()
    except BrokenPipeError:
        raise
    except Exception as exc:
        return say(ending(exc, trace=trace))


def say(end: Ending) -> int:
    """Its text on stderr, without secrets; its code."""
    if end.text:
        sys.stderr.write(f"{mask_text(end.text)}\n")
        sys.stderr.flush()
    return end.code


class Lifetime:
    """What a service's body is given: it says when it is ready and hears when to stop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        """True from the first signal on."""
        return self._stop.is_set()

    async def stopped(self) -> None:
        """Returns when the process is told to stop; what was begun may be ended then, nothing new be taken."""
        await self._stop.wait()

    def ready(self, status: str = "") -> None:
        """Tell systemd, or `lite up`, that the service does its work now."""
        sd_notify(READY, *([f"STATUS={status}"] if status else []))

    def stop(self) -> None:
        """What the first signal does; a second call does what a second signal does: end at once."""
        if self._stop.is_set():
            self._hurry.set()
        else:
            sd_notify(STOPPING)
            self._stop.set()


Body = Callable[[Lifetime], Awaitable[None]]


def run_service(name: str, body: Body, *, grace_s: float = DRAIN_TIMEOUT_S) -> int:
    """`run_process` in an event loop of its own; the exit code for `sys.exit`."""
    return asyncio.run(run_process(name, body, grace_s=grace_s))


async def run_process(
    name: str,
    body: Body,
    *,
    grace_s: float = DRAIN_TIMEOUT_S,
    clock: Clock | None = None,
    abandon: Callable[[int], object] = os._exit,
) -> int:
    """Run `body` until it returns; its exit code. Signals are this function's while it runs.

    grace_s   how long `body` may go on after the first signal
    abandon   ends a process whose body does not end even when it is cancelled
    """
    life = Lifetime(name)
    try:
        with _signals(life):
            async with asyncio.TaskGroup() as group:
                work = group.create_task(_run(body, life), name=name)
                watchdog = group.create_task(_feed_watchdog(clock or SystemClock()), name=f"{name} watchdog")
                code = await _until_ended(life, work, group, grace_s)
                watchdog.cancel()
                if not work.done():
                    say(Ending(code, f"error: {name} does not end even when cancelled; it is left"))
                    abandon(code)
    except Exception as exc:
        return say(ending(exc, trace=True))
    return code


async def _run(body: Body, life: Lifetime) -> None:
    await body(life)


async def _until_ended(life: Lifetime, work: asyncio.Task[None], group: asyncio.TaskGroup, grace_s: float) -> Exit:
    await _first_of(work, life._stop, group, timeout_s=None)
    if not work.done():
        await _first_of(work, life._hurry, group, timeout_s=grace_s)
    if work.done():
        return Exit.OK
    why = "told to stop twice" if life._hurry.is_set() else f"not done {grace_s:g} s after it was told to stop"
    say(Ending(Exit.NOT_DRAINED, f"error: {life.name}: {why}; what it had in hand is taken up again after the next start"))
    work.cancel()
    await asyncio.wait({work}, timeout=CANCEL_TIMEOUT_S)
    return Exit.NOT_DRAINED


async def _first_of(work: asyncio.Task[None], event: asyncio.Event, group: asyncio.TaskGroup, *, timeout_s: float | None) -> None:
    waiting = group.create_task(event.wait())
    try:
        await asyncio.wait({work, waiting}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def _feed_watchdog(clock: Clock) -> None:
    """While the event loop turns, systemd hears of it; when it hangs, systemd restarts the process (WatchdogSec=)."""
    interval_s = watchdog_interval_s()
    while interval_s is not None:
        sd_notify(WATCHDOG)
        await clock.sleep(interval_s)


@contextmanager
def _signals(life: Lifetime) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, life.stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
