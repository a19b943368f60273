"""All services in one loop, on fakes that a test can make fail: the bus in memory, the database a file, real endpoints and flows."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cinder_lite.config import load_cinder
from cinder_lite.contract import Snapshot, Volume, VolumeAPI, VolumeManagerAPI
from cinder_lite.domain.snapshot import FINAL_STATES as SNAPSHOT_SETTLED
from cinder_lite.domain.volume import FINAL_STATES as SETTLED
from cinder_lite.drivers.fake import FakeDriver
from cinder_lite.service import wiring as cinder
from cinder_lite.service.about import SERVICE as CINDER
from cinder_lite.targets.fake import FakeTarget
from common.app.commands import UsersSender, opener
from common.app.doctor import Doctor
from common.app.following import follow
from common.app.service import Outside, Service, ServiceConfig
from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import NotFound
from common.db.engine import Database, open_database
from common.db.journal import FlowRow, Journal
from common.db.migrate import upgrade
from common.host.clock import SystemClock
from common.rpc.client import RpcClient
from common.rpc.options import RpcOptions
from common.rpc.session import client
from common.transport.memory import MemoryBuses
from nova_lite.brick.fake import FakeConnector
from nova_lite.config import load_nova
from nova_lite.contract import BlockDeviceMapping, ComputeAPI, ComputeManagerAPI, Instance
from nova_lite.domain.instance import FINAL_STATES
from nova_lite.service import wiring as nova
from nova_lite.service.about import SERVICE as NOVA
from nova_lite.store.block_device_mapping import BlockDeviceMappings
from nova_lite.virt.fake import FakeHypervisor

BACKEND = "vault"
HOST = "cmp1"
INITIATOR = "iqn.2010-10.org.openstack:cmp1"


@dataclass
class World:
    """What a test holds of it. `ctx` is new for every request, as a client's is."""

    clock: Clock
    rpc: RpcClient
    database: Database
    hypervisor: FakeHypervisor = field(default_factory=FakeHypervisor)
    connector: FakeConnector = field(default_factory=lambda: FakeConnector(host=HOST, initiator=INITIATOR))
    driver: FakeDriver = field(default_factory=lambda: FakeDriver(volume_backend_name=BACKEND))
    target: FakeTarget = field(default_factory=FakeTarget)
    services: list[tuple[Service, ServiceConfig]] = field(default_factory=list)

    @property
    def doctor(self) -> Doctor:
        """What `lite doctor` looks with."""
        sender = UsersSender(self.rpc, bus=self.rpc.transport.url)
        return Doctor(self.services, self.database, self.rpc.transport, sender, self.clock)

    @property
    def ctx(self) -> Context:
        return Context(user_id="tester", project_id="p1")

    @property
    def servers(self) -> ComputeAPI:
        return ComputeAPI.over(self.rpc)

    @property
    def compute(self) -> ComputeManagerAPI:
        return ComputeManagerAPI.over(self.rpc).on(HOST)

    @property
    def volumes(self) -> VolumeAPI:
        return VolumeAPI.over(self.rpc)

    @property
    def backend(self) -> VolumeManagerAPI:
        return VolumeManagerAPI.over(self.rpc).on(f"{HOST}@{BACKEND}")

    @property
    def mappings(self) -> BlockDeviceMappings:
        return BlockDeviceMappings(self.database, self.clock)

    async def boot(self, name: str = "server-1") -> Instance:
        made = await self.servers.create(self.ctx, name=name, flavor="m1.small")
        return await self.settled_server(made.uuid)

    async def create(self, name: str = "volume-1", size: int = 1) -> Volume:
        made = await self.volumes.create(self.ctx, size=size, name=name)
        return await self.settled(made.id)

    async def attach(self, server: Instance, volume: Volume, device: str | None = None) -> BlockDeviceMapping:
        return await self.servers.attach_volume(self.ctx, server=server.uuid, volume=volume.id, device=device)

    async def detach(self, server: Instance, volume: Volume) -> None:
        await self.servers.detach_volume(self.ctx, server=server.uuid, volume=volume.id)

    async def settled(self, volume_id: str) -> Volume:
        """The volume once nobody is at work on it."""
        return await follow(
            lambda: self.volumes.get(self.ctx, volume_id=volume_id),
            is_final=lambda found: found.status in SETTLED,
            shown=lambda found: found.status,
            tell=lambda _: None,
            clock=self.clock,
            what=f"volume {volume_id}",
            timeout_s=30,
        )

    async def settled_snapshot(self, snapshot_id: str) -> Snapshot:
        """The snapshot once nobody is at work on it."""
        return await follow(
            lambda: self.volumes.get_snapshot(self.ctx, snapshot_id=snapshot_id),
            is_final=lambda found: found.status in SNAPSHOT_SETTLED,
            shown=lambda found: found.status,
            tell=lambda _: None,
            clock=self.clock,
            what=f"snapshot {snapshot_id}",
            timeout_s=30,
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
            timeout_s=30,
        )

    async def server_is_gone(self, uuid: str) -> bool:
        """Returns once it is."""
        return await self._gone(lambda: self.servers.get(self.ctx, server=uuid), f"server {uuid}")

    async def volume_is_gone(self, volume_id: str) -> bool:
        """Returns once it is."""
        return await self._gone(lambda: self.volumes.get(self.ctx, volume_id=volume_id), f"volume {volume_id}")

    async def _gone(self, get: Callable[[], Awaitable[object]], what: str) -> bool:
        async def is_gone() -> bool:
            try:
                await get()
            except NotFound:
                return True
            return False

        return await follow(is_gone, is_final=bool, shown=str, tell=lambda _: None, clock=self.clock, what=what, timeout_s=30)

    async def flows(self) -> list[FlowRow]:
        """Every flow that was run."""
        return await Journal(self.database, self.clock).list()

    async def ended_flows(self) -> list[FlowRow]:
        """Every flow, once none is running."""
        return await follow(
            self.flows,
            is_final=lambda rows: all(row.state != "running" for row in rows),
            shown=lambda rows: str(len(rows)),
            tell=lambda _: None,
            clock=self.clock,
            what="flows",
            timeout_s=30,
        )


