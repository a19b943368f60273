"""All services in one loop on virtual time, over one bus, one database and one reality; a supervisor restarts what dies."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from cinder_lite.config import CinderConfig, load_cinder
from cinder_lite.service import wiring as cinder
from common.app.service import Outside
from common.base.failpoints import Failpoints
from common.db.engine import Database
from common.rpc.client import RpcClient
from common.rpc.options import RpcOptions
from common.rpc.session import client
from common.testing.bus import SimulatedTransport
from common.testing.fate import Fate, Strike
from common.testing.loop import VirtualLoop
from common.testing.process import Process, ProcessClock
from common.transport.memory import MemoryBus
from common.transport.port import Transport
from nova_lite.config import NovaConfig, load_nova
from nova_lite.service import wiring as nova
from tests.simulation.adapters import SimulatedConnector, SimulatedDriver, SimulatedHypervisor, SimulatedTarget
from tests.simulation.database import WatchedDatabase, image
from tests.simulation.reality import Reality

BACKEND = "vault"
STORAGE_HOST = "block1"
CLIENT = "client"
T_S = 60.0
"""Virtual seconds after the last fault in which everything has to come to an end."""

RECONCILED_S = 30.0
"""Virtual seconds until what the target daemon forgot is there again."""

_STANZA = f"[{BACKEND}]\nvolume_driver = cinder.volume.drivers.fake.FakeDriver\ntarget_helper = fake\n"
_FIRST_RESTART_S = 1.0


class ArmedFailpoints(Failpoints):
    """Every place is a boundary of the process."""

    is_on: ClassVar[bool] = True

    def __init__(self, process: Process) -> None:
        self._process = process

    async def reach(self, name: str) -> None:
        await self._process.reach(name)


@dataclass(frozen=True, slots=True)
class Past:
    """What a world left when all its processes had died: what is stored and what is real, and when that was."""

    database: bytes
    reality: Reality
    time_s: float


class World:
    """What a scenario holds of it. Violations are pairs of an invariant's name and what was seen."""

    def __init__(
        self, loop: VirtualLoop, chance: Random, *, strikes: Iterable[Strike] = (), computes: int = 2,
        tell: Callable[[str], None] | None = None, past: "Past | None" = None, fate: Fate | None = None,
    ) -> None:  # fmt: skip
        self.loop = loop
        self.chance = chance
        self.violations: list[tuple[str, str]] = []
        self.trace: list[str] = []
        self._tell = tell
        self.fate = fate or Fate()
        self.fate.plan(*strikes)
        self.fate.tell = self.tell
        self.clock = ProcessClock(loop)
        self.bus = MemoryBus(self.clock)
        self.database = WatchedDatabase(past.database if past else image(), self.clock, told=self.tell, violated=self.violated)
        self.hosts = tuple(f"cmp{number + 1}" for number in range(computes))
        self.reality = past.reality.copy(violated=self.violated) if past else Reality(self.hosts, violated=self.violated)
        self.fate.happenings = {"target": self._target_restarts, "machine": self._machines_die, "clings": self._guests_cling}
        self.processes: dict[str, Process] = {}
        self._dead: list[Process] = []
        self._ready: dict[str, asyncio.Event] = {}
        self._stops: dict[str, asyncio.Event] = {}
        self._names: dict[str, dict[str | None, Process]] = {}
        self.is_over = False
        self.look: Callable[[World], Iterable[tuple[str, str]]] = lambda _: ()
        """What is judged whenever a process dies or is up again, and a call is answered."""
        self.outcome = ""
        """What the operation of a case came to, when the fault was over."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of every process that is to run."""
        return (
            "cinder-api.ctl1",
            "cinder-api.ctl2",
            "cinder-scheduler.ctl1",
            f"cinder-volume.{STORAGE_HOST}",
            "nova-api.ctl1",
            "nova-api.ctl2",
            *(f"nova-compute.{host}" for host in self.hosts),
        )

    def tell(self, what: str) -> None:
        """A line of the trace."""
        self.trace.append(f"{self.loop.time():10.4f} {what}")
        if self._tell is not None:
            self._tell(self.trace[-1])

    def violated(self, invariant: str, what: str) -> None:
        self.violations.append((invariant, what))
        self.tell(f"** {invariant}: {what}")

    # -- what befalls it ----------------------------------------------------------------------------------------------

    def _target_restarts(self) -> None:
        """It keeps nothing; whoever looks after it has RECONCILED_S to notice."""
        self.reality.restart_target()
        self.fate.lasts(self.loop.time() + RECONCILED_S)

    def _machines_die(self) -> None:
        for machine in self.reality.machines():
            self.reality.kill_machine(machine.uuid)

    def _guests_cling(self) -> None:
        for machine in self.reality.machines():
            machine.clings = True

    # -- processes ----------------------------------------------------------------------------------------------------

    async def up(self) -> None:
        """Every process runs and is ready."""
        for name in self.names:
            self.start(name)
        for name in self.names:
            await self._ready[name].wait()

    def start(self, name: str) -> None:
        """A new life of that process. One that runs: nothing happens."""
        if self.is_over or name in self.processes:
            return
        self.tell(f"== {name} starts")
        process = self.processes[name] = Process(name, self.loop, self.fate, ended=self._ended)
        self._ready[name], self._stops[name] = asyncio.Event(), asyncio.Event()
        process.run(self._life(process))

    def kill(self, name: str) -> None:
        """kill -9."""
        self.processes[name].kill()

    def stop(self, name: str) -> None:
        """SIGTERM."""
        self._stops[name].set()

    def pause(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after that time."""
        self.processes[name].stop(seconds)

    async def ready(self, name: str) -> None:
        """The process serves."""
        await self._ready[name].wait()

    @property
    def are_up(self) -> bool:
        return all(
            name in self.processes and self._ready[name].is_set() and not self.processes[name].is_stopped for name in self.names
        )

    def over(self) -> None:
        """Every process dies, and nothing waits any more."""
        self.is_over = True
        for process in tuple(self.processes.values()):
            process.kill()
        for process in self._dead:
            process.is_buried = True

    def past(self) -> Past:
        """What another world can begin with."""
        return Past(self.database.raw.serialize(), self.reality.copy(violated=_nobody), self.loop.time())

    def close(self) -> None:
        self.database.close()

    def _ended(self, process: Process) -> None:
        self.tell(f"== {process.name} is dead")
        self._dead.append(process)
        del self.processes[process.name]
        self.judge()
        if not self.is_over and process.name != CLIENT:
            process.later(_FIRST_RESTART_S + self.chance.random(), partial(self.start, process.name))

    def judge(self) -> None:
        """What must hold at any instant."""
        if not self.is_over:
            for invariant, what in self.look(self):
                self.violated(invariant, what)

    async def _life(self, process: Process) -> None:
        ready, stop = self._ready[process.name], self._stops[process.name]
        try:
            async with self._service(process):
                ready.set()
                process.outside(self.judge)
                await stop.wait()
        except Exception as exc:  # noqa: BLE001  # whatever ends a process, the supervisor restarts it
            self.tell(f"== {process.name} fails: {exc!r}")

    def _service(self, process: Process) -> AbstractAsyncContextManager[None]:
        outside, reality = self._outside(process), self.reality
        kind, _, host = process.name.partition(".")
        match kind:
            case "cinder-api":
                return cinder.api(_cinder(host), outside)
            case "cinder-scheduler":
                return cinder.scheduler(_cinder(host), outside)
            case "cinder-volume":
                adapters = SimulatedDriver(reality, process, backend=BACKEND), SimulatedTarget(reality, process)
                return cinder.volume_with(_cinder(host), outside, {BACKEND: adapters})
            case "nova-api":
                return nova.api(_nova(host), outside)
            case "nova-compute":
                hypervisor = SimulatedHypervisor(reality, reality.hosts[host], process)
                connector = SimulatedConnector(reality.hosts[host], process)
                return nova.compute_with(_nova(host), outside, hypervisor=hypervisor, connector=connector)
        raise AssertionError(kind)

    def _outside(self, process: Process) -> Outside:
        async def open_bus(url: str, name: str) -> Transport:
            await process.living()
            return SimulatedTransport(self.bus, process)

        def open_database(connection: str, **how: Any) -> Database:
            return self.database.opened(process, connection, **how)

        @contextmanager
        def hold_name(folder: Path, name: str, *, boot: str | None = None) -> Iterator[frozenset[str]]:
            """The lock of a process that stands still is held; the one of a dead process is not."""
            holders = self._names.setdefault(name, {})
            dead = frozenset(known for known, holder in holders.items() if known is not None and holder.is_dead)
            for gone in dead:
                del holders[gone]
            holder = holders.get(boot)
            assert holder is None or holder is process or holder.is_dead, f"{name} runs already in {folder}"
            holders[boot] = process
            yield dead

        return Outside(process.clock, open_bus, open_database, hold_name, ArmedFailpoints(process))

    async def with_client(self, work: Callable[[Process, RpcClient], Awaitable[None]]) -> None:
        """Returns when `work` has, which is done by somebody who asks for things."""
        process = self.processes[CLIENT] = Process(CLIENT, self.loop, self.fate, ended=self._ended)
        done: asyncio.Future[None] = self.loop.create_future()

        async def life() -> None:
            async with client(SimulatedTransport(self.bus, process), clock=process.clock, options=RpcOptions()) as rpc:
                try:
                    await work(process, rpc)
                except Exception as exc:  # noqa: BLE001  # raised again where the case is run
                    done.set_exception(exc)
                else:
                    done.set_result(None)
                await self.loop.create_future()

        process.run(life())
        await done


def _nobody(_: str, __: str) -> None:
    """What is kept is not judged."""


def _overrides(host: str) -> dict[str, dict[str, Any]]:
    return {
        "DEFAULT": {"transport_url": "memory://world", "state_path": "/nonexistent/simulated", "my_ip": "192.0.2.9", "host": host}
    }


@cache
def _nova(host: str) -> NovaConfig:
    return load_nova((), overrides=_overrides(host))


@cache
def _cinder(host: str) -> CinderConfig:
    overrides = _overrides(host)
    overrides["DEFAULT"]["enabled_backends"] = BACKEND
    return load_cinder((_stanza(),), overrides=overrides)


@cache
def _stanza() -> Path:
    file = Path(tempfile.mkdtemp()) / "cinder.conf"
    file.write_text(_STANZA)
    return file
