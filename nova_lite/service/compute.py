"""nova-compute: the manager of one host's guests. An endpoint checks and starts a flow; the flow is a file in nova_lite/flows."""

from collections.abc import Mapping
from typing import Any

from common.base.context import Context
from common.base.ids import new_uuid
from common.host.locks import KeyedLocks
from nova_lite.contract import BlockDeviceMapping, ComputeManagerAPI, GuestProbe, Instance
from nova_lite.domain.device_name import next_device_name
from nova_lite.errors import VolumeAlreadyAttached, VolumeBDMNotFound
from nova_lite.flows.attach_volume import AttachVolume
from nova_lite.flows.boot import Boot
from nova_lite.flows.delete import Delete
from nova_lite.flows.detach_volume import DetachVolume
from nova_lite.flows.parts import ComputeParts


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
        mapping = await self._parts.mappings.get(instance.uuid, volume_id)
        if attachment_id is not None and mapping.attachment_id != attachment_id:
            raise VolumeBDMNotFound(volume_id=volume_id, instance_uuid=instance.uuid)
        await self._parts.runner.start(DetachVolume.of(ctx, self._parts, bdm=mapping))


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
