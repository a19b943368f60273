"""Guarantees 9 to 13 of cinder_lite/ports/driver.py: snapshots, and volumes made from them or from other volumes."""

import msgspec

from cinder_lite.certify.driver_bench import GIB, DriverBench, new_snapshot, new_volume
from cinder_lite.certify.driver_steps import (
    BLOCK_BYTES,
    block,
    expect_block,
    expect_listed,
    expect_names,
    expect_size,
    made_snapshot,
    made_volume,
)
from cinder_lite.certify.specification import collected, expect, refused, specifies
from cinder_lite.contract import Snapshot, Volume
from cinder_lite.errors import SnapshotIsBusy, VolumeBackendAPIException, VolumeIsBusy


async def _from(bench: DriverBench, snapshot: Snapshot, size: int = 1) -> Volume:
    volume = new_volume(size)
    await bench.driver.create_volume_from_snapshot(volume, snapshot)
    return volume


async def _clone(bench: DriverBench, source: Volume, size: int = 1) -> Volume:
    volume = new_volume(size)
    await bench.driver.create_cloned_volume(volume, source)
    return volume


@specifies(9)
async def a_snapshot_keeps_what_the_volume_held(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    snapshot = await made_snapshot(bench, volume)
    await bench.write(volume, 0, block(0x22))
    await bench.write(volume, GIB // 2, block(0x33))
    made = await _from(bench, snapshot)
    await expect_block(bench, made, 0x11, of="what was made from the snapshot")
    await expect_block(bench, made, 0, offset=GIB // 2, of="what was made from the snapshot")


@specifies(9)
async def a_volume_stays_as_it_was_when_a_snapshot_is_taken(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    await made_snapshot(bench, volume)
    await expect_size(bench, volume, 1)
    await expect_block(bench, volume, 0x11)
    await bench.write(volume, 0, block(0x22))
    await expect_block(bench, volume, 0x22)


@specifies(9)
async def a_snapshot_that_is_there_is_not_taken_anew(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    snapshot = await made_snapshot(bench, volume)
    await bench.write(volume, 0, block(0x22))
    await bench.driver.create_snapshot(snapshot)
    await expect_block(bench, await _from(bench, snapshot), 0x11, of="what was made from the snapshot")
    await bench.names()


@specifies(9)
async def two_snapshots_keep_two_moments(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    first = await made_snapshot(bench, volume)
    await bench.write(volume, 0, block(0x22))
    second = await made_snapshot(bench, volume)
    await bench.write(volume, 0, block(0x33))
    await expect_block(bench, await _from(bench, first), 0x11, of="the first snapshot")
    await expect_block(bench, await _from(bench, second), 0x22, of="the second snapshot")
    await expect_block(bench, volume, 0x33)


@specifies(9)
async def of_a_volume_that_is_not_there_no_snapshot_is_taken(bench: DriverBench) -> None:
    missing = new_volume()
    with refused(VolumeBackendAPIException, naming=missing.name):
        await bench.driver.create_snapshot(new_snapshot(missing))
    await expect_names(bench)


@specifies(9)
async def a_snapshot_of_a_volume_in_use_is_whole_or_refused(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    snapshot = new_snapshot(volume)
    async with bench.used(volume):
        try:
            await bench.driver.create_snapshot(snapshot)
        except VolumeIsBusy:
            await expect_names(bench, volume)
            return
    await expect_block(bench, await _from(bench, snapshot), 0x11, of="the snapshot")


@specifies(10)
async def nothing_is_left_of_a_deleted_snapshot_and_the_volume_stays(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    snapshot = await made_snapshot(bench, volume)
    await bench.write(volume, 0, block(0x22))
    await bench.driver.delete_snapshot(snapshot)
    await expect_names(bench, volume)
    await expect_block(bench, volume, 0x22)


@specifies(10)
async def deleting_a_snapshot_that_is_gone_changes_nothing(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    await bench.driver.delete_snapshot(new_snapshot(volume))
    snapshot = await made_snapshot(bench, volume)
    await bench.driver.delete_snapshot(snapshot)
    await bench.driver.delete_snapshot(snapshot)
    await expect_names(bench, volume)
    await expect_block(bench, volume, 0x11)


@specifies(10)
async def deleting_a_snapshot_whose_volume_is_gone_changes_nothing(bench: DriverBench) -> None:
    await bench.driver.delete_snapshot(new_snapshot(new_volume()))
    await expect_names(bench)


@specifies(10)
async def of_two_snapshots_one_is_deleted_and_the_other_stays_whole(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    first = await made_snapshot(bench, volume)
    await bench.write(volume, 0, block(0x22))
    second = await made_snapshot(bench, volume)
    await bench.write(volume, 0, block(0x33))
    await bench.driver.delete_snapshot(first)
    await expect_names(bench, volume, second)
    await expect_block(bench, await _from(bench, second), 0x22, of="the second snapshot")


@specifies(10)
async def a_snapshot_that_a_volume_was_made_from_is_let_go_or_kept_whole(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    snapshot = await made_snapshot(bench, volume)
    made = await _from(bench, snapshot)
    try:
        await bench.driver.delete_snapshot(snapshot)
    except SnapshotIsBusy:
        await expect_names(bench, volume, snapshot, made)
    else:
        await expect_names(bench, volume, made)
    await expect_block(bench, made, 0x11, of="the volume that was made from it")


@specifies(10)
async def a_snapshot_that_no_volume_needs_any_longer_is_deleted(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    snapshot = await made_snapshot(bench, volume)
    await bench.driver.delete_volume(await _from(bench, snapshot))
    await bench.driver.delete_snapshot(snapshot)
    await expect_names(bench, volume)
    await bench.driver.delete_volume(volume)
    await expect_names(bench)


@specifies(11)
async def a_volume_from_a_snapshot_has_its_bytes_and_then_zeros(bench: DriverBench) -> None:
    source = await made_volume(bench, 1, byte=0x11, offset=GIB - BLOCK_BYTES)
    snapshot = await made_snapshot(bench, source)
    volume = await _from(bench, snapshot, 2)
    await expect_size(bench, volume, 2)
    await expect_block(bench, volume, 0x11, offset=GIB - BLOCK_BYTES)
    for offset in (GIB, 2 * GIB - BLOCK_BYTES):
        await expect_block(bench, volume, 0, offset=offset)
    await expect_listed(bench, source, volume)


@specifies(11)
async def making_it_from_the_snapshot_again_leaves_its_own_bytes(bench: DriverBench) -> None:
    snapshot = await made_snapshot(bench, await made_volume(bench, byte=0x11))
    volume = await _from(bench, snapshot, 2)
    await bench.write(volume, 0, block(0x22))
    await bench.driver.create_volume_from_snapshot(volume, snapshot)
    await expect_size(bench, volume, 2)
    await expect_block(bench, volume, 0x22)


@specifies(11)
async def a_volume_smaller_than_its_snapshot_is_refused_and_leaves_nothing(bench: DriverBench) -> None:
    source = await made_volume(bench, 2)
    snapshot = await made_snapshot(bench, source)
    with refused(VolumeBackendAPIException):
        await bench.driver.create_volume_from_snapshot(new_volume(1), snapshot)
    await expect_names(bench, source, snapshot)


@specifies(11)
async def a_volume_from_a_snapshot_that_is_not_there_is_refused_and_leaves_nothing(bench: DriverBench) -> None:
    source = await made_volume(bench)
    missing = new_snapshot(source)
    with refused(VolumeBackendAPIException, naming=missing.name):
        await bench.driver.create_volume_from_snapshot(new_volume(), missing)
    await expect_names(bench, source)


@specifies(11)
async def a_volume_of_another_size_is_not_overwritten_by_a_snapshot(bench: DriverBench) -> None:
    snapshot = await made_snapshot(bench, await made_volume(bench, byte=0x11))
    volume = await made_volume(bench, 1, byte=0x22)
    with refused(VolumeBackendAPIException, naming="wanted 2 GiB"):
        await bench.driver.create_volume_from_snapshot(msgspec.structs.replace(volume, size=2), snapshot)
    await expect_size(bench, volume, 1)
    await expect_block(bench, volume, 0x22)


@specifies(11)
async def what_is_written_to_a_volume_from_a_snapshot_reaches_nothing_else(bench: DriverBench) -> None:
    source = await made_volume(bench, byte=0x11)
    snapshot = await made_snapshot(bench, source)
    volume, other = await _from(bench, snapshot), await _from(bench, snapshot)
    await bench.write(volume, 0, block(0x22))
    await expect_block(bench, source, 0x11, of="the source")
    await expect_block(bench, other, 0x11, of="another from the same snapshot")
    await expect_block(bench, await _from(bench, snapshot), 0x11, of="the snapshot")


@specifies(12)
async def a_clone_has_the_bytes_of_its_source_and_then_zeros(bench: DriverBench) -> None:
    source = await made_volume(bench, 1, byte=0x11, offset=GIB - BLOCK_BYTES)
    clone = await _clone(bench, source, 2)
    await expect_size(bench, clone, 2)
    await expect_block(bench, clone, 0x11, offset=GIB - BLOCK_BYTES)
    for offset in (GIB, 2 * GIB - BLOCK_BYTES):
        await expect_block(bench, clone, 0, offset=offset)


@specifies(12)
async def a_clone_and_its_source_are_written_apart(bench: DriverBench) -> None:
    source = await made_volume(bench, byte=0x11)
    clone = await _clone(bench, source)
    await bench.write(source, 0, block(0x22))
    await bench.write(clone, GIB // 2, block(0x33))
    await expect_block(bench, clone, 0x11, of="the clone")
    await expect_block(bench, source, 0x22, of="the source")
    await expect_block(bench, source, 0, offset=GIB // 2, of="the source")


@specifies(12)
async def the_source_of_a_clone_can_be_deleted(bench: DriverBench) -> None:
    source = await made_volume(bench, byte=0x11)
    clone = await _clone(bench, source)
    await bench.driver.delete_volume(source)
    await expect_names(bench, clone)
    await expect_block(bench, clone, 0x11, of="the clone")


@specifies(12)
async def a_clone_can_be_deleted_before_its_source(bench: DriverBench) -> None:
    source = await made_volume(bench, byte=0x11)
    await bench.driver.delete_volume(await _clone(bench, source))
    await expect_names(bench, source)
    await expect_block(bench, source, 0x11, of="the source")


@specifies(12)
async def cloning_leaves_no_snapshot_behind(bench: DriverBench) -> None:
    source = await made_volume(bench)
    before = dict(await bench.driver.list_snapshots())
    clone = await _clone(bench, source)
    expect("snapshots", dict(await bench.driver.list_snapshots()), before)
    await expect_names(bench, source, clone)


@specifies(12)
async def cloning_again_leaves_the_clone_as_it_is(bench: DriverBench) -> None:
    source = await made_volume(bench, byte=0x11)
    clone = await _clone(bench, source)
    await bench.write(clone, 0, block(0x22))
    await bench.driver.create_cloned_volume(clone, source)
    await expect_block(bench, clone, 0x22, of="the clone")


@specifies(12)
async def a_clone_of_a_clone_holds_the_same(bench: DriverBench) -> None:
    first = await made_volume(bench, byte=0x11)
    second = await _clone(bench, first)
    third = await _clone(bench, second)
    await bench.driver.delete_volume(second)
    await expect_block(bench, third, 0x11, of="the clone's clone")
    await expect_names(bench, first, third)


@specifies(12)
async def a_clone_is_extended_and_its_source_is_not(bench: DriverBench) -> None:
    source = await made_volume(bench, byte=0x11)
    clone = await _clone(bench, source)
    await bench.driver.extend_volume(clone, 2)
    await expect_size(bench, clone, 2)
    await expect_size(bench, source, 1)
    await expect_block(bench, clone, 0x11, of="the clone")


@specifies(12)
async def a_clone_smaller_than_its_source_is_refused_and_leaves_nothing(bench: DriverBench) -> None:
    source = await made_volume(bench, 2)
    with refused(VolumeBackendAPIException):
        await bench.driver.create_cloned_volume(new_volume(1), source)
    await expect_names(bench, source)


@specifies(12)
async def a_clone_of_a_volume_that_is_not_there_is_refused_and_leaves_nothing(bench: DriverBench) -> None:
    missing = new_volume()
    with refused(VolumeBackendAPIException, naming=missing.name):
        await bench.driver.create_cloned_volume(new_volume(), missing)
    await expect_names(bench)


@specifies(12)
async def a_clone_of_a_volume_in_use_is_whole_or_refused(bench: DriverBench) -> None:
    source, clone = await made_volume(bench, byte=0x11), new_volume()
    async with bench.used(source):
        try:
            await bench.driver.create_cloned_volume(clone, source)
        except VolumeIsBusy:
            await expect_names(bench, source)
            return
    await expect_block(bench, clone, 0x11, of="the clone")


@specifies(12)
async def a_clone_of_a_volume_with_a_snapshot_holds_what_the_volume_holds_now(bench: DriverBench) -> None:
    source = await made_volume(bench, byte=0x11)
    await made_snapshot(bench, source)
    await bench.write(source, 0, block(0x22))
    await expect_block(bench, await _clone(bench, source), 0x22, of="the clone")


@specifies(13)
async def every_snapshot_is_listed_with_its_volume(bench: DriverBench) -> None:
    before = dict(await bench.driver.list_snapshots())
    one, other = await made_volume(bench), await made_volume(bench)
    made = [await made_snapshot(bench, volume) for volume in (one, one, other)]
    wanted = {snapshot.name: snapshot.volume_name for snapshot in made}
    expect("snapshots", dict(await bench.driver.list_snapshots()), before | wanted)
    await bench.driver.delete_snapshot(made[0])
    del wanted[made[0].name]
    expect("snapshots", dict(await bench.driver.list_snapshots()), before | wanted)


@specifies(13)
async def a_half_made_snapshot_is_listed_until_it_is_deleted(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    half = new_snapshot(volume)
    await bench.begin_snapshot(half)
    expect("its volume in the list", (await bench.driver.list_snapshots()).get(half.name), volume.name)
    await bench.driver.delete_snapshot(half)
    await expect_names(bench, volume)
    await expect_block(bench, volume, 0x11)


SPECIFICATIONS = collected(globals())
