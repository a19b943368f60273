"""What cinder-api checks before a volume or a snapshot is made, grown or deleted. The order goes by post, with the row it belongs to."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from cinder_lite.contract import Snapshot, SnapshotStatus, Volume, VolumeStatus
from cinder_lite.domain.snapshot import Event as SnapshotEvent
from cinder_lite.domain.volume import EXTENDABLE, Event
from cinder_lite.errors import InvalidInput, InvalidSnapshot, InvalidVolume, SnapshotNotFound
from cinder_lite.flows.extend_volume import EXTEND_VOLUME
from cinder_lite.flows.parts import manager_of
from cinder_lite.flows.snapshot import DELETE_SNAPSHOT
from common.base.context import Context
from common.base.errors import Conflict
from common.base.ids import same_uuid
from common.db.tables import flows

if TYPE_CHECKING:
    from cinder_lite.service.api import ApiParts

CREATE, DELETE, EXTEND = "request_create_volume", "request_delete_volume", "request_extend_volume"
SNAPSHOT_CREATE, SNAPSHOT_DELETE = "request_create_snapshot", "request_delete_snapshot"
"""What clients ask for, as it stands in flows.saga."""
NAME_LENGTH_MAX = 255
"""Characters of volumes.display_name."""
SIZE_GIB_MAX = 1 << 20
"""One PiB: beyond it a size is a mistake."""


class Making:
    """cinder-api's; `parts` are its own."""

    def __init__(self, parts: "ApiParts") -> None:
        self._parts = parts

    async def create(
        self, ctx: Context, more: Mapping[str, Any], *, size: int | None, name: str | None, snapshot_id: str | None,
        source_volid: str | None,
    ) -> Volume:  # fmt: skip
        """A new volume; `more` is what its row has besides. Raises what `_drafted` does.

        One that is made of something goes where that is, without the scheduler (snapshot_same_host).
        """
        volume = await self._drafted(ctx, size=size, name=name, snapshot_id=snapshot_id, source_volid=source_volid)
        volume = msgspec.structs.replace(volume, **more)
        with self._parts.post.letters() as letters:
            if volume.host is None:
                await self._parts.scheduler.create_volume(ctx, volume=volume, request_spec={"volume_id": volume.id})
            else:
                await manager_of(self._parts.orders, volume).create_volume(ctx, volume=volume, allow_reschedule=False)
        return await self._parts.volumes.create(volume, also=self._parts.accepting(ctx, CREATE, f"volume:{volume.id}", letters))

    async def _drafted(
        self, ctx: Context, *, size: int | None, name: str | None, snapshot_id: str | None, source_volid: str | None
    ) -> Volume:
        """What is to be made: its id, size, and where its source is.

        Raises InvalidInput; SnapshotNotFound, VolumeNotFound; InvalidSnapshot, InvalidVolume when the source cannot be copied now.
        """
        check_name(name)
        host, source_size = None, None
        if snapshot_id is not None and source_volid is not None:
            raise InvalidInput(reason="A volume is made of a snapshot or of another volume, not of both.")
        if snapshot_id is not None:
            snapshot = await self._parts.snapshots.find(snapshot_id)
            if snapshot.status is not SnapshotStatus.AVAILABLE:
                raise InvalidSnapshot(reason=f"Snapshot {snapshot.label} is {snapshot.status}; wanted: {SnapshotStatus.AVAILABLE}.")
            source = await self._parts.volumes.remembered(snapshot.volume_id)
            host, snapshot_id, source_size = source.host, snapshot.id, snapshot.volume_size
        elif source_volid is not None:
            source = await self._parts.volumes.find(source_volid)
            _check_extendable(source, "be cloned")
            host, source_volid, source_size = source.host, source.id, source.size
        return Volume(
            id=same_uuid(ctx.message_id),
            size=_checked_size(size, at_least=source_size),
            status=VolumeStatus.CREATING,
            display_name=name,
            host=host,
            snapshot_id=snapshot_id,
            source_volid=source_volid,
            user_id=ctx.user_id,
            project_id=ctx.project_id,
        )

    async def extend(self, ctx: Context, volume_id: str, new_size: int) -> None:
        """Extending to that size already: nothing happens.

        Raises VolumeNotFound; InvalidInput for a size that is not larger; InvalidVolume when it is neither available nor in use.
        """
        volume = await self._parts.volumes.find(volume_id)
        _checked_size(new_size)
        if volume.status is VolumeStatus.EXTENDING and await self._parts.volumes.extending_to(volume.id) == new_size:
            return
        if new_size <= volume.size:
            if await self._has_begun(ctx, EXTEND_VOLUME.name, volume):
                return
            raise InvalidInput(
                reason=f"New size for extend must be greater than current size. (current: {volume.size}, extended: {new_size})."
            )
        _check_extendable(volume, "extend")
        extending = msgspec.structs.replace(volume, status=VolumeStatus.EXTENDING)
        with self._parts.post.letters() as letters:
            await manager_of(self._parts.orders, volume).extend_volume(ctx, volume=extending, new_size=new_size)
        also = self._parts.accepting(ctx, EXTEND, f"volume:{volume.id}", letters)
        try:
            await self._parts.volumes.advance(volume.id, Event.EXTEND, also=also, extend_new_size=new_size)
        except Conflict as exc:
            raise _wrong_status(volume.label, "extend", str(exc.fields["found"])) from exc

    async def create_snapshot(self, ctx: Context, volume_id: str, *, name: str | None, description: str | None) -> Snapshot:
        check_name(name)
        volume = await self._parts.volumes.find(volume_id)
        snapshot = Snapshot(
            id=same_uuid(ctx.message_id),
            volume_id=volume.id,
            volume_size=volume.size,
            status=SnapshotStatus.CREATING,
            display_name=name,
            display_description=description,
            progress="0%",
            user_id=ctx.user_id,
            project_id=ctx.project_id,
        )
        with self._parts.post.letters() as letters:
            await manager_of(self._parts.orders, volume).create_snapshot(ctx, snapshot=snapshot)
        also = self._parts.accepting(ctx, SNAPSHOT_CREATE, f"snapshot:{snapshot.id}", letters)
        return await self._parts.snapshots.create(snapshot, also=also)

    async def delete_snapshot(self, ctx: Context, snapshot_id: str) -> None:
        try:
            snapshot = await self._parts.snapshots.find(snapshot_id)
        except SnapshotNotFound:
            if await self._parts.journal.was_done(ctx.request_id, DELETE_SNAPSHOT.name):
                return
            raise
        if snapshot.status is SnapshotStatus.DELETING:
            return
        volume = await self._parts.volumes.remembered(snapshot.volume_id)
        deleting = msgspec.structs.replace(snapshot, status=SnapshotStatus.DELETING, messages=())
        with self._parts.post.letters() as letters:
            await manager_of(self._parts.orders, volume).delete_snapshot(ctx, snapshot=deleting)
        try:
            also = self._parts.accepting(ctx, SNAPSHOT_DELETE, f"snapshot:{snapshot.id}", letters)
            await self._parts.snapshots.advance(snapshot.id, SnapshotEvent.DELETE, also=also)
        except Conflict as exc:
            raise InvalidSnapshot(
                reason=f"Snapshot {snapshot.label} must be available, error or error_deleting to delete, but it is {snapshot.status}."
            ) from exc

    async def _has_begun(self, ctx: Context, saga: str, volume: Volume) -> bool:
        """True when this very request has brought that about: asked again, since its answer was lost, it finds no more to do."""
        mine = flows.c.request_id == ctx.request_id, flows.c.saga == saga, flows.c.subject == f"volume:{volume.id}"
        return bool(await self._parts.journal.list(*mine))


