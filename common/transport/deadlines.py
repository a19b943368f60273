"""Deadlines of very many short things, for one timer of the event loop.

A timer for each call costs a tenth of the call, and nearly all of them are cancelled. Here a deadline is put into the slot of time
that it belongs to, and only the nearest slot has a timer.
"""

import asyncio
import heapq
from typing import Protocol

SLOT_S = 0.02
"""A deadline rings at most so late."""


class Expiring(Protocol):
    """What may be over before it has ended."""

    slot: int
    """Where `Deadlines` keeps it; belongs to that."""

    def expire(self) -> None:
        """Its time is over. Called once at most, and not after `Deadlines.done`."""
        ...


class Deadlines:
    """Deadlines of one event loop. As many as their owners bound; each is removed by `done`, or rings."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._slots: dict[int, set[Expiring] | None] = {}
        """None: all that was there has ended. The set is not kept for it: it stays as large as it ever was, 8 KiB for 100 entries."""
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0

    def add(self, entry: Expiring, delay_s: float) -> float:
        """`entry` expires after `delay_s` seconds, unless it is done before. Returns when that is, in the loop's time."""
        deadline_s = self.loop.time() + delay_s
        slot = entry.slot = int(deadline_s / SLOT_S) + 1
        found = self._slots.get(slot)
        if found is None:
            is_known = slot in self._slots
            self._slots[slot] = {entry}
            if not is_known:
                heapq.heappush(self._order, slot)
                if self._timer is None or slot < self._rings_at:
                    self._set_timer(slot)
        else:
            found.add(entry)
        return deadline_s

    def done(self, entry: Expiring) -> None:
        """It has ended, or has expired."""
        if (found := self._slots.get(entry.slot)) is not None:
            found.discard(entry)
            if not found:
                self._slots[entry.slot] = None

    def close(self) -> None:
        """Nothing rings any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slots.clear()
        self._order.clear()

    def _set_timer(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = slot
        self._timer = self.loop.call_at(slot * SLOT_S, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = int(self.loop.time() / SLOT_S + 1e-6)
        due: list[Expiring] = []
        while self._order and (self._order[0] <= now or not self._slots[self._order[0]]):
            due += self._slots.pop(heapq.heappop(self._order)) or ()
        if self._order:
            self._set_timer(self._order[0])
        for entry in due:
            entry.expire()
