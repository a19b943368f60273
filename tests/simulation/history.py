"""Tier 3: a history from a seed. Several users ask for several things at a time, faults come by chance; then they stop, and all is judged.

The seed decides how many hosts there are, who asks for what and when, how long each act takes, and which fault strikes where.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from common.base.context import Context
from common.rpc.client import RpcClient
from common.testing.entropy import seeded
from common.testing.fate import Event, Fate, Kind, When
from common.testing.loop import DeadLock, RanTooLong, VirtualLoop, run
from common.testing.process import Process
from nova_lite.contract import RebootType
from tests.simulation.cases import faults_of
from tests.simulation.requests import Answer, Kind as Wanted, Request, Requests, observed
from tests.simulation.scenario import TRIES, Client, StopHere
from tests.simulation.world import CLIENT, World

VIRTUAL_S_MAX = 3600.0

_USERS = (2, 5)
_OPERATIONS = (10, 40)
_HOSTS = (2, 5)
_FAULTS_MAX = 6
_RATE = 1 / 250
_RATE_OF_FEW = 1 / 50
"""Of a history with faults of a few kinds: most crossings can have none of them."""
_SHORT_S = 0.002
_BETWEEN_S = 1.0


class Weather(Fate):
    """Strikes by chance while `is_raging`, `budget` times at most; every crossing takes a time of its own. `only`: of these kinds."""

    def __init__(self, chance: Random, *, budget: int, only: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._only = only
        self.chance = chance
        self.budget = budget
        self.is_raging = False
        self.kinds: Counter[str] = Counter()

    def faults_at(self, event: Event) -> tuple[str | None, str | None]:
        if not self.is_raging or self.budget <= 0 or event.process == CLIENT:
            return None, None
        possible = faults_of(event) if not self._only else [each for each in faults_of(event) if each[1] in self._only]
        if not possible or self.chance.random() >= (_RATE_OF_FEW if self._only else _RATE):
            return None, None
        when, fault = self.chance.choice(possible)
        self.budget -= 1
        self.kinds[fault] += 1
        return (fault, None) if when is When.BEFORE else (None, fault)

    def delay_s(self, kind: Kind, usual_s: float) -> float:
        match kind:
            case Kind.EFFECT:
                return usual_s * self.chance.uniform(0.3, 3.0)
            case _:
                return usual_s + min(self.chance.expovariate(1 / _SHORT_S), 10 * _SHORT_S)


@dataclass(frozen=True, slots=True)
class HistoryReport:
    """What came of a history. `answers` counts those of its operations, `faults` what struck."""

    seed: str
    violations: tuple[tuple[str, str], ...]
    answers: Counter[str]
    faults: Counter[str]
    trace: tuple[str, ...] = field(repr=False)
    took_s: float = 0.0


def run_history(seed: int | str, *, tell: Callable[[str], None] | None = None, faults_max: int = _FAULTS_MAX) -> HistoryReport:
    """The same seed gives the same history, but for the time it took. A seed "lost,late:7" has only faults of these kinds."""
    begun = time.perf_counter()
    loop = VirtualLoop(virtual_s_max=VIRTUAL_S_MAX)
    answers: Counter[str] = Counter()
    with seeded(f"history {seed}") as chance:
        only = frozenset(kinds.split(",")) if (kinds := str(seed).rpartition(":")[0]) else frozenset[str]()
        weather = Weather(Random(f"weather {seed}"), budget=chance.randint(1 if only else 0, faults_max), only=only)
        world = World(loop, chance, computes=chance.randint(*_HOSTS), tell=tell, fate=weather)

        async def main() -> None:
            try:
                await world.up()
                await world.with_client(lambda process, rpc: _history(Crowd(world, process, rpc, weather, answers)))
            finally:
                world.over()

        try:
            run(loop, main())
        except (DeadLock, RanTooLong) as exc:
            world.violated("L4", f"{type(exc).__name__}: {exc}")
        finally:
            world.close()
    took_s = time.perf_counter() - begun
    return HistoryReport(str(seed), tuple(world.violations), answers, weather.kinds, tuple(world.trace), took_s)


async def _history(crowd: "Crowd") -> None:
    with suppress(StopHere):
        await crowd.live()
        await crowd.calm()
        await crowd.clear()


class Crowd(Client):
    """Users who know of one another's volumes and servers, and do not wait for one another."""

    def __init__(self, world: World, process: Process, rpc: RpcClient, weather: Weather, answers: Counter[str]) -> None:
        super().__init__(world, process, rpc)
        self._weather = weather
        self._answers = answers
        self._chance = world.chance
        self._names = 0
        self._requests = Requests()

    async def live(self) -> None:
        """Every user asks for what is to be asked."""
        operations, users = self._chance.randint(*_OPERATIONS), self._chance.randint(*_USERS)
        self._weather.is_raging = True
        async with asyncio.TaskGroup() as group:
            for user in range(users):
                group.create_task(self._user(operations // users + (user < operations % users)))
        self._weather.is_raging = False

    async def calm(self) -> None:
        """Nobody asks, nothing fails: within T_S everything is as it must be."""
        await self.settled()
        self.check()
        for invariant, what in self._requests.judge(self.world):
            self.world.violated(invariant, what)
        if self.world.violations:
            raise StopHere

    async def clear(self) -> None:
        """Everything can be deleted, and then nothing is left."""
        await self._until_none("SELECT uuid AS id FROM instances WHERE deleted = 0", self._delete_server)
        await self._until_none("SELECT id FROM volumes WHERE NOT deleted", self._delete_volume)
        self.check()
        reality = self.world.reality
        left = [*reality.volumes, *reality.served, *(machine.uuid for machine in reality.machines())]
        left += [key for host in reality.hosts.values() for key in (*host.connected, *host.dead)]
        if left:
            self.world.violated("L3", f"all was deleted, and left are {left}")

    async def _until_none(self, query: str, delete: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        for _ in range(TRIES):
            left = [row["id"] for row in self.world.database.rows(query)]
            if not left:
                return
            async with asyncio.TaskGroup() as group:
                for key in left:
                    group.create_task(delete(key))
            await self.settled()
        if left := self.world.database.rows(query):
            self.world.violated("S4", f"could not be deleted in {TRIES} tries: {left}")
            raise StopHere

    # -- what users do -------------------------------------------------------------------------------------------------

    async def _user(self, operations: int) -> None:
        for _ in range(operations):
            await self._one()
            await asyncio.sleep(self._chance.expovariate(1 / _BETWEEN_S) if self._chance.random() < 0.8 else 0)

    async def _one(self) -> None:
        volumes = [row["id"] for row in self.world.database.rows("SELECT id FROM volumes WHERE NOT deleted ORDER BY id")]
        servers = [row["uuid"] for row in self.world.database.rows("SELECT uuid FROM instances WHERE deleted = 0 ORDER BY uuid")]
        kinds = ["create"] * (4 if len(volumes) < 4 else 1) + ["boot"] * (4 if len(servers) < 4 else 1)
        kinds += (["attach"] * 8 + ["race"] * 2) * bool(volumes and servers) + ["delete_volume"] * (len(volumes) > 1)
        kinds += ["power"] * 2 * bool(servers)
        kinds += ["delete_server"] * (len(servers) > 1) + ["detach"] * 6 * bool(volumes and servers)
        self._names += 1
        match self._chance.choice(kinds):
            case "create":
                size, name = self._chance.randint(1, 3), f"v{self._names}"
                await self._asked(
                    Wanted.CREATE, name, lambda ctx: self.volumes.create(ctx, size=size, name=name), lambda made: made.id
                )
            case "boot":
                host, name = self._chance.choice((None, *self.world.hosts)), f"s{self._names}"
                await self._asked(
                    Wanted.BOOT,
                    name,
                    lambda ctx: self.servers.create(ctx, name=name, flavor="m1.tiny", host=host),
                    lambda made: made.uuid,
                )
            case "attach":
                await self._attach(self._chance.choice(servers), self._chance.choice(volumes))
            case "race":
                volume = self._chance.choice(volumes)
                chosen = [self._chance.choice(servers) for _ in range(2)]
                async with asyncio.TaskGroup() as group:
                    for server in chosen:
                        group.create_task(self._attach(server, volume))
            case "detach":
                await self._detach(servers, volumes)
            case "power":
                await self._power(self._chance.choice(servers))
            case "delete_volume":
                await self._delete_volume(self._chance.choice(volumes))
            case "delete_server":
                await self._delete_server(self._chance.choice(servers))

    async def _attach(self, server: str, volume: str) -> None:
        await self._asked(
            Wanted.ATTACH,
            f"{volume[:8]} to {server[:8]}",
            lambda ctx: self.servers.attach_volume(ctx, server=server, volume=volume),
            lambda mapping: mapping.attachment_id,
        )

    async def _detach(self, servers: list[str], volumes: list[str]) -> None:
        """Mostly something that is attached."""
        pairs = [
            (row["instance_uuid"], row["volume_id"])
            for row in self.world.database.rows(
                "SELECT instance_uuid, volume_id FROM block_device_mapping WHERE deleted = 0 ORDER BY id"
            )
        ]
        server, volume = self._chance.choice(pairs or [(self._chance.choice(servers), self._chance.choice(volumes))])
        await self._asked(
            Wanted.DETACH,
            f"{volume[:8]} from {server[:8]}",
            lambda ctx: self.servers.detach_volume(ctx, server=server, volume=volume),
            lambda _: None,
        )

    async def _power(self, server: str) -> None:
        """Mostly what the server's state allows."""
        (row,) = self.world.database.rows("SELECT vm_state FROM instances WHERE uuid = ?", server)
        api, kind = self.servers, self._chance.choice(list(RebootType))
        calls: dict[str, Callable[[Context], Awaitable[None]]] = {
            "stop": lambda ctx: api.stop(ctx, server=server),
            "start": lambda ctx: api.start(ctx, server=server),
            "reboot": lambda ctx: api.reboot(ctx, server=server, reboot_type=kind),
        }
        likely = {"active": ("stop", "reboot"), "stopped": ("start", "start")}.get(row["vm_state"], ("reboot",))
        verb = self._chance.choice((*likely, *likely, *calls))
        await self._asked(Wanted(verb), server[:8], calls[verb], lambda _: server)

    async def _delete_server(self, server: str) -> None:
        await self._asked(Wanted.DELETE_SERVER, server[:8], lambda ctx: self.servers.delete(ctx, server=server), lambda _: server)

    async def _delete_volume(self, volume: str) -> None:
        await self._asked(
            Wanted.DELETE_VOLUME, volume[:8], lambda ctx: self.volumes.delete(ctx, volume_id=volume), lambda _: volume
        )

    async def _asked(
        self, kind: Wanted, about: str, call: Callable[[Context], Awaitable[Any]], subject_of: Callable[[Any], str | None]
    ) -> None:
        """`subject_of` tells from the result what the request is about; None: its flow does."""
        ctx, what = self.ctx, f"{kind} {about}"
        asked = await self.ask(what, lambda: call(ctx))
        self._answers[asked.answer] += 1
        subject = ""
        if asked.answer is Answer.DONE:
            subject = subject_of(asked.value) or self._detached_by(ctx.request_id)
            if not observed(self.world, kind, subject):
                self.world.violated("S9", f"{what} is done, says the answer, and nothing of it is to be seen")
        self._requests.asked.append(Request(ctx.request_id, kind, what, asked.answer, subject))

    def _detached_by(self, request_id: str) -> str:
        """The attachment that a request is to end."""
        found = self.world.database.rows("SELECT arguments FROM flows WHERE request_id = ? AND saga = 'request_detach'", request_id)
        return str(json.loads(found[0]["arguments"])["attachment_id"]) if found else ""
