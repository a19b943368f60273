"""What the flows of nova act on. `wiring` fills these in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from common.app.deciding import Decisions
from common.app.post import Post
from common.base.clock import Clock
from common.base.errors import Conflict, Fault, NotFound
from common.db.journal import Journal
from common.db.outbox import Letter
from common.flow.runner import Runner
from common.flow.steps import Flow, TooLate
from nova_lite.contract import ComputeManagerAPI, Instance
from nova_lite.domain.instance import INSTANCE, Event
from nova_lite.errors import ComputeServiceUnavailable, InstanceNotFound
from nova_lite.ports.connector import Connector
from nova_lite.ports.hypervisor import Hypervisor
from nova_lite.ports.volumes import Volumes
from nova_lite.store.block_device_mapping import BlockDeviceMappings
from nova_lite.store.instances import Instances


@dataclass(frozen=True, slots=True)
class ApiParts:
    """nova-api's."""

    instances: Instances
    mappings: BlockDeviceMappings
    volumes: Volumes
    compute: ComputeManagerAPI
    orders: ComputeManagerAPI
    post: Post
    journal: Journal
    decisions: Decisions

    def on(self, instance: Instance) -> ComputeManagerAPI:
        """The compute host that the server is on, for calls."""
        return self.compute.on(_host_of(instance))

    @contextmanager
    def ordering(self, instance: Instance) -> Iterator[tuple[ComputeManagerAPI, list[Letter]]]:
        """The same host for casts, which are in the list after the block, and are sent by whoever writes the list down."""
        host = _host_of(instance)
        with self.post.letters() as letters:
            yield self.orders.on(host), letters


def _host_of(instance: Instance) -> str:
    if instance.host is None:
        raise ComputeServiceUnavailable(host="no host", reason=f"server {instance.display_name} was never given one")
    return instance.host


@dataclass(frozen=True, slots=True)
class ComputeParts:
    """One compute host's. `shutdown_timeout_s`: what a guest is given to shut down."""

    host: str
    instances: Instances
    mappings: BlockDeviceMappings
    volumes: Volumes
    hypervisor: Hypervisor
    connector: Connector
    runner: Runner
    clock: Clock
    shutdown_timeout_s: float = 60.0

    async def connect(self, bdm_uuid: str, info: Mapping[str, Any]) -> None:
        """Connects the host to the volume, and keeps where it is: a device may bear another name each time."""
        device = await self.connector.connect_volume(info)
        data = (
            {key: value for key, value in info["data"].items() if key != "device_path"}
            if device["type"] == "network"
            else info["data"]
        )
        data = {**data, "device_path": device["path"]} if "path" in device else data
        if data != info["data"]:
            await self.mappings.save_connection_info(bdm_uuid, {**info, "data": data})

    async def connection_info(self, bdm_uuid: str) -> dict[str, Any] | None:
        """None when there is none, or no mapping any more: another flow was here before."""
        try:
            return await self.mappings.connection_info(bdm_uuid)
        except NotFound:
            return None

    async def let_go(self, instance_uuid: str, volume_id: str) -> None:
        """The machine has the disk no longer. A machine that is gone took its disks with it."""
        if instance_uuid in await self.hypervisor.list_instances():
            await self.hypervisor.detach_volume(volume_id, instance_uuid)

    async def record_fault(self, flow: Flow[Any, Any], instance_uuid: str, fault: Fault, what: str) -> None:
        """What `nova-lite show` prints about something that failed behind the answer."""
        await self.instances.add_fault(
            instance_uuid, code=fault.code, message=f"{what}: {fault}", host=self.host, request_id=flow.ctx.request_id
        )


async def begin_once(instances: Instances, uuid: str, event: Event) -> None:
    """Begin what a request asks of a server. Done by an earlier try of the same flow: nothing happens; by another one: raises Conflict."""
    try:
        await instances.advance(uuid, event)
    except Conflict:
        if not await instances.has_made(uuid, event):
            raise


async def require_begun(instances: Instances, uuid: str, settles: Event) -> None:
    """Returns while the server waits for `settles`. Raises TooLate.

    An order can come so late that another one has done its work; the server may be at something else by now, or gone.
    """
    found = await instances.remembered(uuid)
    if not INSTANCE.allows((found.vm_state, found.task_state), settles):
        wanted = " or ".join(sorted({f"{task}" for _, task in INSTANCE.sources(settles)}))
        raise TooLate(kind="server", name=uuid, found=found.task_state or found.vm_state, expected=wanted)


async def advance_once(instances: Instances, uuid: str, event: Event, **values: Any) -> None:
    """Advance a server's state; where that was done by an earlier try of the same step, nothing happens.

    Others may have gone on from there meanwhile, so the state can be another one by now, or the server gone.
    """
    try:
        await instances.advance(uuid, event, **values)
    except Conflict:
        if await instances.has_made(uuid, event):
            return
        found = await instances.get(uuid)
        if (found.vm_state, found.task_state) != INSTANCE.target(event):
            raise
    except InstanceNotFound:
        if event is not Event.DESTROYED and not await instances.has_made(uuid, event):
            raise
