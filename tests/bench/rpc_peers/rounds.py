"""What is measured of one library in one round, and under a flood."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.bench.rpc_peers.processes import Pair, cpu_s, machine_cpu_s, pair, rss_mib, worker
from tests.bench.rpc_peers.work import CALLS, CASTS, FLOOD, Answer, Order

CASTS_IN_FLIGHT = 128
FLOOD_CASTS = 100_000
FLOOD_S_MAX = 90.0
"""A library that publishes slowly floods with fewer casts."""
QUIET_S = 5.0
CALM_CALLERS = 8
HANDLED_S = 60.0
SAMPLE_S = 0.2


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


@dataclass(frozen=True, slots=True)
class Flood:
    """Calls of a client to one queue while another client fills another queue of the same server.

    calm_, flooded_    before and during it: calls in a second, p50 and p99 in ms
    rss                MiB: before, and the highest during it
    """

    published: int
    published_per_s: float
    calm: tuple[float, float, float]
    flooded: tuple[float, float, float]
    server_rss_mib: tuple[float, float]
    flooder_rss_mib: tuple[float, float]
    caller_rss_mib: tuple[float, float]
    errors: int
    said: str


async def flood(peer: str, url: str, folder: Path, *, casts: int = FLOOD_CASTS) -> Flood:
    """Raises PeerFailed."""
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(pair(peer, url, folder))
        flooder = await stack.enter_async_context(worker(peer, "client", url, folder))
        await flooder.read()
        calm = await running.order(Order(CALLS, CALM_CALLERS, QUIET_S))
        pids = running.server.pid, flooder.pid, running.client.pid
        before = [rss_mib(pid) for pid in pids]
        highest = list(before)
        async with asyncio.TaskGroup() as group:
            sampling = group.create_task(_sample(pids, highest))
            flooding = group.create_task(running.order(Order(FLOOD, CASTS_IN_FLIGHT, FLOOD_S_MAX, casts), flooder))
            calls = await _calls_until(flooding.done, running)
            sampling.cancel()
        published = flooding.result()
        return Flood(
            published.answered,
            published.done / published.seconds,
            (calm.done / calm.seconds, calm.p50_ms, calm.p99_ms),
            calls,
            (before[0], highest[0]),
            (before[1], highest[1]),
            (before[2], highest[2]),
            published.errors + calm.errors,
            published.said,
        )


async def _calls_until(is_over: Callable[[], bool], running: Pair) -> tuple[float, float, float]:
    """The worst second counts for p99, the middle one for the others."""
    seconds = [await running.order(Order(CALLS, CALM_CALLERS, 1.0))]
    while not is_over():
        seconds.append(await running.order(Order(CALLS, CALM_CALLERS, 1.0)))
    middle = sorted(seconds, key=lambda answer: answer.p50_ms)[len(seconds) // 2]
    return middle.done / middle.seconds, middle.p50_ms, sorted(answer.p99_ms for answer in seconds)[len(seconds) // 2]


async def _sample(pids: tuple[int, ...], highest: list[float]) -> None:
    while True:
        highest[:] = [max(most, rss_mib(pid)) for most, pid in zip(highest, pids, strict=True)]
        await asyncio.sleep(SAMPLE_S)
