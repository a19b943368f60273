"""Attach a volume, the compute host's half (attach-flow A8 to A15).

The reservation that nova-api made is adopted first: from there on its undo is this saga's. The guest's disk can be taken back, so
the pivot is the last step, cinder's `attach`: every failure before it leaves the volume available and nothing behind. The volume comes free last, when the mapping is gone too, so that whoever
sees it available can attach it. When the
answer of `attach` itself is lost, compensation frees the attachment by its id, whichever state cinder had reached.
"""

from contextlib import suppress
from typing import Any, Self

import msgspec

from common.base.context import Context
from common.base.errors import Fault, NotFound
from common.flow.steps import Flow
from common.machine.saga import Saga, Step
from nova_lite.contract import BlockDeviceMapping, Instance
from nova_lite.errors import VolumeBDMNotFound
from nova_lite.flows.parts import ComputeParts
from nova_lite.ports.connector import VOLUME_SIZE

ATTACH_VOLUME = Saga(
    "attach_volume",
    pivot="attach",
    steps=(
        Step("adopt_reservation", undo="detach", timeout_s=60, is_pure=True),
        Step("adopt_block_device_mapping", undo="destroy_block_device_mapping", timeout_s=10, is_pure=True),
        Step("get_volume_connector", timeout_s=5, is_pure=True),
        Step("initialize_connection", undo="terminate_connection", timeout_s=60, attempts=2),
        Step("connect_volume", undo="disconnect_volume", timeout_s=60),
        Step("attach_volume", undo="detach_volume", timeout_s=60),
        Step("attach", timeout_s=30, attempts=3),
    ),
)


class AttachArguments(msgspec.Struct, frozen=True, kw_only=True):
    """One block_device_mapping row that becomes a disk. `volume_size` in GiB: a disk of another size is not the volume."""

    instance_uuid: str
    volume_id: str
    attachment_id: str
    bdm_uuid: str
    device_name: str
    volume_size: int | None = None


class AttachVolume(Flow[AttachArguments, ComputeParts]):
    """Completed: the machine has the disk, and the volume is in-use."""

    saga = ATTACH_VOLUME

    @classmethod
    def of(cls, ctx: Context, parts: ComputeParts, *, instance: Instance, bdm: BlockDeviceMapping) -> Self:
        arguments = AttachArguments(
            instance_uuid=instance.uuid,
            volume_id=bdm.volume_id or "",
            attachment_id=bdm.attachment_id or "",
            bdm_uuid=bdm.uuid,
            device_name=bdm.device_name or "",
            volume_size=bdm.volume_size,
        )
        return cls(
            ctx, parts, id=f"attach_volume:{arguments.attachment_id}", subject=f"volume:{arguments.volume_id}", arguments=arguments
        )

    async def adopt_block_device_mapping(self, ctx: Context) -> None:
        """Fenced out when nova-api has taken the mapping back meanwhile."""
        if await self.parts.mappings.by_attachment(self.arguments.attachment_id) is None:
            raise VolumeBDMNotFound(volume_id=self.arguments.volume_id, instance_uuid=self.arguments.instance_uuid)

    async def destroy_block_device_mapping(self, ctx: Context) -> None:
        await self.parts.mappings.destroy(self.arguments.bdm_uuid)

    async def adopt_reservation(self, ctx: Context) -> None:
        """The row says that from here on the volume is this saga's to free."""

    async def detach(self, ctx: Context) -> None:
        """Frees the volume, and removes its export, whatever became of the attachment. One that was freed may be deleted by now."""
        with suppress(NotFound):
            await self.parts.volumes.detach(ctx, volume_id=self.arguments.volume_id, attachment_id=self.arguments.attachment_id)

    async def get_volume_connector(self, ctx: Context) -> dict[str, Any]:
        return await self.parts.connector.get_connector_properties()

    async def initialize_connection(self, ctx: Context) -> None:
        """The connection_info goes into the mapping's row and not into the journal: it holds the CHAP secret."""
        args, connector = self.arguments, dict(self.outputs["get_volume_connector"])
        info = await self.parts.volumes.initialize_connection(
            ctx, volume_id=args.volume_id, connector=connector, attachment_id=args.attachment_id
        )
        ours = {
            "connector": connector,
            "serial": args.volume_id,
            "attachment_id": args.attachment_id,
            VOLUME_SIZE: args.volume_size,
        }
        await self.parts.mappings.save_connection_info(args.bdm_uuid, {**info, **ours})

    async def terminate_connection(self, ctx: Context) -> None:
        """A volume that is gone has none."""
        args, connector = self.arguments, dict(self.outputs["get_volume_connector"])
        with suppress(NotFound):
            await self.parts.volumes.terminate_connection(
                ctx, volume_id=args.volume_id, connector=connector, attachment_id=args.attachment_id
            )

    async def connect_volume(self, ctx: Context) -> None:
        """What the host sees of the volume is kept with the connection, as nova keeps device_path."""
        await self.parts.connect(self.arguments.bdm_uuid, await self._connection_info())

    async def disconnect_volume(self, ctx: Context) -> None:
        info = await self.parts.connection_info(self.arguments.bdm_uuid)
        if info is not None:
            await self.parts.connector.disconnect_volume(info)

    async def attach_volume(self, ctx: Context) -> None:
        args = self.arguments
        await self.parts.hypervisor.attach_volume(await self._connection_info(), args.instance_uuid, args.device_name)

    async def detach_volume(self, ctx: Context) -> None:
        await self.parts.let_go(self.arguments.instance_uuid, self.arguments.volume_id)

    async def attach(self, ctx: Context) -> None:
        args = self.arguments
        await self.parts.volumes.attach(
            ctx,
            volume_id=args.volume_id,
            attachment_id=args.attachment_id,
            instance_uuid=args.instance_uuid,
            host_name=self.parts.host,
            mountpoint=args.device_name,
        )

    async def turned_back(self, fault: Fault) -> None:
        await self.parts.record_fault(
            self, self.arguments.instance_uuid, fault, f"Attaching volume {self.arguments.volume_id} failed"
        )

    async def parked(self, fault: Fault) -> None:
        await self.turned_back(fault)

    async def _connection_info(self) -> dict[str, Any]:
        info = await self.parts.mappings.connection_info(self.arguments.bdm_uuid)
        if info is None:
            raise VolumeBDMNotFound(volume_id=self.arguments.volume_id, instance_uuid=self.arguments.instance_uuid)
        return info