@asynccontextmanager
async def running_world(folder: Path, *, connection: str | None = None, **fakes: object) -> AsyncIterator[World]:
    """A world inside the block; `fakes` replace the parts of the same name. `connection`: another database than a file of its own."""
    clock = SystemClock()
    outside = Outside(clock, opener(clock, MemoryBuses(clock)))
    overrides = {
        "DEFAULT": {"transport_url": "memory://world", "state_path": str(folder), "my_ip": "127.0.0.1", "host": HOST},
    }
    if connection is not None:
        overrides["database"] = {"connection": connection}
    nova_config = load_nova((), overrides=overrides)
    cinder_overrides = {**overrides, "DEFAULT": {**overrides["DEFAULT"], "enabled_backends": BACKEND}}
    stanza = folder / "cinder.conf"
    stanza.write_text(f"[{BACKEND}]\nvolume_driver = cinder.volume.drivers.fake.FakeDriver\ntarget_helper = fake\n")
    cinder_config = load_cinder((stanza,), overrides=cinder_overrides)
    connection = nova_config.database.connection
    await upgrade(connection, [nova.INSIDE.migrations, cinder.INSIDE.migrations], clock=clock)
    async with AsyncExitStack() as stack:
        database = open_database(connection, clock=clock)
        stack.push_async_callback(database.close)
        transport = await outside.open_bus("memory://world", "test")
        stack.push_async_callback(transport.close)
        rpc = await stack.enter_async_context(client(transport, clock=clock, options=RpcOptions()))
        world = World(clock=clock, rpc=rpc, database=database, **fakes)  # type: ignore[arg-type]  # by their names
        world.services += [(NOVA, nova_config), (CINDER, cinder_config)]
        for process in (
            cinder.api(cinder_config, outside),
            cinder.scheduler(cinder_config, outside),
            cinder.volume_with(cinder_config, outside, {BACKEND: (world.driver, world.target)}),
            nova.api(nova_config, outside),
            nova.compute_with(nova_config, outside, hypervisor=world.hypervisor, connector=world.connector),
        ):
            await stack.enter_async_context(process)
        yield world
