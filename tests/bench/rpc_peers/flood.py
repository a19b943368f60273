"""Calls to one queue while 100,000 casts flood another, whose handler is slow.

The calls go to the server process that has the flood, and to another one. They come at a fixed rate, well below what any library
can do, and then as fast as eight callers can: at that rate p99 tells what the processor can do, not what the flood does.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiormq

from tests.bench.rpc_peers.processes import Pair, PeerFailed, Worker, cpu_s, machine_cpu_s, pair, rss_mib, worker
from tests.bench.rpc_peers.work import APART, CALLS, CASTS, FLOODED, READY, SLOW_S, TOPIC, Answer, Order

FLOOD_CASTS = 100_000
FILL_S_MAX = 20.0
"""A library that publishes slowly floods with fewer casts; the table says how many lay there."""
RESTING_SLOW_S = 2.0
"""What a cast takes while the flood rests: a tenth of the work, and the same flood."""
CASTS_IN_FLIGHT = 128
CALLERS_MAX = 64
"""Most calls in flight at the fixed rate; more than that wait for their turn, which counts."""
SAMPLE_S = 0.2
FOREIGN_MAX = 0.1
"""More of the machine's time used by others spoils a measurement: whoever takes turns with these processes is what is measured."""
TRIES = 4
SETTLE_S = 0.5

CALM, ARRIVING, POURING, WAITING, RESTING = PHASES = ("calm", "arriving", "pouring", "waiting", "resting")
SAME, OTHER = "same process", "another process"
PACED, FAST = "fixed rate", "8 callers"


@dataclass(frozen=True, slots=True)
class FloodPlan:
    """How long one round is and what it asks for.

    arriving_per_s  casts of a flood that leaves the processor room
    """

    calls_per_s: float = 200.0
    paced_s: float = 3.0
    callers: int = 8
    fast_s: float = 1.0
    arriving_per_s: float = 2000.0
    casts: int = FLOOD_CASTS


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls in a second, their times, and how busy the machine was.

    server    CPU seconds that the server with the flood used in a second, at most 1 of a library with one thread
    busy      share of all cores' time that anybody used, 0 to 1
    foreign   share that neither these processes nor the broker used; 0 when the broker's process is not known
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    server: float
    busy: float
    foreign: float


@dataclass(slots=True)
class FloodRound:
    """One round of one library.

    calls         by phase, then by `SAME` or `OTHER`, then by `PACED` or `FAST`
    lying         casts in the queue when a phase ended
    poured_per_s  casts published in a second by a flooder that nothing limits
    rss_mib       server, flooder and caller: before the round, the most in it, after it
    """

    calls: dict[str, dict[str, dict[str, Calls]]] = field(default_factory=dict)
    lying: dict[str, int] = field(default_factory=dict)
    poured_per_s: float = 0.0
    rss_mib: tuple[list[float], list[float], list[float]] = ([], [], [])
    errors: int = 0
    said: str = ""

    def note(self, answer: Answer) -> None:
        self.errors += answer.errors + answer.wrong
        self.said = answer.said or self.said