def check_name(name: str | None) -> None:
    """Raises InvalidInput."""
    if name is not None and not 1 <= len(name.strip()) <= NAME_LENGTH_MAX:
        raise InvalidInput(reason=f"A name must have 1 to {NAME_LENGTH_MAX} characters.")


def _checked_size(size: int | None, *, at_least: int | None = None) -> int:
    """`at_least`: GiB of what it is made of, which is its size where none is given."""
    wanted = at_least if size is None else size
    if wanted is None or not 1 <= wanted <= SIZE_GIB_MAX:
        raise InvalidInput(reason=f"Volume size {wanted} must be a whole number of GiB from 1 to {SIZE_GIB_MAX}.")
    if at_least is not None and wanted < at_least:
        raise InvalidInput(reason=f"Volume size {wanted} is smaller than the {at_least} GiB that it is made of.")
    return wanted


def _check_extendable(volume: Volume, verb: str) -> None:
    if volume.status not in EXTENDABLE:
        raise _wrong_status(volume.label, verb, volume.status)


def _wrong_status(label: str, verb: str, found: str) -> InvalidVolume:
    wanted = " or ".join(sorted(EXTENDABLE))
    return InvalidVolume(reason=f"Volume {label} status must be {wanted} to {verb}, but the status is {found}.")
