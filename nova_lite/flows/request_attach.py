"""Attach a volume, nova-api's half: reserve on both sides, then hand over to the compute host (attach-flow A3 to A6)."""

import msgspec

from common.base.context import Context
from common.base.ids import AttachmentId, new_uuid
from common.flow.steps import Flow
from common.machine.saga import Saga, Step
from nova_lite.contract import BlockDeviceMapping, Instance
from nova_lite.flows.parts import ApiParts
from nova_lite.ports.volumes import Volume

REQUEST_ATTACH = Saga(
    "request_attach",
    pivot="attach_volume",
    steps=(
        Step("reserve_block_device_name", undo="destroy_block_device_mapping", timeout_s=30),
        Step("reserve_volume", undo="unreserve_volume", timeout_s=30),
        Step("attach_volume", timeout_s=15, attempts=2),
    ),
)


class RequestAttachArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be attached to what. `device` as the user gave it."""

    instance: Instance
    volume_id: str
    volume_size: int
    device: str | None
    attachment_id: str


class RequestAttach(Flow[RequestAttachArguments]):
    """Completed: the mapping and the reservation are there, and the compute host's bus has the order.

    mapping   what was handed over; its row may be gone again, when the compute host has failed by now
    """

    saga = REQUEST_ATTACH

    def __init__(self, ctx: Context, parts: ApiParts, *, instance: Instance, volume: Volume, device: str | None) -> None:
        attachment_id = AttachmentId(new_uuid())
        super().__init__(
            ctx,
            id=f"request_attach:{attachment_id}",
            subject=f"server:{instance.uuid}",
            arguments=RequestAttachArguments(
                instance=instance, volume_id=volume.id, volume_size=volume.size, device=device, attachment_id=attachment_id
            ),
        )
        self.parts = parts
        self.mapping: BlockDeviceMapping | None = None

    async def reserve_block_device_name(self, ctx: Context) -> dict[str, str]:
        args = self.arguments
        mapping = await self.parts.on(args.instance).reserve_block_device_name(
            ctx, instance=args.instance, device=args.device, volume_id=args.volume_id, attachment_id=args.attachment_id
        )
        return {"bdm_uuid": mapping.uuid, "device_name": mapping.device_name or ""}

    async def destroy_block_device_mapping(self, ctx: Context) -> None:
        """Also where the reservation's answer was lost: the row is found by the attachment's id (bug 1960401)."""
        mapping = await self.parts.mappings.by_attachment(self.arguments.attachment_id)
        if mapping is not None:
            await self.parts.mappings.destroy(mapping.uuid)

    async def reserve_volume(self, ctx: Context) -> None:
        args = self.arguments
        await self.parts.volumes.reserve_volume(
            ctx, volume_id=args.volume_id, attachment_id=args.attachment_id, instance_uuid=args.instance.uuid
        )

    async def unreserve_volume(self, ctx: Context) -> None:
        args = self.arguments
        await self.parts.volumes.unreserve_volume(ctx, volume_id=args.volume_id, attachment_id=args.attachment_id)

    async def attach_volume(self, ctx: Context) -> None:
        instance = self.arguments.instance
        self.mapping = await self.parts.mappings.get(instance.uuid, self.arguments.volume_id)
        await self.parts.on(instance).attach_volume(ctx, instance=instance, bdm=self.mapping)
