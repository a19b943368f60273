"""Snapshots, and volumes that are made of something: what is seen of it, and what every failure leaves."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import update

from cinder_lite.contract import Snapshot, SnapshotStatus, Volume, VolumeStatus
from cinder_lite.drivers.fake import FakeDriver
from cinder_lite.errors import (
    AmbiguousSnapshot,
    InvalidInput,
    InvalidSnapshot,
    InvalidVolume,
    SnapshotNotFound,
    VolumeBackendAPIException,
    VolumeIsBusy,
)
from cinder_lite.store.tables import snapshots
from common.base.context import Context
from tests.support.world import BACKEND, World, running_world


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - a driver has no event
            await asyncio.sleep(0.02)


async def deleted(world: World, snapshot: Snapshot, ctx: Context | None = None) -> None:
    """Returns once it is gone, or could not be deleted."""
    await world.volumes.delete_snapshot(ctx or world.ctx, snapshot_id=snapshot.id)
    with suppress(SnapshotNotFound):
        await world.settled_snapshot(snapshot.id)
    await world.ended_flows()


class WatchedDriver(FakeDriver):
    """`most`: clones that were made at once."""

    def __init__(self) -> None:
        super().__init__(volume_backend_name=BACKEND)
        self.at_work = self.most = 0

    async def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> None:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        await asyncio.sleep(0.01)
        await super().create_cloned_volume(volume, src_vref)
        self.at_work -= 1


async def made(world: World, name: str, *, snapshot_id: str | None = None, source_volid: str | None = None) -> Volume:
    volume = await world.volumes.create(world.ctx, name=name, snapshot_id=snapshot_id, source_volid=source_volid)
    return await world.settled(volume.id)


async def test_a_snapshot_is_taken_and_available(world: World) -> None:
    volume = await world.create(size=2)
    snapshot = await world.volumes.create_snapshot(world.ctx, volume_id="volume-1", name="before", description="the upgrade")
    assert (snapshot.status, snapshot.volume_id, snapshot.volume_size) == (SnapshotStatus.CREATING, volume.id, 2)
    found = await world.settled_snapshot(snapshot.id)
    assert (found.status, found.progress, found.display_name, found.project_id) == (
        SnapshotStatus.AVAILABLE,
        "100%",
        "before",
        "p1",
    )
    assert world.driver.snapshots[snapshot.name].volume_name == volume.name
    assert [each.id for each in await world.volumes.get_all_snapshots(world.ctx)] == [snapshot.id]
    await world.ended_flows()
    assert (await world.doctor.audit()).violations == ()


async def test_a_snapshot_of_an_attached_volume_is_taken_too(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    await world.attach(server, volume)
    await world.settled(volume.id)
    snapshot = await world.volumes.create_snapshot(world.ctx, volume_id=volume.id)
    assert (await world.settled_snapshot(snapshot.id)).status is SnapshotStatus.AVAILABLE
    assert (await world.settled(volume.id)).status is VolumeStatus.IN_USE


async def test_a_deleted_snapshot_leaves_nothing(world: World) -> None:
    volume, ctx = await world.create(), world.ctx
    snapshot = await world.volumes.create_snapshot(world.ctx, volume_id=volume.id, name="s")
    await world.settled_snapshot(snapshot.id)
    await deleted(world, snapshot, ctx)
    assert world.driver.snapshots == {}
    with pytest.raises(SnapshotNotFound):
        await world.volumes.get_snapshot(world.ctx, snapshot_id=snapshot.id)
    await world.volumes.delete_snapshot(ctx, snapshot_id=snapshot.id)
    with pytest.raises(SnapshotNotFound):
        await world.volumes.delete_snapshot(world.ctx, snapshot_id=snapshot.id)
    assert (await world.doctor.audit()).violations == ()


async def test_a_volume_of_a_snapshot_has_its_bytes_and_at_least_its_size(world: World) -> None:
    volume = await world.create(size=2)
    world.driver.blocks[volume.name] = {7: b"x"}
    snapshot = await world.volumes.create_snapshot(world.ctx, volume_id=volume.id, name="s")
    await world.settled_snapshot(snapshot.id)
    world.driver.blocks[volume.name] = {7: b"y"}
    copy = await made(world, "copy", snapshot_id="s")
    assert (copy.status, copy.size, copy.snapshot_id, copy.host) == (VolumeStatus.AVAILABLE, 2, snapshot.id, volume.host)
    assert world.driver.blocks[copy.name] == {7: b"x"}
    larger = await world.volumes.create(world.ctx, name="larger", size=3, snapshot_id=snapshot.id)
    assert (await world.settled(larger.id)).size == 3
    with pytest.raises(InvalidInput, match="smaller than the 2 GiB"):
        await world.volumes.create(world.ctx, size=1, snapshot_id=snapshot.id)


async def test_a_clone_has_the_bytes_of_its_source_and_lives_without_it(world: World) -> None:
    volume = await world.create(size=2)
    world.driver.blocks[volume.name] = {7: b"x"}
    copy = await made(world, "copy", source_volid="volume-1")
    assert (copy.status, copy.size, copy.source_volid) == (VolumeStatus.AVAILABLE, 2, volume.id)
    assert world.driver.blocks[copy.name] == {7: b"x"}
    await world.volumes.delete(world.ctx, volume_id=volume.id)
    await until(lambda: set(world.driver.sizes) == {copy.name})


async def test_what_cannot_be_copied_is_refused_by_its_state(world: World) -> None:
    volume = await world.create()
    snapshot = await world.volumes.create_snapshot(world.ctx, volume_id=volume.id, name="s")
    await world.settled_snapshot(snapshot.id)
    async with world.database.begin() as conn:
        await conn.execute(update(snapshots).values(status="error"))
    with pytest.raises(InvalidSnapshot, match="Snapshot s is error; wanted: available"):
        await world.volumes.create(world.ctx, snapshot_id="s")
    with pytest.raises(InvalidInput, match="not of both"):
        await world.volumes.create(world.ctx, snapshot_id="s", source_volid=volume.id)
    with pytest.raises(InvalidInput, match="Volume size None"):
        await world.volumes.create(world.ctx, name="nothing")
    await world.volumes.reset_status(world.ctx, volume_id=volume.id, status="error")
    with pytest.raises(InvalidVolume, match="must be available or in-use to be cloned, but the status is error"):
        await world.volumes.create(world.ctx, source_volid=volume.id)
    with pytest.raises(InvalidVolume, match="must be available or in-use to snapshot, but the status is error"):
        await world.volumes.create_snapshot(world.ctx, volume_id=volume.id)
    assert len(await world.volumes.get_all(world.ctx)) == 1


async def test_a_volume_with_snapshots_is_not_deleted(world: World) -> None:
    volume = await world.create()
    snapshot = await world.volumes.create_snapshot(world.ctx, volume_id=volume.id)
    with pytest.raises(InvalidVolume, match=f"has snapshots: {snapshot.id}; delete them first"):
        await world.volumes.delete(world.ctx, volume_id=volume.id)
    await world.settled_snapshot(snapshot.id)
    await deleted(world, snapshot)
    await world.volumes.delete(world.ctx, volume_id=volume.id)
    await until(lambda: world.driver.sizes == {})


async def test_a_backend_that_fails_leaves_a_snapshot_in_error_and_nothing_of_it(world: World) -> None:
    volume = await world.create()
    world.driver.script.fail_next("create_snapshot", VolumeIsBusy(volume_name=volume.name, reason="open"))
    snapshot = await world.volumes.create_snapshot(world.ctx, volume_id=volume.id, name="s")
    found = await world.settled_snapshot(snapshot.id)
    assert (found.status, world.driver.snapshots) == (SnapshotStatus.ERROR, {})
    assert "open" in found.messages[0].user_message
    assert (await world.settled(volume.id)).status is VolumeStatus.AVAILABLE
    await deleted(world, snapshot)
    assert await world.volumes.get_all_snapshots(world.ctx) == []


async def test_a_snapshot_that_a_volume_still_needs_becomes_available_again(world: World) -> None:
    world.driver.links_clones = True
    volume = await world.create()
    snapshot = await world.volumes.create_snapshot(world.ctx, volume_id=volume.id, name="s")
    await world.settled_snapshot(snapshot.id)
    copy = await made(world, "copy", snapshot_id="s")
    await deleted(world, snapshot)
    found = await world.settled_snapshot(snapshot.id)
    assert (found.status, copy.name in found.messages[0].user_message) == (SnapshotStatus.AVAILABLE, True)


async def test_a_snapshot_whose_deletion_fails_says_so_and_can_be_deleted_again(world: World) -> None:
    volume = await world.create()
    snapshot = await world.volumes.create_snapshot(world.ctx, volume_id=volume.id, name="s")
    await world.settled_snapshot(snapshot.id)
    world.driver.script.fail_next("delete_snapshot", VolumeBackendAPIException(data="no"))
    await deleted(world, snapshot)
    assert (await world.settled_snapshot(snapshot.id)).status is SnapshotStatus.ERROR_DELETING
    await deleted(world, snapshot)
    assert world.driver.snapshots == {}


async def test_two_snapshots_of_one_name_are_asked_for_by_their_ids(world: World) -> None:
    volume = await world.create()
    taken = [await world.volumes.create_snapshot(world.ctx, volume_id=volume.id, name="s") for _ in range(2)]
    for each in taken:
        await world.settled_snapshot(each.id)
    with pytest.raises(AmbiguousSnapshot, match=taken[0].id):
        await world.volumes.delete_snapshot(world.ctx, snapshot_id="s")


async def test_what_is_made_of_a_volume_asks_its_backend_one_after_another(tmp_path: Path) -> None:
    driver = WatchedDriver()
    async with running_world(tmp_path, driver=driver) as world:
        volume = await world.create()
        copies = await asyncio.gather(*(world.volumes.create(world.ctx, source_volid=volume.id) for _ in range(4)))
        for copy in copies:
            assert (await world.settled(copy.id)).status is VolumeStatus.AVAILABLE
    assert driver.most == 1


async def test_lost_orders_and_leftovers_of_snapshots_are_mended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.base.settling.RECONCILE_GRACE_S", -1.0)
    monkeypatch.setattr("common.app.reconciling.RECONCILE_RECHECK_S", 0.1)
    volume = await world.create()
    taken = [await world.volumes.create_snapshot(world.ctx, volume_id=volume.id, name=name) for name in ("a", "b")]
    for each in taken:
        await world.settled_snapshot(each.id)
    await world.ended_flows()
    kept = world.driver.snapshots[taken[1].name]
    await deleted(world, taken[1])
    world.driver.snapshots[taken[1].name] = kept
    async with world.database.begin() as conn:
        await conn.execute(update(snapshots).where(snapshots.c.id == taken[0].id).values(status="deleting"))
    async with asyncio.timeout(20):
        while world.driver.snapshots:  # both are mended in the line of one volume, a round for each
            await world.doctor.mend()
            await asyncio.sleep(0.05)
    await world.ended_flows()
    assert await world.volumes.get_all_snapshots(world.ctx) == []
