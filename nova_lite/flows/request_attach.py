"""Attach a volume, nova-api's half: reserve on both sides, then hand over to the compute host (attach-flow A3 to A6)."""

from typing import Self

import msgspec

from common.app.deciding import request_id_of
from common.base.context import Context
from common.base.ids import AttachmentId, same_uuid
from common.flow.steps import Flow, Output
from common.machine.saga import Saga, Step
from common.wire.values import from_primitive, to_primitive
from nova_lite.contract import BlockDeviceMapping, Instance
from nova_lite.errors import VolumeBDMNotFound
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


def attachment_of(ctx: Context) -> AttachmentId:
    """The attachment that a request makes."""
    return AttachmentId(same_uuid(ctx.message_id))


class RequestAttachArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be attached to what. `device` as the user gave it."""

    instance: Instance
    volume_id: str
    volume_size: int
    device: str | None
    attachment_id: str


class RequestAttach(Flow[RequestAttachArguments, ApiParts]):
    """Completed: the mapping and the reservation are there, and the compute host's bus has the order.

    mapping   what was handed over; its row may be gone again, when the compute host has failed by now
    A request that comes twice, as the same message, is one attachment.
    """

    saga = REQUEST_ATTACH
    is_lined_up = False

    @property
    def mapping(self) -> BlockDeviceMapping:
        mapping: BlockDeviceMapping = from_primitive(self.outputs["attach_volume"]["mapping"], BlockDeviceMapping)
        return mapping

    @classmethod
    def of(cls, ctx: Context, parts: ApiParts, *, instance: Instance, volume: Volume, device: str | None) -> Self:
        attachment_id = attachment_of(ctx)
        return cls(
            ctx,
            parts,
            id=request_id_of(REQUEST_ATTACH.name, ctx),
            subject=f"server:{instance.uuid}",
            arguments=RequestAttachArguments(
                instance=instance, volume_id=volume.id, volume_size=volume.size, device=device, attachment_id=attachment_id
            ),
        )

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

    async def attach_volume(self, ctx: Context) -> Output:
        """The order goes out once this step's row says that it does, and then whatever happens to this process.

        Raises VolumeBDMNotFound when the mapping is gone: with its server, which was deleted while nobody carried this flow on. One of
        the same disk may be there again, and is another request's.
        """
        instance, size = self.arguments.instance, self.arguments.volume_size
        mapping = await self.parts.mappings.by_attachment(self.arguments.attachment_id)
        if mapping is None:
            raise VolumeBDMNotFound(volume_id=self.arguments.volume_id, instance_uuid=instance.uuid)
        await self.parts.mappings.set_volume_size(mapping.uuid, size)
        mapping = msgspec.structs.replace(mapping, volume_size=size)
        with self.parts.ordering(instance) as (compute, letters):
            await compute.attach_volume(ctx, instance=instance, bdm=mapping)
        self.letters += letters
        return {"mapping": to_primitive(mapping, BlockDeviceMapping)}
