"""All services in one loop on real adapters: a real backend, real machines with guests on two hosts. Each service can be begun anew."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cinder_lite.config import load_cinder
from cinder_lite.contract import Volume, VolumeAPI, VolumeStatus
from cinder_lite.service import wiring as cinder
from common.app.commands import opener
from common.app.following import follow
from common.app.service import Outside
from common.base.context import Context
from common.base.errors import Fault
from common.db.migrate import upgrade
from common.host.clock import SystemClock
from common.rpc.client import RpcClient
from common.rpc.options import RpcOptions
from common.rpc.session import client
from common.transport.memory import MemoryBuses
from nova_lite.brick.host import HostConnector
from nova_lite.brick.properties import ensure_initiator_name
from nova_lite.config import load_nova
from nova_lite.contract import ComputeAPI, Instance
from nova_lite.domain.instance import FINAL_STATES
from nova_lite.service import wiring as nova
from tests.integration.datapath.backends import Backend
from tests.integration.datapath.hosts import ComputeHost

SETTLED = {VolumeStatus.AVAILABLE, VolumeStatus.IN_USE, VolumeStatus.ERROR, VolumeStatus.ERROR_DELETING}
WAIT_S = 180.0
Process = Callable[[], AbstractAsyncContextManager[None]]


class Service:
    """One service process, as far as one loop can have it: it is ended wherever it is, and begun anew."""

    def __init__(self, make: Process) -> None:
        self._make = make
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        await self._stack.enter_async_context(self._make())

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        await self._stack.aclose()


@dataclass
class Stack:
    """What a run holds. `ctx` is new for every request."""

    rpc: RpcClient
    hosts: dict[str, ComputeHost]
    backend: Backend
    services: dict[str, Service] = field(default_factory=dict)
    clock: SystemClock = field(default_factory=SystemClock)

    @property
    def ctx(self) -> Context:
        return Context(user_id="tester", project_id="p1")

    @property
    def servers(self) -> ComputeAPI:
        return ComputeAPI.over(self.rpc)

    @property
    def volumes(self) -> VolumeAPI:
        return VolumeAPI.over(self.rpc)

    async def boot(self, name: str, host: str) -> Instance:
        made = await self.servers.create(self.ctx, name=name, flavor="m1.tiny", host=host)
        return await self.settled_server(made.uuid)

    async def create(self, name: str) -> Volume:
        made = await self.volumes.create(self.ctx, size=1, name=name)
        return await self.settled(made.id)

    async def attach(self, server: Instance, volume: Volume) -> None:
        await self.servers.attach_volume(self.ctx, server=server.uuid, volume=volume.id)
        found = await self.settled(volume.id)
        if found.status is not VolumeStatus.IN_USE:
            server = await self.servers.get(self.ctx, server=server.uuid)
            raise AssertionError(f"volume {volume.label} is {found.status}: {server.fault}")

    async def detach(self, server: Instance, volume: Volume) -> None:
        await self.servers.detach_volume(self.ctx, server=server.uuid, volume=volume.id)
        found = await self.settled(volume.id)
        if found.status is not VolumeStatus.AVAILABLE:
            server = await self.servers.get(self.ctx, server=server.uuid)
            raise AssertionError(f"volume {volume.label} is {found.status}: {server.fault}")

    async def settled(self, volume_id: str) -> Volume:
        """The volume once nobody is at work on it."""
        return await follow(
            lambda: self.volumes.get(self.ctx, volume_id=volume_id),
            is_final=lambda found: found.status in SETTLED,
            shown=lambda found: found.status,
            tell=lambda _: None,
            clock=self.clock,
            what=f"volume {volume_id}",
            timeout_s=WAIT_S,
        )

    async def settled_server(self, uuid: str) -> Instance:
        """The server once nobody is at work on it."""
        return await follow(
            lambda: self.servers.get(self.ctx, server=uuid),
            is_final=lambda found: (found.vm_state, found.task_state) in FINAL_STATES,
            shown=lambda found: str(found.vm_state),
            tell=lambda _: None,
            clock=self.clock,
            what=f"server {uuid}",
            timeout_s=WAIT_S,
        )

    async def up(self, name: str) -> None:
        """Returns once every host takes orders again: after a restart the first heartbeat must have come."""
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    await self.servers.get_all(self.ctx)
                    await self.volumes.get_all(self.ctx)
                except Fault:
                    await self.clock.sleep(0.05)
                else:
                    return


@asynccontextmanager
async def stack(folder: Path, backend: Backend, hosts: list[ComputeHost]) -> AsyncIterator[Stack]:
    """All of it, running."""
    clock = SystemClock()
    outside = Outside(clock, opener(clock, MemoryBuses(clock)))
    connection = f"sqlite:///{folder}/lite.sqlite"
    conf = folder / "cinder.conf"
    conf.write_text(f"[store]\n{backend.stanza}")

    def overrides(host: str, **more: str) -> dict[str, dict[str, str]]:
        default = {"transport_url": "memory://datapath", "my_ip": "127.0.0.1", "state_path": str(folder / "state"), "host": host}
        return {"DEFAULT": default | more, "database": {"connection": connection}}

    stores = load_cinder((conf,), overrides=overrides("store1", enabled_backends="store"))
    await upgrade(connection, [nova.INSIDE.migrations, cinder.INSIDE.migrations], clock=clock)
    controller = load_nova((), overrides=overrides("controller"))
    makes: dict[str, Process] = {
        "cinder-api": lambda: cinder.api(stores, outside),
        "cinder-scheduler": lambda: cinder.scheduler(stores, outside),
        "cinder-volume": lambda: cinder.volume(stores, outside),
        "nova-api": lambda: nova.api(controller, outside),
    }
    for host in hosts:
        makes[f"nova-compute.{host.name}"] = _compute(folder, outside, host, overrides(host.name))
    async with AsyncExitStack() as exits:
        transport = await outside.open_bus("memory://datapath", "test")
        exits.push_async_callback(transport.close)
        rpc = await exits.enter_async_context(client(transport, clock=clock, options=RpcOptions()))
        made = Stack(rpc=rpc, hosts={host.name: host for host in hosts}, backend=backend)
        for name, make in makes.items():
            made.services[name] = Service(make)
            exits.push_async_callback(made.services[name].stop)
            await made.services[name].start()
        yield made


def _compute(folder: Path, outside: Outside, host: ComputeHost, overrides: dict[str, dict[str, str]]) -> Process:
    config = load_nova((), overrides=overrides)
    initiator = folder / f"{host.name}.initiator"
    ensure_initiator_name(initiator)
    connector = HostConnector(host=host.name, my_ip="127.0.0.1", initiator_file=initiator, userspace_disks=True)
    return lambda: nova.compute_with(config, outside, hypervisor=host.hypervisor, connector=connector)
