"""A simulated process: it can be killed or stopped at any instant, and meets the world only through ports that know it."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar, runtime_checkable

from common.testing.fate import Crossing, Fate, Kind
from common.testing.loop import OWNER, Owner, VirtualLoop

T = TypeVar("T")

PAUSE_S = 25.0
"""A stop that outlives every lease."""
HANG_S = 130.0
"""An act that hangs outlives the timeouts of all steps but those that make and delete bytes; then it fails."""
JUMP_S = 3600.0
"""By how much a wall clock is set wrong."""
EPOCH = datetime(2026, 1, 1)  # noqa: DTZ001  # naive UTC, as rows have it


class Port(Protocol):
    """Something of the world that a process holds, and that is taken from it at its death."""

    def drop(self) -> None:
        """The process is dead: what it held is free."""
        ...


@runtime_checkable
class HoldsQueues(Protocol):
    """A port that other processes send to."""

    def forget_queues(self) -> None:
        """They are gone, as far as nothing waits in them."""
        ...


class ProcessClock:
    """Implements `common.base.clock.Clock`: the loop's time, and a wall clock that may be wrong by `offset_s`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.offset_s = 0.0

    def monotonic(self) -> float:
        return self._loop.time()

    def utcnow(self) -> datetime:
        return EPOCH + timedelta(seconds=self._loop.time() + self.offset_s)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(max(delay_s, 0.0))


class Process:
    """One life of a simulated process. `main` runs until it ends, or until `kill`.

    ended   called with this process when it is dead or has ended, in the world's own context
    """

    def __init__(self, name: str, loop: VirtualLoop, fate: Fate, *, ended: Callable[["Process"], None]) -> None:
        self.name = name
        self.clock = ProcessClock(loop)
        self.fate = fate
        self.is_dead = False
        self.is_buried = False
        """The run is over; whoever still waits at a port is sent home."""
        self._loop = loop
        self._ended = ended
        self._owner = Owner()
        self._world = copy_context()
        self._own = copy_context()
        self._own.run(OWNER.set, self._owner)
        self._ports: list[Port] = []
        self._main: asyncio.Task[None] | None = None

    @property
    def is_stopped(self) -> bool:
        return self._owner.waiting is not None

    @property
    def context(self) -> Context:
        """Work in it is this process's."""
        return self._own.copy()

    def run(self, main: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin to live."""
        self._main = self._loop.create_task(main, name=self.name, context=self.context)
        self._main.add_done_callback(lambda _: self._gone(), context=self._world.copy())
        return self._main

    def hold(self, port: Port) -> None:
        """`port` is dropped when the process dies."""
        self._ports.append(port)

    def outside(self, act: Callable[[], T]) -> T:
        """What `act` returns, done in the world's context: what it sets going goes on without this process."""
        return self._world.copy().run(act)

    def later(self, delay_s: float, act: Callable[[], object]) -> None:
        """`act`, part of a fault, happens in the world after that time, whatever becomes of this process."""
        self.fate.lasts(self._loop.time() + delay_s)
        self._loop.call_later(delay_s, act, context=self._world.copy())

    # -- what happens to it -------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Its death: from now on nothing that it does has an effect. Dead already: nothing happens."""
        if self.is_dead:
            return
        self.is_dead = True
        self._loop.freeze(self._owner)
        for port in self._ports:
            self.outside(port.drop)
        self.outside(lambda: self._ended(self))

    def stop(self, seconds: float) -> None:
        """It stands still for that time, and then goes on as if nothing had been."""
        if not self.is_dead and not self.is_stopped:
            self._loop.freeze(self._owner)
            self.later(seconds, self._go_on)

    def _go_on(self) -> None:
        if not self.is_dead:
            self._loop.thaw(self._owner)

    def _gone(self) -> None:
        if not self.is_dead:
            self.kill()

    # -- its ports ----------------------------------------------------------------------------------------------------

    def cross(self, kind: Kind, name: str) -> Crossing:
        return self.fate.cross(self.name, kind, name)

    async def living(self) -> None:
        """Returns while the process lives and runs; a dead one never comes back."""
        if self.is_buried:
            raise asyncio.CancelledError
        if self.is_dead:
            await self._loop.create_future()
        if self.is_stopped:
            await asyncio.sleep(0)

    def suffer(self, crossing: Crossing, fault: str | None) -> str | None:
        """Carry out a fault that any port can meet; a fault that is the port's own is returned."""
        if fault is None:
            return None
        self.fate.strike(crossing, fault)
        match fault:
            case "crash":
                self.kill()
            case "gone":
                for port in self._ports:
                    if isinstance(port, HoldsQueues):
                        self.outside(port.forget_queues)
                self.kill()
            case "pause":
                self.stop(PAUSE_S)
            case "forward":
                self.clock.offset_s += JUMP_S
            case "backward":
                self.clock.offset_s -= JUMP_S
            case _ if fault in self.fate.happenings:
                self.outside(self.fate.happenings[fault])
            case _:
                return fault
        return None

    async def act(self, name: str, act: Callable[[], T], *, takes_s: float, failure: Callable[[], Exception]) -> T:
        """What `act` returns, done to the world after `takes_s`; `failure` is what it raises when it is to fail."""
        await self.living()
        crossing = self.cross(Kind.EFFECT, name)
        await self._meet(crossing, crossing.before, failure)
        await asyncio.sleep(self.fate.delay_s(Kind.EFFECT, takes_s))
        await self.living()
        answer = self.outside(act)
        await self._meet(crossing, crossing.after, failure)
        return answer

    async def _meet(self, crossing: Crossing, fault: str | None, failure: Callable[[], Exception]) -> None:
        match self.suffer(crossing, fault):
            case "raise":
                raise failure()
            case "hang":
                await self._hang()
                raise failure()
        await self.living()

    async def _hang(self) -> None:
        """The fault is over when the act fails, or when whoever waited has had enough."""
        with self.fate.hanging(self._loop.time, HANG_S):
            await asyncio.sleep(HANG_S)

    async def reach(self, name: str) -> None:
        """A failpoint."""
        await self.living()
        crossing = self.cross(Kind.FAILPOINT, name)
        self.suffer(crossing, crossing.before)
        await self.living()
