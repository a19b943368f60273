"""Create a volume on the backend that the scheduler chose, or where the volume or snapshot is that it is made of (attach-flow 8.1)."""

from typing import Self

import msgspec

from cinder_lite.contract import Volume
from cinder_lite.domain.volume import Event
from cinder_lite.flows.parts import BackendParts, advance_once
from common.base.context import Context
from common.base.errors import Fault
from common.flow.steps import Flow
from common.machine.saga import Saga, Step

CREATE_VOLUME = Saga(
    "create_volume",
    steps=(
        Step("adopt_volume", undo="fail_create", is_pure=True),
        Step("create_volume", undo="delete_volume", timeout_s=600),
        Step("finish_create", attempts=5),
    ),
)


class VolumeArguments(msgspec.Struct, frozen=True, kw_only=True):
    """The volume as its row was when the flow began."""

    volume: Volume


class CreateVolume(Flow[VolumeArguments, BackendParts]):
    """Completed: the backend keeps the volume, and it is available."""

    saga = CREATE_VOLUME

    @classmethod
    def of(cls, ctx: Context, parts: BackendParts, *, volume: Volume) -> Self:
        return cls(
            ctx, parts, id=f"create_volume:{volume.id}", subject=f"volume:{volume.id}", arguments=VolumeArguments(volume=volume)
        )

    @property
    def volume(self) -> Volume:
        return self.arguments.volume

    async def adopt_volume(self, ctx: Context) -> None:
        """The row says that from here on the volume's status is this saga's to settle."""

    async def fail_create(self, ctx: Context) -> None:
        await advance_once(self.parts.volumes, self.volume.id, Event.CREATE_FAILED)

    async def create_volume(self, ctx: Context) -> None:
        volume, driver = self.volume, self.parts.driver
        if volume.snapshot_id is not None:
            snapshot = await self.parts.snapshots.remembered(volume.snapshot_id)
            async with self.parts.alone_with(snapshot.volume_id):
                await driver.create_volume_from_snapshot(volume, snapshot)
        elif volume.source_volid is not None:
            async with self.parts.alone_with(volume.source_volid):
                await driver.create_cloned_volume(volume, await self.parts.volumes.remembered(volume.source_volid))
        else:
            await driver.create_volume(volume)

    async def delete_volume(self, ctx: Context) -> None:
        async with self.parts.alone_with(self.volume.id):
            await self.parts.driver.delete_volume(self.volume)

    async def finish_create(self, ctx: Context) -> None:
        await advance_once(self.parts.volumes, self.volume.id, Event.CREATED)

    async def turned_back(self, fault: Fault) -> None:
        await self.parts.volumes.add_message(
            self.volume.id,
            event_id="VOLUME_CREATE_FAILED",
            user_message=f"Creating failed: {fault}",
            request_id=self.ctx.request_id,
        )

    async def parked(self, fault: Fault) -> None:
        await self.turned_back(fault)
