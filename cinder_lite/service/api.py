"""cinder-api: volumes for clients, and the compare-and-swap on their status."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cinder_lite.contract import (
    AttachStatus,
    BackendInventory,
    SchedulerAPI,
    ServiceInfo,
    Snapshot,
    Volume,
    VolumeAPI,
    VolumeAttachment,
    VolumeManagerAPI,
    VolumeStatus,
)
from cinder_lite.domain.volume import Event
from cinder_lite.errors import InvalidVolume, VolumeInUse, VolumeNotFound
from cinder_lite.flows.delete_volume import DELETE_VOLUME
from cinder_lite.flows.parts import manager_of
from cinder_lite.service.making import CREATE, DELETE, EXTEND, SNAPSHOT_CREATE, SNAPSHOT_DELETE, Making
from cinder_lite.service.resetting import Resetting
from cinder_lite.store.snapshots import Snapshots
from cinder_lite.store.volume_attachment import VolumeAttachments
from cinder_lite.store.volumes import Volumes
from common.app.deciding import Decisions
from common.app.post import Post, Writing, together
from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Conflict
from common.base.ids import same_uuid
from common.db.hosts import Hosts
from common.db.journal import Journal
from common.db.outbox import Letter


@dataclass(frozen=True, slots=True)
class ApiParts:
    """What cinder-api acts on. `scheduler` and `orders` send by `post`."""

    volumes: Volumes
    attachments: VolumeAttachments
    snapshots: Snapshots
    hosts: Hosts
    scheduler: SchedulerAPI
    manager: VolumeManagerAPI
    orders: VolumeManagerAPI
    post: Post
    journal: Journal
    decisions: Decisions
    inventory: BackendInventory
    clock: Clock
    service_down_time_s: float

    def accepting(self, ctx: Context, name: str, subject: str, letters: Sequence[Letter]) -> Writing:
        """What is written with the change that a request of that name makes: that it is accepted, and the orders that follow."""
        return together(self.decisions.accepting(ctx, name, subject), self.post.entering(letters))


class VolumeApi(VolumeAPI):
    """Implements the contract."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._resetting = Resetting(parts)
        self._making = Making(parts)

    async def create(
        self, ctx: Context, *, size: int | None = None, name: str | None = None, description: str | None = None,
        volume_type: str | None = None, availability_zone: str | None = None, snapshot_id: str | None = None,
        source_volid: str | None = None,
    ) -> Volume:  # fmt: skip
        more = {"display_description": description, "volume_type": volume_type, "availability_zone": availability_zone}
        making = self._making.create(ctx, more, size=size, name=name, snapshot_id=snapshot_id, source_volid=source_volid)
        made = await self._parts.decisions.decided(ctx, CREATE, making)
        return made or await self._parts.volumes.remembered(same_uuid(ctx.message_id))

    async def get(self, ctx: Context, *, volume_id: str) -> Volume:
        return await self._parts.volumes.find(volume_id)

    async def get_all(self, ctx: Context) -> list[Volume]:
        return await self._parts.volumes.list()

    async def delete(self, ctx: Context, *, volume_id: str) -> None:
        await self._parts.decisions.decided(ctx, DELETE, self._delete(ctx, volume_id))

    async def _delete(self, ctx: Context, volume_id: str) -> None:
        try:
            volume = await self._parts.volumes.find(volume_id)
        except VolumeNotFound:
            if await self._parts.journal.was_done(ctx.request_id, DELETE_VOLUME.name):
                return
            raise
        if volume.status is VolumeStatus.DELETING:
            return
        _check_detached(volume)
        with self._parts.post.letters() as letters:
            if volume.host is not None:
                deleting = msgspec.structs.replace(volume, status=VolumeStatus.DELETING)
                await manager_of(self._parts.orders, volume).delete_volume(ctx, volume=deleting)
        try:
            await self._parts.volumes.delete(volume.id, also=self._parts.accepting(ctx, DELETE, f"volume:{volume.id}", letters))
        except Conflict as exc:
            raise InvalidVolume(
                reason=f"Volume {volume.label} status must be available, error, error_deleting or error_extending to delete, "
                f"but the status is {volume.status}."
            ) from exc
        if volume.host is None:
            await self._parts.volumes.advance(volume.id, Event.DESTROYED)

    async def extend(self, ctx: Context, *, volume_id: str, new_size: int) -> None:
        await self._parts.decisions.decided(ctx, EXTEND, self._making.extend(ctx, volume_id, new_size))

    async def create_snapshot(
        self, ctx: Context, *, volume_id: str, name: str | None = None, description: str | None = None
    ) -> Snapshot:  # fmt: skip
        making = self._making.create_snapshot(ctx, volume_id, name=name, description=description)
        made = await self._parts.decisions.decided(ctx, SNAPSHOT_CREATE, making)
        return made or await self._parts.snapshots.remembered(same_uuid(ctx.message_id))

    async def delete_snapshot(self, ctx: Context, *, snapshot_id: str) -> None:
        await self._parts.decisions.decided(ctx, SNAPSHOT_DELETE, self._making.delete_snapshot(ctx, snapshot_id))

    async def get_snapshot(self, ctx: Context, *, snapshot_id: str) -> Snapshot:
        return await self._parts.snapshots.find(snapshot_id)

    async def get_all_snapshots(self, ctx: Context) -> list[Snapshot]:
        return await self._parts.snapshots.list()

    async def services(self, ctx: Context) -> list[ServiceInfo]:
        rows = await self._parts.hosts.list()
        return [
            ServiceInfo(
                binary=row.binary,
                host=row.host,
                topic=row.topic,
                status="disabled" if row.disabled else "enabled",
                state="up" if self._parts.hosts.is_up(row, self._parts.service_down_time_s) else "down",
                availability_zone=row.availability_zone,
                updated_at=row.last_seen_up,
                disabled_reason=row.disabled_reason,
            )
            for row in rows
        ]

    async def reserve_volume(self, ctx: Context, *, volume_id: str, attachment_id: str, instance_uuid: str) -> VolumeAttachment:
        return await self._parts.attachments.reserve(volume_id, attachment_id, instance_uuid)

    async def unreserve_volume(self, ctx: Context, *, volume_id: str, attachment_id: str) -> None:
        await self._parts.attachments.unreserve(volume_id, attachment_id)

    async def begin_detaching(self, ctx: Context, *, volume_id: str, attachment_id: str) -> None:
        await self._parts.attachments.begin_detaching(volume_id, attachment_id)

    async def roll_detaching(self, ctx: Context, *, volume_id: str, attachment_id: str) -> None:
        await self._parts.attachments.roll_detaching(volume_id, attachment_id)

    async def initialize_connection(
        self, ctx: Context, *, volume_id: str, connector: Mapping[str, Any], attachment_id: str
    ) -> dict[str, Any]:
        volume = await self._parts.volumes.get(volume_id)
        manager = manager_of(self._parts.manager, volume)
        return await manager.initialize_connection(ctx, volume=volume, connector=connector, attachment_id=attachment_id)

    async def terminate_connection(
        self, ctx: Context, *, volume_id: str, connector: Mapping[str, Any] | None, attachment_id: str, force: bool = False
    ) -> None:
        volume = await self._parts.volumes.get(volume_id)
        await manager_of(self._parts.manager, volume).terminate_connection(
            ctx, volume_id=volume_id, connector=connector, force=force, volume=volume, attachment_id=attachment_id
        )

    async def attach(
        self, ctx: Context, *, volume_id: str, attachment_id: str, instance_uuid: str, host_name: str | None, mountpoint: str,
        mode: str = "rw",
    ) -> VolumeAttachment:  # fmt: skip
        volume = await self._parts.volumes.get(volume_id)
        return await manager_of(self._parts.manager, volume).attach_volume(
            ctx, volume_id=volume_id, instance_uuid=instance_uuid, host_name=host_name, mountpoint=mountpoint, mode=mode,
            volume=volume, attachment_id=attachment_id,
        )  # fmt: skip

    async def detach(self, ctx: Context, *, volume_id: str, attachment_id: str) -> None:
        volume = await self._parts.volumes.get(volume_id)
        await manager_of(self._parts.manager, volume).detach_volume(
            ctx, volume_id=volume_id, attachment_id=attachment_id, volume=volume
        )

    async def force_detach(self, ctx: Context, *, volume_id: str, attachment_id: str | None = None) -> Volume:
        return await self._resetting.force_detach(ctx, await self._parts.volumes.find(volume_id), attachment_id)

    async def reset_status(self, ctx: Context, *, volume_id: str, status: str) -> Volume:
        return await self._resetting.reset_status(ctx, await self._parts.volumes.find(volume_id), status)


def _check_detached(volume: Volume) -> None:
    held = next((row for row in volume.volume_attachment if row.attach_status is not AttachStatus.DETACHED), None)
    if held is not None:
        raise VolumeInUse(volume_id=volume.label, instance_uuid=held.instance_uuid, mountpoint=held.mountpoint or "a disk to be")