@dataclass(slots=True)
class Flooding:
    """A library's processes, kept over all rounds: what a flood leaves behind would be seen in the next one."""

    running: Pair
    flooder: Worker
    queue: aiormq.abc.AbstractChannel
    others: tuple[int, ...]
    """Processes that take part besides server, caller and flooder: the broker, the other server, this one."""
    knows_broker: bool
    """False: its part cannot be told from other people's."""

    async def round(self, plan: FloodPlan) -> FloodRound:
        """Every phase once. Raises PeerFailed."""
        found = FloodRound()
        pids = self.running.server.pid, self.flooder.pid, self.running.client.pid
        before = [rss_mib(pid) for pid in pids]
        highest = list(before)
        sampling = asyncio.create_task(_sample(pids, highest))
        try:
            await self._empty()
            await self._phase(CALM, plan, found)
            await self._while_casts_come(ARRIVING, plan, found, per_s=plan.arriving_per_s)
            found.poured_per_s = await self._while_casts_come(POURING, plan, found, per_s=0.0)
            await self._fill(plan, found)
            await self._phase(WAITING, plan, found)
            await self.running.slow(RESTING_SLOW_S)
            await asyncio.sleep(2 * SLOW_S)
            await self._phase(RESTING, plan, found)
            await self._empty()
        finally:
            sampling.cancel()
            await self.running.slow(SLOW_S)
        found.rss_mib = before, highest, [rss_mib(pid) for pid in pids]
        return found

    async def _phase(self, name: str, plan: FloodPlan, found: FloodRound) -> None:
        await asyncio.sleep(SETTLE_S)
        orders = {
            PACED: Order(CALLS, CALLERS_MAX, plan.paced_s, per_s=plan.calls_per_s),
            FAST: Order(CALLS, plan.callers, plan.fast_s),
        }
        for place, topic in ((SAME, TOPIC), (OTHER, APART)):
            for pace, order in orders.items():
                found.calls.setdefault(name, {}).setdefault(place, {})[pace] = await self._calls(order, topic, found)
        found.lying[name] = await self._depth()

    async def _calls(self, order: Order, topic: str, found: FloodRound) -> Calls:
        """Again while others use the machine; of several the one that they disturbed least."""
        tried = [await self._measured(order, topic, found)]
        while tried[-1].foreign > FOREIGN_MAX and len(tried) < TRIES:
            tried.append(await self._measured(order, topic, found))
        return min(tried, key=lambda one: one.foreign)

    async def _measured(self, order: Order, topic: str, found: FloodRound) -> Calls:
        began_s, before = time.monotonic(), self._spent()
        answer = await self.running.order(replace(order, topic=topic))
        took_s, after = time.monotonic() - began_s, self._spent()
        server_s, known_s, machine_s = (late - early for early, late in zip(before, after, strict=True))
        found.note(answer)
        whole_s = took_s * (os.cpu_count() or 1)
        return Calls(
            answer.done / answer.seconds, answer.p50_ms, answer.p99_ms,
            server_s / took_s, machine_s / whole_s, max(machine_s - known_s, 0.0) / whole_s if self.knows_broker else 0.0,
        )  # fmt: skip

    def _spent(self) -> tuple[float, float, float]:
        """CPU seconds until now: of the server, of all that take part, of the machine."""
        server_s = cpu_s(self.running.server.pid)
        rest_s = sum(cpu_s(pid) for pid in (self.running.client.pid, self.flooder.pid, *self.others))
        return server_s, server_s + rest_s, machine_cpu_s()

    async def _while_casts_come(self, name: str, plan: FloodPlan, found: FloodRound, *, per_s: float) -> float:
        """Casts published in a second, with the calls of the phase meanwhile. `per_s` of 0: as fast as they can be published."""
        flooded = []
        async with asyncio.TaskGroup() as group:
            calls = group.create_task(self._phase(name, plan, found))
            while not calls.done():
                flooded.append(await self._flood(found, per_s=per_s))
        return sum(one.done for one in flooded) / sum(one.seconds for one in flooded)

    async def _fill(self, plan: FloodPlan, found: FloodRound) -> None:
        """Until all casts lie there, but not for ever."""
        began_s = time.monotonic()
        while await self._depth() < plan.casts and time.monotonic() - began_s < FILL_S_MAX:
            await self._flood(found, per_s=0.0)
        found.lying[POURING] = await self._depth()

    async def _flood(self, found: FloodRound, *, per_s: float) -> Answer:
        answer = await self.running.order(Order(CASTS, CASTS_IN_FLIGHT, 1.0, topic=FLOODED, per_s=per_s), self.flooder)
        found.note(answer)
        return answer

    async def _depth(self) -> int:
        return (await self.queue.queue_declare(FLOODED, passive=True)).message_count or 0

    async def _empty(self) -> None:
        await self.queue.queue_purge(FLOODED)
        await asyncio.sleep(RESTING_SLOW_S + SETTLE_S)


@asynccontextmanager
async def flooding(peer: str, url: str, folder: Path, *, broker_pid: int | None) -> AsyncIterator[Flooding]:
    """A server with the flooded queue and one without, a caller, a flooder; warmed up. Raises PeerFailed."""
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(pair(peer, url, folder))
        apart = await stack.enter_async_context(worker(peer, "apart", url, folder))
        if (said := await apart.read()) != READY:
            raise PeerFailed(f"the other server said {said!r}")
        flooder = await stack.enter_async_context(worker(peer, "client", url, folder, name="flooder"))
        await flooder.read()
        connection = await aiormq.connect(url.replace("rabbit://", "amqp://", 1))
        stack.push_async_callback(connection.close)
        for topic in (TOPIC, APART):
            await running.order(Order(CALLS, 16, 1.0, topic=topic))
        others = (apart.pid, os.getpid(), *(() if broker_pid is None else (broker_pid,)))
        yield Flooding(running, flooder, await connection.channel(), others, knows_broker=broker_pid is not None)


async def _sample(pids: Sequence[int], highest: list[float]) -> None:
    while True:
        highest[:] = [max(most, rss_mib(pid)) for most, pid in zip(highest, pids, strict=True)]
        await asyncio.sleep(SAMPLE_S)
