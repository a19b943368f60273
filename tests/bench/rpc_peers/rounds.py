"""What is measured of one library in one round."""

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.bench.rpc_peers.processes import Pair, cpu_s, machine_cpu_s, pair, rss_mib
from tests.bench.rpc_peers.work import CALLS, CASTS, Answer, Order

CASTS_IN_FLIGHT = 128
HANDLED_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long one round is. `serial`: libraries that make one call at a time and are spared the widths above 128."""

    widths: tuple[int, ...]
    phase_s: float
    warm_up_s: float
    serial: frozenset[str] = frozenset({"faststream_rpc"})

    def widths_of(self, peer: str) -> tuple[int, ...]:
        return tuple(width for width in self.widths if width <= 128 or peer not in self.serial)


FULL = Plan((1, 16, 128, 1024), phase_s=2.0, warm_up_s=0.5)
QUICK = Plan((1, 16, 128), phase_s=0.7, warm_up_s=0.2)


@dataclass(slots=True)
class Figures:
    """One round of one library.

    per_s              calls in a second, by calls in flight; p50_ms and p99_ms likewise
    cpu_s_per_1000     CPU seconds of client and server for 1,000 calls at 128 in flight; `broker_cpu_s_per_1000` likewise
    published_per_s    casts confirmed; handled_per_s: until the server had handled the last one
    foreign            share of the machine's CPU time that others used while calls were made at 128 in flight, 0 to 1
    """

    first_call_s: float
    per_s: dict[int, float] = field(default_factory=dict)
    p50_ms: dict[int, float] = field(default_factory=dict)
    p99_ms: dict[int, float] = field(default_factory=dict)
    cpu_s_per_1000: float = 0.0
    broker_cpu_s_per_1000: float = 0.0
    client_rss_mib: float = 0.0
    server_rss_mib: float = 0.0
    published_per_s: float = 0.0
    handled_per_s: float = 0.0
    foreign: float = 0.0
    wrong: int = 0
    errors: int = 0
    said: str = ""

    def note(self, answer: Answer) -> None:
        self.wrong += answer.wrong
        self.errors += answer.errors
        self.said = answer.said or self.said


async def measure(peer: str, url: str, plan: Plan, *, broker_pid: int | None, folder: Path) -> Figures:
    """One round. Raises PeerFailed."""
    async with pair(peer, url, folder) as running:
        found = Figures(running.first_call_s)
        await running.order(Order(CALLS, 16, plan.warm_up_s))
        for width in plan.widths_of(peer):
            before = Spent.now(running, broker_pid)
            answer = await running.order(Order(CALLS, width, plan.phase_s))
            found.note(answer)
            found.per_s[width] = answer.done / answer.seconds
            found.p50_ms[width], found.p99_ms[width] = answer.p50_ms, answer.p99_ms
            if width == 128:
                spent = Spent.now(running, broker_pid)
                thousands = max(answer.answered, 1) / 1000
                found.cpu_s_per_1000 = (spent.own_s - before.own_s) / thousands
                found.broker_cpu_s_per_1000 = (spent.broker_s - before.broker_s) / thousands
                found.foreign = before.foreign_until(spent)
                found.client_rss_mib, found.server_rss_mib = rss_mib(running.client.pid), rss_mib(running.server.pid)
        answer = await running.order(Order(CASTS, CASTS_IN_FLIGHT, plan.phase_s))
        found.note(answer)
        found.published_per_s = answer.done / answer.seconds
        found.handled_per_s = answer.answered / (await _last_handled_s(running, answer.answered) - answer.began_s)
        return found


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds until now: of client and server, of the broker, of the whole machine; and the time of the clock."""

    own_s: float
    broker_s: float
    machine_s: float
    clock_s: float

    @classmethod
    def now(cls, running: Pair, broker_pid: int | None) -> Self:
        own_s = cpu_s(running.client.pid) + cpu_s(running.server.pid)
        return cls(own_s, cpu_s(broker_pid) if broker_pid else 0.0, machine_cpu_s(), time.monotonic())

    def foreign_until(self, later: "Spent") -> float:
        """Share of all cores' time that neither client, server nor broker used."""
        foreign_s = (later.machine_s - later.own_s - later.broker_s) - (self.machine_s - self.own_s - self.broker_s)
        return max(foreign_s, 0.0) / ((later.clock_s - self.clock_s) * (os.cpu_count() or 1))


async def _last_handled_s(running: Pair, published: int) -> float:
    async with asyncio.timeout(HANDLED_S):
        while True:
            handled, last_s = await running.handled()
            if handled >= published:
                return last_s
            await asyncio.sleep(0.05)
