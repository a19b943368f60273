"""Take away what is left on a backend of a volume that nobody holds, or that is deleted, and of a deleted snapshot.

Each step looks again before it acts: whoever holds the volume by then keeps his export, and a volume that has a row keeps its bytes.
"""

from typing import Self

from cinder_lite.contract import Snapshot, SnapshotStatus, Volume, VolumeStatus
from cinder_lite.flows.create_volume import VolumeArguments
from cinder_lite.flows.parts import BackendParts
from cinder_lite.flows.snapshot import SnapshotArguments
from cinder_lite.ports.target import Export
from common.base.context import Context
from common.base.ids import new_uuid
from common.flow.steps import Flow
from common.machine.saga import Saga, Step

REMOVE_STALE_EXPORT = Saga("remove_stale_export", steps=(Step("remove_export", attempts=3), Step("clear_export", attempts=3)))
REMOVE_STALE_VOLUME = Saga("remove_stale_volume", steps=(Step("delete_volume", timeout_s=600, attempts=3),))
REMOVE_STALE_SNAPSHOT = Saga("remove_stale_snapshot", steps=(Step("delete_snapshot", timeout_s=600, attempts=3),))


class RemoveStaleExport(Flow[VolumeArguments, BackendParts]):
    """Completed: the export is gone and the row knows none, or somebody holds the volume."""

    saga = REMOVE_STALE_EXPORT

    @classmethod
    def of(cls, ctx: Context, parts: BackendParts, *, volume: Volume) -> Self:
        return cls(
            ctx,
            parts,
            id=f"remove_stale_export:{volume.id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{volume.id}",
            arguments=VolumeArguments(volume=volume),
        )

    async def remove_export(self, ctx: Context) -> None:
        volume = await self.parts.volumes.remembered(self.arguments.volume.id)
        if await self.parts.holders_of(volume):
            return
        is_deleted = volume.status is VolumeStatus.DELETED
        export = Export(volume, self.parts.driver.local_path(volume)) if is_deleted else await self.parts.export_of(volume)
        await self.parts.target.remove_export(export)

    async def clear_export(self, ctx: Context) -> None:
        volume = await self.parts.volumes.remembered(self.arguments.volume.id)
        if volume.status is not VolumeStatus.DELETED and not await self.parts.holders_of(volume):
            await self.parts.volumes.clear_export(volume.id)


class RemoveStaleVolume(Flow[VolumeArguments, BackendParts]):
    """Completed: the backend keeps nothing of a volume that is deleted."""

    saga = REMOVE_STALE_VOLUME

    @classmethod
    def of(cls, ctx: Context, parts: BackendParts, *, volume: Volume) -> Self:
        return cls(
            ctx,
            parts,
            id=f"remove_stale_volume:{volume.id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{volume.id}",
            arguments=VolumeArguments(volume=volume),
        )

    async def delete_volume(self, ctx: Context) -> None:
        volume = await self.parts.volumes.remembered(self.arguments.volume.id)
        if volume.status is VolumeStatus.DELETED:
            async with self.parts.alone_with(volume.id):
                await self.parts.driver.delete_volume(volume)


class RemoveStaleSnapshot(Flow[SnapshotArguments, BackendParts]):
    """Completed: the backend keeps nothing of a snapshot that is deleted."""

    saga = REMOVE_STALE_SNAPSHOT

    @classmethod
    def of(cls, ctx: Context, parts: BackendParts, *, snapshot: Snapshot) -> Self:
        return cls(
            ctx,
            parts,
            id=f"remove_stale_snapshot:{snapshot.id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{snapshot.volume_id}",
            arguments=SnapshotArguments(snapshot=snapshot),
        )

    async def delete_snapshot(self, ctx: Context) -> None:
        snapshot = await self.parts.snapshots.remembered(self.arguments.snapshot.id)
        if snapshot.status is SnapshotStatus.DELETED:
            async with self.parts.alone_with(snapshot.volume_id):
                await self.parts.driver.delete_snapshot(snapshot)
