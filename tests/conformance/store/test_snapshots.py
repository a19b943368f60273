"""The rows of snapshots, and volumes that grow, on each database."""

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from cinder_lite.contract import AttachStatus, Snapshot, SnapshotStatus, Volume, VolumeStatus
from cinder_lite.domain.snapshot import Event
from cinder_lite.domain.volume import Event as VolumeEvent
from cinder_lite.errors import AmbiguousSnapshot, InvalidVolume, SnapshotNotFound, VolumeNotFound
from cinder_lite.store.snapshots import Snapshots
from cinder_lite.store.volume_attachment import VolumeAttachments
from cinder_lite.store.volumes import Volumes
from common.base.errors import Conflict
from common.base.ids import new_uuid
from common.db.engine import Database
from common.host.clock import SystemClock

CLOCK = SystemClock()


class Sent:
    """Stands for the letters that are entered with a row; `number` counts them."""

    number = 0

    async def __call__(self, conn: AsyncConnection) -> None:
        self.number += 1


async def available(database: Database, *, size: int = 1) -> Volume:
    volumes = Volumes(database, CLOCK)
    volume = await volumes.create(Volume(id=new_uuid(), size=size, status=VolumeStatus.CREATING, host="h1@b#b"))
    return await volumes.advance(volume.id, VolumeEvent.CREATED)


def draft(volume: Volume, name: str | None = None) -> Snapshot:
    return Snapshot(
        id=new_uuid(), volume_id=volume.id, volume_size=volume.size, status=SnapshotStatus.CREATING, display_name=name, progress="0%"
    )  # fmt: skip


async def test_a_snapshot_is_entered_once_with_its_order_and_lives_until_it_is_destroyed(database: Database) -> None:
    store, sent, snapshot = Snapshots(database, CLOCK), Sent(), draft(await available(database), "s")
    made = await store.create(snapshot, also=sent)
    assert (await store.create(snapshot, also=sent)).id == made.id == snapshot.id
    assert (sent.number, made.created_at is not None) == (1, True)
    await store.advance(made.id, Event.CREATED)
    found = await store.find("s")
    assert (found.status, found.progress) == (SnapshotStatus.AVAILABLE, "100%")
    with pytest.raises(Conflict):
        await store.advance(made.id, Event.CREATED)
    await store.add_message(made.id, "E", "why", "req-1")
    assert [said.user_message for said in (await store.list())[0].messages] == ["why"]
    await store.advance(made.id, Event.DELETE, also=sent)
    await store.advance(made.id, Event.DESTROYED)
    assert (await store.list(), sent.number) == ([], 2)
    assert (await store.remembered(made.id)).status is SnapshotStatus.DELETED
    for ask in (store.get, store.find):
        with pytest.raises(SnapshotNotFound):
            await ask(made.id)
    with pytest.raises(SnapshotNotFound):
        await store.advance(made.id, Event.DELETE)


async def test_a_name_that_two_have_is_ambiguous(database: Database) -> None:
    store, volume = Snapshots(database, CLOCK), await available(database)
    for _ in range(2):
        await store.create(draft(volume, "twice"), also=Sent())
    with pytest.raises(AmbiguousSnapshot):
        await store.find("twice")


async def test_no_snapshot_is_entered_of_a_volume_that_is_gone_or_goes(database: Database) -> None:
    store, volumes, volume, sent = Snapshots(database, CLOCK), Volumes(database, CLOCK), await available(database), Sent()
    await volumes.delete(volume.id, also=sent)
    with pytest.raises(InvalidVolume, match="the status is deleting"):
        await store.create(draft(volume), also=sent)
    await volumes.advance(volume.id, VolumeEvent.DESTROYED)
    with pytest.raises(VolumeNotFound):
        await store.create(draft(volume), also=sent)
    assert sent.number == 1


async def test_a_volume_with_a_snapshot_is_not_deleted(database: Database) -> None:
    store, volumes, volume, sent = Snapshots(database, CLOCK), Volumes(database, CLOCK), await available(database), Sent()
    snapshot = await store.create(draft(volume), also=sent)
    with pytest.raises(InvalidVolume, match=snapshot.id):
        await volumes.delete(volume.id, also=sent)
    assert ((await volumes.get(volume.id)).status, sent.number) == (VolumeStatus.AVAILABLE, 1)


async def test_a_volume_grows_to_where_its_attachments_say(database: Database) -> None:
    volumes, attachments = Volumes(database, CLOCK), VolumeAttachments(database, CLOCK)
    volume = await available(database)
    for size, held in ((2, False), (3, True)):
        if held:
            await attachments.reserve(volume.id, "a1", "s1")
            await attachments.connecting("a1", {"host": "cmp1"})
            await attachments.attached(volume.id, "a1", instance_uuid="s1", host_name=None, mountpoint="/dev/vdb", mode="rw")
        extending = await volumes.advance(volume.id, VolumeEvent.EXTEND, extend_new_size=size)
        wanted = AttachStatus.ATTACHED if held else AttachStatus.DETACHED
        assert (extending.status, extending.attach_status) == (VolumeStatus.EXTENDING, wanted)
        assert await volumes.extending_to(volume.id) == size
        for _ in range(2):
            await attachments.extended(volume.id, size)
        found = await volumes.get(volume.id)
        status = VolumeStatus.IN_USE if held else VolumeStatus.AVAILABLE
        assert (found.size, found.status, found.attach_status) == (size, status, wanted)
        assert await volumes.extending_to(volume.id) is None


@pytest.mark.parametrize("held", [False, True])
async def test_a_volume_that_did_not_grow_is_as_it_was_where_somebody_holds_it(database: Database, held: bool) -> None:
    volumes, attachments = Volumes(database, CLOCK), VolumeAttachments(database, CLOCK)
    volume = await available(database)
    if held:
        await attachments.reserve(volume.id, "a1", "s1")
        await attachments.connecting("a1", {"host": "cmp1"})
        await attachments.attached(volume.id, "a1", instance_uuid="s1", host_name=None, mountpoint="/dev/vdb", mode="rw")
    await volumes.advance(volume.id, VolumeEvent.EXTEND, extend_new_size=2)
    for _ in range(2):
        await attachments.roll_extending(volume.id)
    found = await volumes.get(volume.id)
    assert (found.size, found.status) == (1, VolumeStatus.IN_USE if held else VolumeStatus.ERROR_EXTENDING)
    with pytest.raises(InvalidVolume, match="must be extending"):
        await attachments.extended(volume.id, 2)
