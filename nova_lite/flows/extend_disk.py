"""Show a guest the new size of its disk, once the storage has it (attach-flow 3.3, extend attached).

What fails here is not told to cinder, as upstream: the volume has its size, and the guest sees it when the disk is attached anew.
"""

from typing import Self

import msgspec

from common.base.context import Context
from common.base.errors import Fault, NotFound
from common.base.ids import new_uuid
from common.flow.steps import Flow, Output
from common.machine.saga import Saga, Step
from nova_lite.contract import BlockDeviceMapping
from nova_lite.errors import HypervisorRefused, HypervisorUnavailable
from nova_lite.flows.parts import ComputeParts

_GIB = 1024**3

EXTEND_DISK = Saga(
    "extend_disk",
    steps=(Step("extend_volume", timeout_s=60, attempts=8), Step("save_volume_size", timeout_s=10, attempts=5)),
)


class ExtendArguments(msgspec.Struct, frozen=True, kw_only=True):
    """One block_device_mapping row whose volume has grown."""

    instance_uuid: str
    volume_id: str
    bdm_uuid: str


class ExtendDisk(Flow[ExtendArguments, ComputeParts]):
    """Completed: machine and mapping have the size of the volume's row, or the machine has the disk no longer."""

    saga = EXTEND_DISK

    @classmethod
    def of(cls, ctx: Context, parts: ComputeParts, *, bdm: BlockDeviceMapping) -> Self:
        volume_id = bdm.volume_id or ""
        return cls(
            ctx,
            parts,
            id=f"extend_disk:{bdm.uuid}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{volume_id}",
            arguments=ExtendArguments(instance_uuid=bdm.instance_uuid, volume_id=volume_id, bdm_uuid=bdm.uuid),
        )

    async def extend_volume(self, ctx: Context) -> Output:
        args = self.arguments
        try:
            info = await self.parts.mappings.connection_info(args.bdm_uuid)
            volume = await self.parts.volumes.get(ctx, volume_id=args.volume_id)
        except NotFound:
            return None
        has_disk = args.instance_uuid in await self.parts.hypervisor.list_instances() and args.volume_id in (
            await self.parts.hypervisor.disks(args.instance_uuid)
        )
        if info is None or not has_disk:
            return None
        try:
            await self.parts.hypervisor.extend_volume(info, args.instance_uuid, volume.size * _GIB)
        except HypervisorRefused as exc:
            # A target that was restarted has the volume again in a moment; until then the machine is told no size.
            raise HypervisorUnavailable(name=args.instance_uuid, reason=str(exc)) from exc
        return {"size": volume.size}

    async def save_volume_size(self, ctx: Context) -> None:
        size = self.outputs["extend_volume"].get("size")
        if size is not None:
            try:
                await self.parts.mappings.set_volume_size(self.arguments.bdm_uuid, size)
            except NotFound:
                return

    async def turned_back(self, fault: Fault) -> None:
        what = f"Showing the new size of volume {self.arguments.volume_id} failed"
        await self.parts.record_fault(self, self.arguments.instance_uuid, fault, what)
