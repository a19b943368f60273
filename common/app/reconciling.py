"""Rounds of a reconciler: rows compared with reality at the start, every few seconds and when asked; differences begin flows.

Nothing is held from one round to the next but what looked wrong in the last one, and no two rounds of a process overlap.
"""

import asyncio
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from common.app.carrier import alongside
from common.base.clock import Clock
from common.base.errors import Fault, Unavailable
from common.base.limits import RECONCILE_INTERVAL_S, RECONCILE_RECHECK_S
from common.base.settling import Action, due

A = TypeVar("A", bound=Action)
_log = structlog.get_logger(__name__)


class Reconciler(Protocol[A]):
    """A service's part of it."""

    async def look(self) -> Sequence[A]:
        """What is wrong now and nobody is at work on. Raises what the database raises."""
        ...

    async def mend(self, action: A) -> bool:
        """Begins a flow. False: there was nothing to begin. Raises a Fault that is this action's alone."""
        ...


class Told:
    """Says once that a part does not answer, and once that it does again."""

    def __init__(self) -> None:
        self._silent: set[str] = set()

    def unknown(self, part: str, reason: str) -> None:
        """Nothing is decided about that part now."""
        if part not in self._silent:
            self._silent.add(part)
            _log.warning("part does not answer, nothing is decided about it", part=part, reason=reason)

    def known(self, part: str) -> None:
        """It answers."""
        if part in self._silent:
            self._silent.discard(part)
            _log.info("part answers again", part=part)


class Rounds(Generic[A]):
    """`run` never ends; `ask` returns what a round that begins now has begun to mend, a line each."""

    def __init__(self, reconciler: Reconciler[A], clock: Clock, *, first_after_s: float = 0.0) -> None:
        self._reconciler = reconciler
        self._clock = clock
        self._first_after_s = first_after_s
        self._suspected: frozenset[A] = frozenset()
        self._poked = asyncio.Event()
        self._asked: list[asyncio.Future[list[str]]] = []
        self._told = Told()

    async def run(self) -> None:
        """A round now, then every RECONCILE_INTERVAL_S."""
        asked: list[asyncio.Future[list[str]]] = []
        try:
            if self._first_after_s:
                await self._pause(self._first_after_s)
            while True:
                self._poked.clear()
                asked, self._asked = self._asked, []
                done = await self._round()
                if asked and self._suspected:
                    await self._clock.sleep(RECONCILE_RECHECK_S)
                    done += await self._round()
                for waiter in asked:
                    if not waiter.done():
                        waiter.set_result(done)
                await self._pause(RECONCILE_INTERVAL_S)
        finally:
            for waiter in (*asked, *self._asked):
                if not waiter.done():
                    waiter.set_exception(Unavailable(what="the reconciler", reason="this process was told to stop"))

    def hurry(self) -> None:
        """The next round begins now: something is known to have changed."""
        self._poked.set()

    async def ask(self) -> list[str]:
        """Returns once a round is over that began behind this call. Raises Unavailable when the process stops before."""
        waiter: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._asked.append(waiter)
        self._poked.set()
        return await waiter

    async def _round(self) -> list[str]:
        try:
            found = await self._reconciler.look()
        except Fault as exc:
            self._told.unknown("the rows", str(exc))
            self._suspected = frozenset()
            return []
        self._told.known("the rows")
        now = due(found, self._suspected)
        self._suspected = now.suspects
        return [line for action in now.actions if (line := await self._mended(action)) is not None]

    async def _mended(self, action: A) -> str | None:
        """What one action came to. Its failure is no other's: the next round sees what is left."""
        try:
            if not await self._reconciler.mend(action):
                return None
        except Fault as exc:
            _log.warning("mending not begun", subject=action.subject, action=str(action), reason=str(exc))
            return None
        _log.info("mending", subject=action.subject, action=str(action))
        return f"{action.subject}: {action}"

    async def _pause(self, seconds: float) -> None:
        """That long, or until somebody asks."""
        async with alongside(self._poke_after(seconds)):
            await self._poked.wait()

    async def _poke_after(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._poked.set()
