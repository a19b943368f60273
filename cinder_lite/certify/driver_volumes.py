"""Guarantees 1 to 8 of cinder_lite/ports/driver.py: volumes by themselves."""

import msgspec

from cinder_lite.certify.driver_bench import GIB, DriverBench, new_volume
from cinder_lite.certify.driver_steps import (
    BLOCK_BYTES,
    expect_block,
    expect_listed,
    expect_names,
    expect_not_listed,
    expect_size,
    made_snapshot,
    made_volume,
)
from cinder_lite.certify.specification import collected, expect, expect_that, refused, specifies
from cinder_lite.domain.capacity import free_virtual_gb
from cinder_lite.errors import VolumeBackendAPIException, VolumeIsBusy

_ABOUT_GIB = 0.1
"""By how much a backend's free room may differ from what was asked for: metadata, rounding to extents."""


async def _too_large(bench: DriverBench) -> int:
    stats = await bench.driver.get_volume_stats()
    return int(max(free_virtual_gb(stats), 0) + stats.total_capacity_gb * stats.max_over_subscription_ratio) + 1


@specifies(1)
async def a_created_volume_is_there_with_its_whole_size(bench: DriverBench) -> None:
    volume = await made_volume(bench, 3)
    await expect_names(bench, volume)
    await expect_size(bench, volume, 3)


@specifies(1)
async def creating_it_again_changes_nothing(bench: DriverBench) -> None:
    volume = await made_volume(bench, 6, byte=0x11)  # more than half of a small place: it must not be counted twice
    await bench.driver.create_volume(volume)
    await expect_size(bench, volume, 6)
    await expect_block(bench, volume, 0x11)
    await expect_names(bench, volume)


@specifies(1)
async def a_volume_of_that_name_and_another_size_is_refused_and_kept(bench: DriverBench) -> None:
    volume = await made_volume(bench, 1, byte=0x11)
    with refused(VolumeBackendAPIException, naming="wanted 2 GiB"):
        await bench.driver.create_volume(msgspec.structs.replace(volume, size=2))
    await expect_size(bench, volume, 1)
    await expect_block(bench, volume, 0x11)


@specifies(1)
async def the_last_block_of_a_volume_can_be_written_and_read(bench: DriverBench) -> None:
    volume = await made_volume(bench, 2, byte=0x11, offset=2 * GIB - BLOCK_BYTES)
    await expect_block(bench, volume, 0x11, offset=2 * GIB - BLOCK_BYTES)


@specifies(2)
async def nothing_is_left_of_a_deleted_volume(bench: DriverBench) -> None:
    gone, kept = await made_volume(bench), await made_volume(bench, byte=0x11)
    await bench.driver.delete_volume(gone)
    await expect_names(bench, kept)
    await expect_block(bench, kept, 0x11, of="the one that was not deleted")


@specifies(2)
async def deleting_a_volume_that_is_gone_changes_nothing(bench: DriverBench) -> None:
    await bench.driver.delete_volume(new_volume())
    volume = await made_volume(bench)
    await bench.driver.delete_volume(volume)
    await bench.driver.delete_volume(volume)
    await expect_names(bench)


