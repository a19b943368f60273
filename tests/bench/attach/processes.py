"""One process per service on RabbitMQ and a database, simulated storage: what an operator's machine does for one attach and detach."""

import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from cinder_lite.contract import VolumeAPI, VolumeStatus
from common.base.context import Context
from common.host.clock import SystemClock
from common.rpc.options import RpcOptions
from common.rpc.session import connect
from common.testing.servers import MariaDbServer, PostgresServer, RabbitServer, Server
from nova_lite.contract import ComputeAPI, VmState
from tests.bench.attach.limited import held
from tests.support.processes import cloud

PAIRS = 20
AT_ONCE = 16
ROUNDS = 4
POLL_S = 0.05
"""A pair asks for the volume's status about as often as the client of the real stack did, which made 12 HTTP requests."""
DatabaseServer = PostgresServer | MariaDbServer
_CLOCK = SystemClock()
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figures:
    """wall_ms and cpu_ms of one attach and detach, one at a time; pairs_per_s of AT_ONCE volumes at once; CPU by who spent it."""

    wall_ms: float
    cpu_ms: float
    pairs_per_s: float
    cpu_by: dict[str, float]


async def measure(
    folder: Path, broker: RabbitServer, connection: str, *, database: DatabaseServer, computes: int, share: float | None = None
) -> Figures:
    """The services on `computes` compute hosts. `share`: what each nova-compute gets of a core at most; None: all that it takes.

    Raises NoLimits.
    """
    hosts = [f"cmp{number}" for number in range(1, computes + 1)]
    url = broker.fresh_url()
    async with (
        AsyncExitStack() as limits,
        cloud(folder, transport_url=url, connection=connection, computes=hosts, is_simulated=True) as running,
        connect(url, host="bench", options=RpcOptions(), connection_name="bench") as rpc,
    ):
        servers, volumes = ComputeAPI.over(rpc), VolumeAPI.over(rpc)
        ctx = Context(user_id="bench", project_id="p1")
        made = [await servers.create(ctx, name=f"s-{host}", flavor="m1.tiny", host=host) for host in hosts]
        kept = [await volumes.create(ctx, size=1, name=f"v{number}") for number in range(AT_ONCE)]
        while any(server.vm_state is not VmState.ACTIVE for server in await servers.get_all(ctx)):
            await _CLOCK.sleep(0.1)
        ids = [volume.id for volume in kept]

        async def until(volume_id: str, wanted: VolumeStatus) -> None:
            while (await volumes.get(ctx, volume_id=volume_id)).status is not wanted:
                await _CLOCK.sleep(POLL_S)

        async def pair(place: int) -> None:
            server = made[place % len(made)].uuid
            await servers.attach_volume(Context(user_id="bench"), server=server, volume=ids[place])
            await until(ids[place], VolumeStatus.IN_USE)
            await servers.detach_volume(Context(user_id="bench"), server=server, volume=ids[place])
            await until(ids[place], VolumeStatus.AVAILABLE)

        await asyncio.gather(*(until(volume_id, VolumeStatus.AVAILABLE) for volume_id in ids))
        for _ in range(3):
            await pair(0)
        if share is not None:
            running_on = [pid for name, pid in running.children.pids.items() if name.startswith("nova-compute")]
            limits.enter_context(held(running_on, share))
        groups = {
            "services": sorted(running.children.pids.values()),
            "broker": _tree(_pid(broker)),
            "database": _tree(_pid(database)),
        }
        before = {name: _cpu_s(pids) for name, pids in groups.items()}
        walls = []
        for _ in range(PAIRS):
            started = time.perf_counter()
            await pair(0)
            walls.append((time.perf_counter() - started) * 1000)
        spent = {name: (_cpu_s(pids) - before[name]) * 1000 / PAIRS for name, pids in groups.items()}
        started = time.perf_counter()
        for _ in range(ROUNDS):
            await asyncio.gather(*(pair(place) for place in range(AT_ONCE)))
        per_s = ROUNDS * AT_ONCE / (time.perf_counter() - started)
        return Figures(statistics.median(walls), sum(spent.values()), per_s, spent)


def _pid(server: Server) -> int:
    assert server._process is not None
    return server._process.pid


def _tree(pid: int) -> list[int]:
    """The process and what it has begun."""
    found = [pid]
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and _parent(each) in found:
            found.append(int(each.name))
    return found


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _cpu_s(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # Fields 14 to 17 of proc(5): this process's time, and that of children that it has waited for.
        total += sum(int(field) for field in fields[11:15])
    return total / _TICKS
