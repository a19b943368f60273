"""Many attaches at once, then many detaches, while every second a process of any kind is killed: none may be lost."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cinder_lite.contract import VolumeAPI, VolumeManagerAPI, VolumeStatus
from common.base.context import Context
from common.base.errors import Fault, Unavailable
from common.host.clock import SystemClock
from common.rpc.client import RpcClient
from common.rpc.options import RpcOptions
from common.rpc.session import connect
from common.testing.servers import RabbitServer
from nova_lite.contract import ComputeAPI, Instance, VmState
from tests.integration.chaos.stage import FOR_EVER, doctor
from tests.support.processes import Cloud, cloud

HOSTS = ("cmp1", "cmp2", "cmp3", "cmp4")
DISKS_OF_A_SERVER = 20
CREATED_AT_ONCE = 50
QUIET_S = 240.0
CALL_S = 120.0
_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Round:
    """What a round of requests came to: how clients were answered, the states of the volumes in the end, and how long it took."""

    verb: str
    told: Counter[str]
    states: Counter[str]
    kills: int
    seconds: float

    def __str__(self) -> str:
        told = ", ".join(f"{number} {word}" for word, number in sorted(self.told.items()))
        states = ", ".join(f"{number} {word}" for word, number in sorted(self.states.items()))
        return f"{self.verb}: told {told}; in the end {states}; {self.kills} kills, {self.seconds:.0f} s"


async def run_load(
    folder: Path, broker: RabbitServer, connection: str, *, number: int, seed: int, tell: Callable[[str], None]
) -> list[str]:
    """What is wrong in the end; nothing, when none was lost."""
    chance = random.Random(seed)
    url = broker.vhost_url("load")
    async with (
        cloud(folder, transport_url=url, connection=connection, computes=HOSTS, restarts=FOR_EVER, is_simulated=True) as running,
        connect(url, host="load-client", options=RpcOptions(response_timeout_s=CALL_S), connection_name="load-client") as rpc,
    ):
        load = _Load(running, rpc, number, chance)
        await load.set_up(tell)
        wrong: list[str] = []
        for verb in ("attach", "detach"):
            done = await load.round(verb)
            tell(str(done))
            wrong += await load.lost() + await doctor(running)
            if sum(done.states.values()) != number or set(done.states) - {"available", "in-use"}:
                wrong.append(f"{verb}: not every volume is in a final state: {dict(done.states)}")
        return wrong


class _Load:
    def __init__(self, running: Cloud, rpc: RpcClient, number: int, chance: random.Random) -> None:
        self._running = running
        self._number = number
        self._chance = chance
        self._verb = ""
        self._servers = ComputeAPI.over(rpc)
        self._volumes = VolumeAPI.over(rpc)
        self._backends = VolumeManagerAPI.over(rpc)
        self._machines: list[Instance] = []
        self._ids: list[str] = []
        self._accepted: dict[str, str] = {}

    @property
    def _ctx(self) -> Context:
        return Context(user_id="load", project_id="p1")

    async def set_up(self, tell: Callable[[str], None]) -> None:
        started = time.monotonic()
        wanted = -(-self._number // DISKS_OF_A_SERVER)
        for place in range(wanted):
            host = HOSTS[place % len(HOSTS)]
            self._machines.append(await self._servers.create(self._ctx, name=f"s{place}", flavor="m1.tiny", host=host))
        async with asyncio.timeout(QUIET_S):
            while len(self._ids) < self._number:
                await self._create_some()
            while any(server.vm_state is not VmState.ACTIVE for server in await self._servers.get_all(self._ctx)):
                await _CLOCK.sleep(0.5)
        tell(
            f"{len(self._machines)} servers on {len(HOSTS)} hosts and {self._number} volumes after {time.monotonic() - started:.0f} s"
        )

    async def _create_some(self) -> None:
        """As many as the scheduler places before it hears again how little they take."""
        places = range(len(self._ids), min(self._number, len(self._ids) + CREATED_AT_ONCE))
        made = await asyncio.gather(*(self._volumes.create(self._ctx, size=1, name=f"v{place}") for place in places))
        self._ids += [volume.id for volume in made]
        while set(await self._states()) != {"available"}:
            await _CLOCK.sleep(0.5)
        await self._backends.everywhere().publish_service_capabilities(self._ctx)

    async def round(self, verb: str) -> Round:
        started = time.monotonic()
        self._verb = verb
        self._accepted.clear()
        async with self._killing() as kills:
            asked = [self._ask(verb, place, volume_id) for place, volume_id in enumerate(self._ids)]
            told = Counter(await asyncio.gather(*asked))
        async with asyncio.timeout(QUIET_S):
            while set(states := await self._states()) - {"available", "in-use"} or await self._is_busy():
                await _CLOCK.sleep(1.0)
        return Round(verb, told, states, len(kills), time.monotonic() - started)

    async def _ask(self, verb: str, place: int, volume_id: str) -> str:
        server = self._machines[place // DISKS_OF_A_SERVER].uuid
        act: Callable[..., Awaitable[object]] = self._servers.attach_volume if verb == "attach" else self._servers.detach_volume
        ctx = self._ctx
        try:
            await act(ctx, server=server, volume=volume_id)
        except Unavailable:
            return "unknown"
        except Fault as exc:
            return "unknown" if exc.retryable else type(exc).__name__
        self._accepted[volume_id] = str(ctx.request_id)
        return "accepted"

    async def lost(self) -> list[str]:
        """The accepted requests of the last round that neither did what they should nor say in a flow's error why not."""
        wanted = VolumeStatus.IN_USE if self._verb == "attach" else VolumeStatus.AVAILABLE
        states = {volume.id: volume.status for volume in await self._volumes.get_all(self._ctx)}
        undone = [volume_id for volume_id in self._accepted if states.get(volume_id) is not wanted]
        return [
            f"{self._verb} of volume {volume_id} ({self._accepted[volume_id]}) was accepted, and it is {states.get(volume_id)}"
            for volume_id in undone
            if not await self._is_explained(volume_id)
        ]

    async def _is_explained(self, volume_id: str) -> bool:
        ran = await self._running.lite("flow", "list", "--subject", volume_id, "--all", "--json")
        return any(
            flow["request_id"] == self._accepted[volume_id] and flow["state"] == "compensated" and flow["error"]
            for flow in ran.json()
        )

    async def _states(self) -> Counter[str]:
        try:
            return Counter(str(VolumeStatus(volume.status)) for volume in await self._volumes.get_all(self._ctx))
        except Fault:
            return Counter({"unknown": 1})

    async def _is_busy(self) -> bool:
        ran = await self._running.lite("flow", "list", "--json")
        return ran.code != 0 or bool(ran.json())

    @asynccontextmanager
    async def _killing(self) -> AsyncIterator[list[str]]:
        """Inside, every second a process is killed: their names."""
        kills: list[str] = []
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._kill_for_ever(kills))
            try:
                yield kills
            finally:
                task.cancel()

    async def _kill_for_ever(self, kills: list[str]) -> None:
        while True:
            await _CLOCK.sleep(1.0)
            name, pid = self._chance.choice(sorted(self._running.children.pids.items()))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            kills.append(name)
