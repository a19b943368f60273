"""A clock in the test's hand: hours pass in no time, and the same way each time."""

import asyncio
import heapq
from datetime import datetime, timedelta
from itertools import count

_TURNS = 20
"""Rounds of the loop after which what was woken is taken to have done its part; work in threads is not waited for."""


class JumpingClock:
    """Implements `common.base.clock.Clock`.

    Time stands until `advance`. With `jumps` it moves by itself to the next moment that somebody waits for, each time that
    the loop has had some rounds for everybody else.
    """

    def __init__(self, *, jumps: bool = False) -> None:
        self._jumps = jumps
        self._is_jumping = False
        self._now_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self.slept: list[float] = []
        """Every delay that was asked for, oldest first."""

    def monotonic(self) -> float:
        return self._now_s

    def utcnow(self) -> datetime:
        return datetime(2026, 1, 1) + timedelta(seconds=self._now_s)  # noqa: DTZ001  # naive UTC, as the port says

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + delay_s, next(self._numbers), woken))
        if self._jumps and not self._is_jumping:
            self._is_jumping = True
            self._jump_after(_TURNS)
        await woken

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: whoever's moment comes is woken in it, and has done its part before time goes on."""
        end = self._now_s + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            self._wake_until(self._sleepers[0][0])
            await _rounds()
        self._now_s = end

    def _jump_after(self, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._jump_after, turns - 1)
            return
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        self._is_jumping = bool(self._sleepers)
        if self._is_jumping:
            self._wake_until(self._sleepers[0][0])
            self._jump_after(_TURNS)

    def _wake_until(self, now_s: float) -> None:
        self._now_s = max(self._now_s, now_s)
        while self._sleepers and self._sleepers[0][0] <= self._now_s:
            *_, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)


async def _rounds() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
