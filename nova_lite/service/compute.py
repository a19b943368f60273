"""nova-compute: the manager of one host's guests. An endpoint checks and starts a flow; the flow is a file in nova_lite/flows."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import structlog

from common.app.reconciling import Rounds
from common.base.context import Context
from common.base.errors import Fault, Timeout
from common.base.ids import new_uuid
from common.host.locks import KeyedLocks
from nova_lite.contract import (
    MACHINE_TIMEOUT_S,
    BlockDeviceMapping,
    ComputeManagerAPI,
    GuestProbe,
    HostInventory,
    HostReport,
    Instance,
    InstanceExternalEvent,
    RebootType,
)
from nova_lite.domain.device_name import next_device_name
from nova_lite.domain.settle import Action
from nova_lite.errors import VolumeAlreadyAttached, VolumeBDMNotFound
from nova_lite.flows.attach_volume import AttachVolume
from nova_lite.flows.boot import Boot
from nova_lite.flows.delete import Delete
from nova_lite.flows.detach_volume import DetachVolume
from nova_lite.flows.extend_disk import ExtendDisk
from nova_lite.flows.parts import ComputeParts
from nova_lite.flows.power import Reboot, Start, Stop

T = TypeVar("T")

VOLUME_EXTENDED = "volume-extended"
_log = structlog.get_logger(__name__)


class ComputeManager(ComputeManagerAPI):
    """Implements the contract. `disks_max`: [compute] max_disk_devices_to_attach, or what the hypervisor can hold."""

    def __init__(self, parts: ComputeParts, locks: KeyedLocks, *, disks_max: int) -> None:
        self._parts = parts
        self._locks = locks
        self._disks_max = disks_max

    async def build_and_run_instance(
        self, ctx: Context, *, instance: Instance, image: Mapping[str, Any] | None = None,
        request_spec: Mapping[str, Any] | None = None, filter_properties: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        await self._parts.runner.start(Boot.of(ctx, self._parts, instance=instance))

    async def terminate_instance(self, ctx: Context, *, instance: Instance, bdms: list[BlockDeviceMapping] | None = None) -> None:
        await self._parts.runner.start(Delete.of(ctx, self._parts, instance=instance))

    async def stop_instance(self, ctx: Context, *, instance: Instance, clean_shutdown: bool = True) -> None:
        await self._parts.runner.start(Stop.of(ctx, self._parts, instance=instance, is_clean=clean_shutdown))

    async def start_instance(self, ctx: Context, *, instance: Instance) -> None:
        await self._parts.runner.start(Start.of(ctx, self._parts, instance=instance))

    async def reboot_instance(
        self, ctx: Context, *, instance: Instance, block_device_info: Mapping[str, Any] | None = None,
        reboot_type: RebootType = RebootType.SOFT,
    ) -> None:  # fmt: skip
        await self._parts.runner.start(Reboot.of(ctx, self._parts, instance=instance, is_clean=reboot_type is RebootType.SOFT))

    async def reserve_block_device_name(
        self, ctx: Context, *, instance: Instance, device: str | None, volume_id: str, disk_bus: str | None = None,
        device_type: str | None = None, tag: str | None = None, multiattach: bool = False, attachment_id: str | None = None,
    ) -> BlockDeviceMapping:  # fmt: skip
        async with self._locks.hold(instance.uuid):
            mappings = await self._parts.mappings.list(instance.uuid)
            for mapping in mappings:
                if mapping.volume_id == volume_id:
                    return _same_request(mapping, attachment_id, instance)
            hypervisor = self._parts.hypervisor
            name = next_device_name(
                prefix=hypervisor.device_prefix,
                root=instance.root_device_name,
                used=[mapping.device_name for mapping in mappings if mapping.device_name],
                requested=device,
                disks_max=self._disks_max,
            )
            return await self._parts.mappings.insert(
                BlockDeviceMapping(
                    uuid=new_uuid(),
                    instance_uuid=instance.uuid,
                    device_name=name,
                    device_type=device_type or "disk",
                    disk_bus=disk_bus or "virtio",
                    volume_id=volume_id,
                    attachment_id=attachment_id,
                )
            )

    async def attach_volume(self, ctx: Context, *, instance: Instance, bdm: BlockDeviceMapping) -> None:
        await self._parts.runner.start(AttachVolume.of(ctx, self._parts, instance=instance, bdm=bdm))

    async def detach_volume(self, ctx: Context, *, instance: Instance, volume_id: str, attachment_id: str | None = None) -> None:
        """An order that names its attachment and finds it gone came twice, or too late: there is nothing left to do."""
        try:
            mapping = await self._parts.mappings.get(instance.uuid, volume_id)
        except VolumeBDMNotFound:
            if attachment_id is None:
                raise
            mapping = None
        if mapping is None or attachment_id not in {None, mapping.attachment_id}:
            _log.info("detachment that is over", volume=volume_id, attachment=attachment_id, server=instance.uuid)
            return
        await self._parts.runner.start(DetachVolume.of(ctx, self._parts, bdm=mapping))

    async def external_instance_event(
        self, ctx: Context, *, instances: list[Instance], events: list[InstanceExternalEvent]
    ) -> None:  # fmt: skip
        for event in events:
            if event.name != VOLUME_EXTENDED or event.tag is None:
                _log.info("event that needs nothing", server=event.instance_uuid, event_name=event.name)
                continue
            try:
                mapping = await self._parts.mappings.get(event.instance_uuid, event.tag)
            except VolumeBDMNotFound:
                _log.info("event of a disk that is gone", server=event.instance_uuid, volume=event.tag)
                continue
            await self._parts.runner.start(ExtendDisk.of(ctx, self._parts, bdm=mapping))


class Inventory(HostInventory):
    """Implements the contract. A machine that does not answer holds up nobody but itself."""

    def __init__(self, parts: ComputeParts, rounds: Rounds[Action]) -> None:
        self._parts = parts
        self._rounds = rounds

    async def inventory(self, ctx: Context) -> HostReport:
        return await host_report(self._parts)

    async def reconcile(self, ctx: Context) -> list[str]:
        return await self._rounds.ask()


async def host_report(parts: ComputeParts) -> HostReport:
    """What is really there. Raises the fault of a hypervisor or a connector that does not say."""
    hypervisor = parts.hypervisor
    alive, connections = sorted(await hypervisor.list_instances()), await parts.connector.connections()
    async with asyncio.TaskGroup() as group:
        remains = group.create_task(_in_time(hypervisor.leftovers()))
        looks = {uuid: group.create_task(_in_time(hypervisor.disks(uuid))) for uuid in alive}
    if isinstance(leftovers := remains.result(), Fault):
        raise leftovers
    found = {uuid: look.result() for uuid, look in looks.items()}
    return HostReport(
        host=parts.host,
        kind=hypervisor.kind,
        machines={uuid: disks for uuid, disks in found.items() if not isinstance(disks, Fault)},
        silent={uuid: str(why) for uuid, why in found.items() if isinstance(why, Fault)},
        leftovers={uuid: sorted(parts) for uuid, parts in sorted(leftovers.items())},
        connections=None if connections is None else sorted(connections),
    )


async def _in_time(look: Awaitable[T]) -> T | Fault:
    """What a look came to: its result, or why there is none."""
    try:
        async with asyncio.timeout(MACHINE_TIMEOUT_S):
            return await look
    except Fault as exc:
        return exc
    except TimeoutError:
        return Timeout(what="it", timeout_s=MACHINE_TIMEOUT_S)


class Guests(GuestProbe):
    """Implements the contract."""

    def __init__(self, parts: ComputeParts) -> None:
        self._parts = parts

    async def about(self, ctx: Context) -> dict[str, str]:
        return {"host": self._parts.host, "machine": self._parts.hypervisor.kind}

    async def write_pattern(
        self, ctx: Context, *, instance: Instance, volume_id: str, pattern: int, offset: int, length: int
    ) -> None:
        await self._parts.hypervisor.write_pattern(instance.uuid, volume_id, pattern=pattern, offset=offset, length=length)

    async def verify_pattern(
        self, ctx: Context, *, instance: Instance, volume_id: str, pattern: int, offset: int, length: int
    ) -> bool:
        return await self._parts.hypervisor.verify_pattern(instance.uuid, volume_id, pattern=pattern, offset=offset, length=length)


def _same_request(mapping: BlockDeviceMapping, attachment_id: str | None, instance: Instance) -> BlockDeviceMapping:
    """The row that an earlier try of the same request made. Raises VolumeAlreadyAttached for another request (bug 1937375)."""
    if attachment_id is not None and mapping.attachment_id == attachment_id:
        return mapping
    raise VolumeAlreadyAttached(
        volume_id=mapping.volume_id, instance_uuid=instance.uuid, server=instance.display_name, device=mapping.device_name
    )