@specifies(2)
async def a_volume_in_use_is_not_deleted(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    async with bench.used(volume):
        with refused(VolumeIsBusy, naming=volume.name):
            await bench.driver.delete_volume(volume)
        await expect_names(bench, volume)
    await expect_block(bench, volume, 0x11)
    await bench.driver.delete_volume(volume)
    await expect_names(bench)


@specifies(2)
async def a_volume_with_a_snapshot_is_not_deleted(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    snapshot = await made_snapshot(bench, volume)
    with refused(VolumeIsBusy, naming=volume.name):
        await bench.driver.delete_volume(volume)
    await expect_names(bench, volume, snapshot)
    await expect_block(bench, volume, 0x11)
    await bench.driver.delete_snapshot(snapshot)
    await bench.driver.delete_volume(volume)
    await expect_names(bench)


@specifies(2)
async def the_name_of_a_deleted_volume_is_free(bench: DriverBench) -> None:
    volume = await made_volume(bench, 1)
    await bench.driver.delete_volume(volume)
    again = msgspec.structs.replace(volume, size=2)
    await bench.driver.create_volume(again)
    await expect_size(bench, again, 2)


@specifies(3)
async def the_path_of_a_volume_is_its_own_and_stays(bench: DriverBench) -> None:
    volume = new_volume()
    before = bench.driver.local_path(volume)
    await bench.driver.create_volume(volume)
    expect_that(before.startswith(("/", "rbd:")), f"local_path {before} is neither an absolute path nor a target's address")
    renamed = msgspec.structs.replace(volume, display_name="renamed", size=1)
    expect("local_path of the same volume", bench.driver.local_path(renamed), before)
    expect_that(bench.driver.local_path(new_volume()) != before, f"two volumes have the path {before}")


@specifies(4)
async def a_report_says_which_backend_it_is_of(bench: DriverBench) -> None:
    stats = await bench.driver.get_volume_stats()
    for key in ("volume_backend_name", "storage_protocol", "driver_version", "pool_name"):
        expect_that(bool(getattr(stats, key)), f"{key} is empty")
    expect_that(
        0 <= stats.free_capacity_gb <= stats.total_capacity_gb,
        f"{stats.free_capacity_gb} GiB are free of {stats.total_capacity_gb} GiB",
    )
    expect_that(stats.total_capacity_gb >= 10, f"{stats.total_capacity_gb} GiB in all; these specifications need 10 GiB")


@specifies(4)
async def every_volume_is_provisioned_at_its_full_size(bench: DriverBench) -> None:
    before = await bench.driver.get_volume_stats()
    await made_volume(bench, 2)
    await made_volume(bench, 1)
    after = await bench.driver.get_volume_stats()
    expect("GiB provisioned", after.provisioned_capacity_gb - before.provisioned_capacity_gb, 3.0)
    expect("GiB in all", after.total_capacity_gb, before.total_capacity_gb)
    if not after.thin_provisioning_support:
        off = abs(before.free_capacity_gb - after.free_capacity_gb - 3)
        expect_that(off < _ABOUT_GIB, f"free room fell from {before.free_capacity_gb} to {after.free_capacity_gb} GiB for 3 GiB")


@specifies(4)
async def what_is_deleted_is_free_again(bench: DriverBench) -> None:
    before = await bench.driver.get_volume_stats()
    await bench.driver.delete_volume(await made_volume(bench, 4))
    after = await bench.driver.get_volume_stats()
    expect("GiB provisioned", after.provisioned_capacity_gb, before.provisioned_capacity_gb)
    off = abs(before.free_capacity_gb - after.free_capacity_gb)
    expect_that(off < _ABOUT_GIB, f"free room was {before.free_capacity_gb} GiB and is {after.free_capacity_gb} GiB")


@specifies(4)
async def an_extended_volume_is_provisioned_at_its_new_size(bench: DriverBench) -> None:
    volume = await made_volume(bench, 1)
    before = await bench.driver.get_volume_stats()
    await bench.driver.extend_volume(volume, 3)
    after = await bench.driver.get_volume_stats()
    expect("GiB provisioned", after.provisioned_capacity_gb - before.provisioned_capacity_gb, 2.0)


@specifies(4)
async def a_snapshot_is_not_provisioned(bench: DriverBench) -> None:
    volume = await made_volume(bench)
    before = await bench.driver.get_volume_stats()
    await made_snapshot(bench, volume)
    after = await bench.driver.get_volume_stats()
    expect("GiB provisioned", after.provisioned_capacity_gb, before.provisioned_capacity_gb)


@specifies(5)
async def a_new_volume_reads_as_zeros(bench: DriverBench) -> None:
    volume = await made_volume(bench, 1)
    for offset in (0, GIB // 2, GIB - BLOCK_BYTES):
        await expect_block(bench, volume, 0, offset=offset)


@specifies(5)
async def nothing_of_a_deleted_volume_is_seen_in_the_next(bench: DriverBench) -> None:
    old = await made_volume(bench, 1)
    offsets = (0, GIB // 2, GIB - BLOCK_BYTES)
    for offset in offsets:
        await bench.write(old, offset, b"\x5a" * BLOCK_BYTES)
    await bench.driver.delete_volume(old)
    new = await made_volume(bench, 1)
    for offset in offsets:
        await expect_block(bench, new, 0, offset=offset, of="the next volume")


@specifies(6)
async def a_volume_that_does_not_fit_is_refused_and_leaves_nothing(bench: DriverBench) -> None:
    volume = new_volume(await _too_large(bench))
    with refused(VolumeBackendAPIException, naming="GiB"):
        await bench.driver.create_volume(volume)
    await expect_names(bench)
    await expect_not_listed(bench, volume)


@specifies(6)
async def a_clone_that_does_not_fit_is_refused_and_leaves_nothing(bench: DriverBench) -> None:
    source = await made_volume(bench, byte=0x11)
    clone = new_volume(await _too_large(bench))
    with refused(VolumeBackendAPIException):
        await bench.driver.create_cloned_volume(clone, source)
    await expect_names(bench, source)
    await expect_block(bench, source, 0x11, of="the source")


@specifies(6)
async def a_volume_from_a_snapshot_that_does_not_fit_is_refused_and_leaves_nothing(bench: DriverBench) -> None:
    source = await made_volume(bench)
    snapshot = await made_snapshot(bench, source)
    with refused(VolumeBackendAPIException):
        await bench.driver.create_volume_from_snapshot(new_volume(await _too_large(bench)), snapshot)
    await expect_names(bench, source, snapshot)


@specifies(7)
async def every_volume_is_listed_and_a_deleted_one_no_longer(bench: DriverBench) -> None:
    gone, kept = await made_volume(bench), await made_volume(bench)
    await expect_listed(bench, gone, kept)
    await bench.driver.delete_volume(gone)
    await expect_listed(bench, kept)
    await expect_not_listed(bench, gone)


@specifies(7)
async def a_half_made_volume_is_listed_until_it_is_deleted(bench: DriverBench) -> None:
    half = new_volume()
    await bench.begin_volume(half)
    await expect_listed(bench, half)
    await bench.driver.delete_volume(half)
    await expect_not_listed(bench, half)
    await expect_names(bench)


@specifies(7)
async def what_is_not_ours_is_not_listed(bench: DriverBench) -> None:
    volumes, snapshots = await bench.driver.list_volumes(), await bench.driver.list_snapshots()
    await bench.add_strangers()
    expect("volumes", await bench.driver.list_volumes(), volumes)
    expect("snapshots", dict(await bench.driver.list_snapshots()), dict(snapshots))


@specifies(7)
async def a_snapshot_is_not_listed_as_a_volume(bench: DriverBench) -> None:
    volume = await made_volume(bench)
    before = await bench.driver.list_volumes()
    await made_snapshot(bench, volume)
    expect("volumes", await bench.driver.list_volumes(), before)


@specifies(8)
async def an_extended_volume_has_its_new_size_and_its_old_bytes(bench: DriverBench) -> None:
    volume = await made_volume(bench, 1, byte=0x11, offset=GIB - BLOCK_BYTES)
    await bench.driver.extend_volume(volume, 3)
    await expect_size(bench, volume, 3)
    await expect_block(bench, volume, 0x11, offset=GIB - BLOCK_BYTES)


@specifies(8)
async def what_an_extension_adds_reads_as_zeros(bench: DriverBench) -> None:
    old = await made_volume(bench, 2)
    for offset in (0, GIB, 2 * GIB - BLOCK_BYTES):
        await bench.write(old, offset, b"\x5a" * BLOCK_BYTES)
    volume = await made_volume(bench, 1)
    await bench.driver.delete_volume(old)
    await bench.driver.extend_volume(volume, 3)
    for offset in (GIB, 2 * GIB, 3 * GIB - BLOCK_BYTES):
        await expect_block(bench, volume, 0, offset=offset)


@specifies(8)
async def extending_to_the_size_that_it_has_changes_nothing(bench: DriverBench) -> None:
    volume = await made_volume(bench, 1, byte=0x11)
    await bench.driver.extend_volume(volume, 1)
    await expect_size(bench, volume, 1)
    for _ in range(2):
        await bench.driver.extend_volume(volume, 2)
    await expect_size(bench, volume, 2)
    await expect_block(bench, volume, 0x11)


@specifies(8)
async def a_volume_is_never_made_smaller(bench: DriverBench) -> None:
    volume = await made_volume(bench, 2, byte=0x11, offset=2 * GIB - BLOCK_BYTES)
    with refused(VolumeBackendAPIException, naming="wanted 1 GiB"):
        await bench.driver.extend_volume(volume, 1)
    await expect_size(bench, volume, 2)
    await expect_block(bench, volume, 0x11, offset=2 * GIB - BLOCK_BYTES)


@specifies(8)
async def a_volume_that_is_not_there_is_not_extended(bench: DriverBench) -> None:
    missing = new_volume()
    with refused(VolumeBackendAPIException, naming=missing.name):
        await bench.driver.extend_volume(missing, 2)
    await expect_names(bench)


@specifies(8)
async def a_volume_is_extended_while_it_is_in_use(bench: DriverBench) -> None:
    volume = await made_volume(bench, 1, byte=0x11)
    async with bench.used(volume):
        await bench.driver.extend_volume(volume, 2)
    await expect_size(bench, volume, 2)
    await expect_block(bench, volume, 0x11)


@specifies(8)
async def an_extension_without_room_is_refused_and_the_volume_stays(bench: DriverBench) -> None:
    volume = await made_volume(bench, 1, byte=0x11)
    with refused(VolumeBackendAPIException):
        await bench.driver.extend_volume(volume, await _too_large(bench))
    await expect_size(bench, volume, 1)
    await expect_block(bench, volume, 0x11)


@specifies(8)
async def a_volume_with_a_snapshot_is_extended_and_the_snapshot_stays(bench: DriverBench) -> None:
    volume = await made_volume(bench, 1, byte=0x11)
    snapshot = await made_snapshot(bench, volume)
    await bench.driver.extend_volume(volume, 2)
    await expect_size(bench, volume, 2)
    made = new_volume(1)
    await bench.driver.create_volume_from_snapshot(made, snapshot)
    await expect_block(bench, made, 0x11, of="what was made from the snapshot")


SPECIFICATIONS = collected(globals())
