"""Detach a volume, the compute host's half (attach-flow D6 to D12): attach, backwards.

The pivot is the guest letting go. Before it, a failure makes the volume in-use again; after it, only forward: the volume becomes
available last, when disk, host connection and export were seen gone and the mapping is gone too. Nova destroys the mapping after it
(commit bea6ff62af), because a failure between the two left cinder `detaching` for ever; here the journal leads on to the end, and
whoever sees the volume available can attach it at once.
"""

from contextlib import suppress
from typing import Self

import msgspec

from common.base.context import Context
from common.base.errors import Fault, NotFound
from common.base.ids import new_uuid
from common.flow.steps import Flow
from common.machine.saga import Saga, Step
from nova_lite.contract import BlockDeviceMapping
from nova_lite.flows.parts import ComputeParts
from nova_lite.ports.connector import VOLUME_SIZE
from nova_lite.ports.volumes import Volume

DETACH_VOLUME = Saga(
    "detach_volume",
    pivot="detach_volume",
    steps=(
        Step("adopt_detachment", undo="roll_detaching", timeout_s=30, is_pure=True),
        Step("detach_volume", undo="attach_volume", timeout_s=60, attempts=3),
        Step("disconnect_volume", timeout_s=60, attempts=5),
        Step("terminate_connection", timeout_s=60, attempts=5),
        Step("destroy_block_device_mapping", timeout_s=10, attempts=5),
        Step("detach", timeout_s=60, attempts=5),
    ),
)


class DetachArguments(msgspec.Struct, frozen=True, kw_only=True):
    """One block_device_mapping row that is to go."""

    instance_uuid: str
    volume_id: str
    attachment_id: str
    bdm_uuid: str
    device_name: str = ""

    @classmethod
    def of(cls, bdm: BlockDeviceMapping) -> Self:
        """Those of a row."""
        return cls(
            instance_uuid=bdm.instance_uuid,
            volume_id=bdm.volume_id or "",
            attachment_id=bdm.attachment_id or "",
            bdm_uuid=bdm.uuid,
            device_name=bdm.device_name or "",
        )


class DetachVolume(Flow[DetachArguments, ComputeParts]):
    """Completed: the volume is available, and nothing of the attachment is left."""

    saga = DETACH_VOLUME

    @classmethod
    def of(cls, ctx: Context, parts: ComputeParts, *, bdm: BlockDeviceMapping) -> Self:
        arguments = DetachArguments.of(bdm)
        return cls(
            ctx,
            parts,
            id=f"detach_volume:{arguments.attachment_id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{arguments.volume_id}",
            arguments=arguments,
        )

    async def adopt_detachment(self, ctx: Context) -> None:
        """The row says that from here on making the volume in-use again is this saga's to do."""

    async def roll_detaching(self, ctx: Context) -> None:
        """An attachment that is over meanwhile has nothing to go back to."""
        args = self.arguments
        with suppress(NotFound):
            await self.parts.volumes.roll_detaching(ctx, volume_id=args.volume_id, attachment_id=args.attachment_id)

    async def detach_volume(self, ctx: Context) -> None:
        await self.parts.let_go(self.arguments.instance_uuid, self.arguments.volume_id)

    async def attach_volume(self, ctx: Context) -> None:
        """The disk is there again, if it was gone: whoever did not answer may have let go all the same.

        A machine that is gone has no disk to give back; what becomes of its volumes is settled with it. Nor has one whose attachment
        is over: nobody exports it any more.
        """
        args, info, volume = self.arguments, await self.parts.connection_info(self.arguments.bdm_uuid), await self._live_volume(ctx)
        if info is None or volume is None or args.instance_uuid not in await self.parts.hypervisor.list_instances():
            return
        await self.parts.hypervisor.attach_volume({**info, VOLUME_SIZE: volume.size}, args.instance_uuid, args.device_name)

    async def disconnect_volume(self, ctx: Context) -> None:
        info = await self.parts.connection_info(self.arguments.bdm_uuid)
        if info is not None:
            await self.parts.connector.disconnect_volume(info)

    async def terminate_connection(self, ctx: Context) -> None:
        """With the connector that was used to connect, whatever this host's properties are by now. A volume that is gone has none."""
        args, info = self.arguments, await self.parts.connection_info(self.arguments.bdm_uuid)
        with suppress(NotFound):
            await self.parts.volumes.terminate_connection(
                ctx, volume_id=args.volume_id, connector=(info or {}).get("connector"), attachment_id=args.attachment_id
            )

    async def detach(self, ctx: Context) -> None:
        with suppress(NotFound):
            await self.parts.volumes.detach(ctx, volume_id=self.arguments.volume_id, attachment_id=self.arguments.attachment_id)

    async def destroy_block_device_mapping(self, ctx: Context) -> None:
        await self.parts.mappings.destroy(self.arguments.bdm_uuid)

    async def turned_back(self, fault: Fault) -> None:
        await self.parts.record_fault(
            self, self.arguments.instance_uuid, fault, f"Detaching volume {self.arguments.volume_id} failed"
        )

    async def parked(self, fault: Fault) -> None:
        await self.turned_back(fault)

    async def _live_volume(self, ctx: Context) -> Volume | None:
        """None when cinder has ended the attachment already, or has no such volume: then nothing is left to do there."""
        try:
            volume = await self.parts.volumes.get(ctx, volume_id=self.arguments.volume_id)
        except NotFound:
            return None
        return volume if self.arguments.attachment_id in {held.id for held in volume.volume_attachment} else None
