"""All services in one loop over the bus in memory, storage and machines faked: what is left is our own code and the database."""

import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from cinder_lite.contract import Volume, VolumeStatus
from nova_lite.contract import Instance
from tests.bench.attach.counting import counted
from tests.bench.attach.journalless import forgetful
from tests.support.world import World, running_world

PAIRS = 30
WARM_UP = 3
_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one attach and detach: medians in ms, and means of what the database was asked."""

    wall_ms: float
    cpu_ms: float
    reads: float
    writes: float
    transactions: float


async def cost(connection: str | None, *, with_journal: bool) -> Cost:
    """One at a time, PAIRS times."""
    with tempfile.TemporaryDirectory() as folder, nullcontext() if with_journal else forgetful():
        async with running_world(Path(folder), connection=connection) as world:
            server, volume = await world.boot(), await world.create()
            for _ in range(WARM_UP):
                await _pair(world, server, volume)
            with counted() as counts:
                walls, cpus = await _timed(lambda: _pair(world, server, volume))
    each = {word: counts[word] / PAIRS for word in ("reads", "writes", "transactions")}
    return Cost(statistics.median(walls), statistics.median(cpus), **each)


async def _timed(act: Callable[[], Awaitable[None]]) -> tuple[list[float], list[float]]:
    walls, cpus = [], []
    for _ in range(PAIRS):
        wall, cpu = time.perf_counter(), time.process_time()
        await act()
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.process_time() - cpu) * 1000)
    return walls, cpus


async def _pair(world: World, server: Instance, volume: Volume) -> None:
    await world.attach(server, volume)
    await _until(world, volume, VolumeStatus.IN_USE)
    await world.detach(server, volume)
    await _until(world, volume, VolumeStatus.AVAILABLE)


async def _until(world: World, volume: Volume, wanted: VolumeStatus) -> None:
    """Asked of the target's state in memory, so that looking costs the database nothing worth counting."""
    while True:
        await world.clock.sleep(_LOOK_S)
        is_there = bool(world.target.served)
        if is_there is (wanted is VolumeStatus.IN_USE):
            found = await world.volumes.get(world.ctx, volume_id=volume.id)
            if found.status is wanted:
                return
