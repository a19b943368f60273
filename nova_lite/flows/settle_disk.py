"""A disk that a machine should have and has not, and one that it has and should not.

Every step looks again before it acts, in the volume's line: no attachment or detachment of this host falls in between.
"""

from typing import Any, Self

import msgspec

from common.base.context import Context
from common.base.errors import NotFound
from common.base.ids import new_uuid
from common.flow.steps import Flow
from common.machine.saga import Saga, Step
from nova_lite.contract import BlockDeviceMapping
from nova_lite.flows.detach_volume import DETACH_VOLUME, DetachArguments
from nova_lite.flows.parts import ComputeParts
from nova_lite.ports.connector import VOLUME_SIZE
from nova_lite.ports.volumes import AttachStatus, VolumeStatus

RESTORE_DISK = Saga(
    "restore_disk", steps=(Step("connect_volume", timeout_s=60, attempts=2), Step("attach_volume", timeout_s=60, attempts=2))
)
REMOVE_DISK = Saga(
    "remove_disk", steps=(Step("detach_volume", timeout_s=60, attempts=2), Step("disconnect_volume", timeout_s=60, attempts=2))
)


class RestoreDisk(Flow[DetachArguments, ComputeParts]):
    """Completed: the machine has the disk again, or is not to have it any more."""

    saga = RESTORE_DISK

    @classmethod
    def of(cls, ctx: Context, parts: ComputeParts, *, bdm: BlockDeviceMapping) -> Self:
        arguments = DetachArguments.of(bdm)
        return cls(
            ctx,
            parts,
            id=f"restore_disk:{arguments.attachment_id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{arguments.volume_id}",
            arguments=arguments,
        )

    async def connect_volume(self, ctx: Context) -> None:
        info = await self._wanted(ctx)
        if info is not None:
            await self.parts.connect(self.arguments.bdm_uuid, info)

    async def attach_volume(self, ctx: Context) -> None:
        info, args = await self._wanted(ctx), self.arguments
        if info is not None:
            await self.parts.hypervisor.attach_volume(info, args.instance_uuid, args.device_name)

    async def _wanted(self, ctx: Context) -> dict[str, Any] | None:
        """The connection_info, while the attachment is attached and the machine is alive.

        It is attached also while its detachment is only asked for: that one comes behind this flow, and can be taken back before. One
        that has begun here may have taken the disk out already, and gives it back itself.
        """
        args = self.arguments
        try:
            info = await self.parts.mappings.connection_info(args.bdm_uuid)
            volume = await self.parts.volumes.get(ctx, volume_id=args.volume_id)
        except NotFound:
            return None
        held = {row.id: row.attach_status for row in volume.volume_attachment}
        match volume.status, held.get(args.attachment_id):
            case VolumeStatus.IN_USE, AttachStatus.ATTACHED:
                is_wanted = True
            case VolumeStatus.DETACHING, AttachStatus.DETACHING:
                is_wanted = not await self.parts.runner.is_open(DETACH_VOLUME, self.subject)
            case _:
                is_wanted = False
        if info is None or not is_wanted or args.instance_uuid not in await self.parts.hypervisor.list_instances():
            return None
        return {**info, VOLUME_SIZE: volume.size}


class StrayDisk(msgspec.Struct, frozen=True, kw_only=True):
    """`instance_uuid` is empty when it is the host that is connected, and no machine has the disk."""

    instance_uuid: str
    volume_id: str


class RemoveDisk(Flow[StrayDisk, ComputeParts]):
    """Completed: a machine without a mapping of the volume has not got it, and a host without one is not connected to it."""

    saga = REMOVE_DISK

    @classmethod
    def of(cls, ctx: Context, parts: ComputeParts, *, instance_uuid: str, volume_id: str) -> Self:
        return cls(
            ctx,
            parts,
            id=f"remove_disk:{volume_id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{volume_id}",
            arguments=StrayDisk(instance_uuid=instance_uuid, volume_id=volume_id),
        )

    async def detach_volume(self, ctx: Context) -> None:
        args = self.arguments
        if args.instance_uuid and args.instance_uuid not in await self._holders():
            await self.parts.let_go(args.instance_uuid, args.volume_id)

    async def disconnect_volume(self, ctx: Context) -> None:
        """By its id alone: what it was connected with went with its row."""
        volume_id = self.arguments.volume_id
        here = {instance.uuid for instance in await self.parts.instances.list(self.parts.host)}
        if not here & await self._holders() and volume_id in (await self.parts.connector.connections() or ()):
            await self.parts.connector.disconnect_volume({"serial": volume_id, "data": {}})

    async def _holders(self) -> set[str]:
        """The servers that have a mapping of it."""
        return {mapping.instance_uuid for mapping in await self.parts.mappings.by_volume(self.arguments.volume_id)}
