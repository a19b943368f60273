"""Guarantees 14 and 15 of cinder_lite/ports/driver.py: what was broken off, and what is asked at once."""

import asyncio
from functools import partial

from cinder_lite.certify.driver_bench import GIB, DriverBench, new_snapshot, new_volume
from cinder_lite.certify.driver_steps import (
    BLOCK_BYTES,
    block,
    cancelled_anywhere,
    expect_block,
    expect_listed,
    expect_names,
    expect_size,
    made_snapshot,
    made_volume,
)
from cinder_lite.certify.specification import NotStaged, collected, expect, expect_that, specifies
from cinder_lite.domain.capacity import free_virtual_gb
from cinder_lite.errors import VolumeBackendAPIException

_FILLED_GIB_MAX = 64
"""A larger place is not filled up only to see what happens."""


@specifies(14)
async def a_half_made_volume_is_made_whole_by_asking_again(bench: DriverBench) -> None:
    volume = new_volume(2)
    await bench.begin_volume(volume)
    await bench.driver.create_volume(volume)
    await expect_size(bench, volume, 2)
    await expect_block(bench, volume, 0)
    await expect_names(bench, volume)


@specifies(14)
async def a_half_made_snapshot_is_made_whole_by_asking_again(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    snapshot = new_snapshot(volume)
    await bench.begin_snapshot(snapshot)
    await bench.write(volume, 0, block(0x22))
    await bench.driver.create_snapshot(snapshot)
    made = new_volume()
    await bench.driver.create_volume_from_snapshot(made, snapshot)
    found = set(await bench.read(made, 0, BLOCK_BYTES))
    expect_that(found in ({0x11}, {0x22}), f"the snapshot kept {sorted(found)}, which the volume did not hold at any moment")
    await expect_block(bench, made, 0, offset=GIB // 2, of="what was made from the snapshot")


@specifies(14)
async def a_half_made_clone_is_never_taken_for_the_whole(bench: DriverBench) -> None:
    source, clone = await made_volume(bench, byte=0x11), new_volume()
    await bench.begin_clone(clone, source)
    await bench.driver.create_cloned_volume(clone, source)
    for offset, byte in ((0, 0x11), (GIB // 2, 0)):
        await expect_block(bench, clone, byte, offset=offset, of="the clone")
    await bench.driver.delete_volume(source)
    await expect_names(bench, clone)
    await expect_block(bench, clone, 0x11, of="the clone")


@specifies(14)
async def a_half_made_clone_is_deleted_and_its_source_stays(bench: DriverBench) -> None:
    source, clone = await made_volume(bench, byte=0x11), new_volume()
    await bench.begin_clone(clone, source)
    await bench.driver.delete_volume(clone)
    await expect_names(bench, source)
    await expect_block(bench, source, 0x11, of="the source")
    await bench.driver.delete_volume(source)
    await expect_names(bench)


@specifies(14)
async def a_create_cancelled_anywhere_is_done_by_asking_again(bench: DriverBench) -> None:
    volume = new_volume()

    async def again() -> None:
        await bench.driver.create_volume(volume)
        await expect_size(bench, volume, 1)
        await bench.driver.delete_volume(volume)
        await expect_names(bench)

    await cancelled_anywhere(partial(bench.driver.create_volume, volume), again)


@specifies(14)
async def a_create_cancelled_anywhere_is_undone_by_deleting(bench: DriverBench) -> None:
    volume = new_volume()

    async def undone() -> None:
        await bench.driver.delete_volume(volume)
        await expect_names(bench)

    await cancelled_anywhere(partial(bench.driver.create_volume, volume), undone)


@specifies(14)
async def a_delete_cancelled_anywhere_is_done_by_asking_again(bench: DriverBench) -> None:
    volume = await made_volume(bench)

    async def again() -> None:
        await bench.driver.delete_volume(volume)
        await expect_names(bench)
        await bench.driver.create_volume(volume)

    await cancelled_anywhere(partial(bench.driver.delete_volume, volume), again)


@specifies(14)
async def an_extension_cancelled_anywhere_is_done_by_asking_again(bench: DriverBench) -> None:
    volume = await made_volume(bench, 1, byte=0x11)
    sizes = iter(range(2, 9))
    size = next(sizes)

    async def again() -> None:
        nonlocal size
        await bench.driver.extend_volume(volume, size)
        await expect_size(bench, volume, size)
        await expect_block(bench, volume, 0x11)
        size = next(sizes)

    await cancelled_anywhere(lambda: bench.driver.extend_volume(volume, size), again)


@specifies(14)
async def a_snapshot_cancelled_anywhere_is_taken_or_deleted_by_asking(bench: DriverBench) -> None:
    volume = await made_volume(bench, byte=0x11)
    snapshot = new_snapshot(volume)

    async def again() -> None:
        await bench.driver.create_snapshot(snapshot)
        await expect_names(bench, volume, snapshot)
        await bench.driver.delete_snapshot(snapshot)
        await expect_names(bench, volume)

    await cancelled_anywhere(partial(bench.driver.create_snapshot, snapshot), again)
    await expect_block(bench, volume, 0x11)


@specifies(14)
async def a_clone_cancelled_anywhere_is_whole_when_asked_again(bench: DriverBench) -> None:
    source, clone = await made_volume(bench, byte=0x11), new_volume()

    async def again() -> None:
        await bench.driver.create_cloned_volume(clone, source)
        await expect_block(bench, clone, 0x11, of="the clone")
        await bench.driver.delete_volume(clone)
        await expect_names(bench, source)

    await cancelled_anywhere(partial(bench.driver.create_cloned_volume, clone, source), again)


@specifies(14)
async def a_volume_from_a_snapshot_cancelled_anywhere_is_undone_by_deleting(bench: DriverBench) -> None:
    source, volume = await made_volume(bench, byte=0x11), new_volume()
    snapshot = await made_snapshot(bench, source)

    async def undone() -> None:
        await bench.driver.delete_volume(volume)
        await expect_names(bench, source, snapshot)

    await cancelled_anywhere(partial(bench.driver.create_volume_from_snapshot, volume, snapshot), undone)
    await bench.driver.delete_snapshot(snapshot)
    await bench.driver.delete_volume(source)
    await expect_names(bench)


@specifies(15)
async def volumes_made_at_once_are_all_there(bench: DriverBench) -> None:
    volumes = [new_volume() for _ in range(6)]
    async with asyncio.TaskGroup() as group:
        for volume in volumes:
            group.create_task(bench.driver.create_volume(volume))
    await expect_names(bench, *volumes)
    await expect_listed(bench, *volumes)
    async with asyncio.TaskGroup() as group:
        for volume in volumes:
            group.create_task(bench.driver.delete_volume(volume))
    await expect_names(bench)


@specifies(15)
async def volumes_asked_for_at_once_never_take_more_than_there_is(bench: DriverBench) -> None:
    stats = await bench.driver.get_volume_stats()
    room = free_virtual_gb(stats)
    if room > _FILLED_GIB_MAX:
        raise NotStaged(f"the place has {room:.0f} GiB free; more than {_FILLED_GIB_MAX} GiB are not filled up for this")
    volumes = [new_volume(int(room * 0.6)) for _ in range(3)]
    results = await asyncio.gather(*(bench.driver.create_volume(volume) for volume in volumes), return_exceptions=True)
    refusals = [result for result in results if isinstance(result, VolumeBackendAPIException)]
    expect("refused of three that fit one at a time", len(refusals), 2)
    expect("made of three that fit one at a time", len(await bench.names()), 1)


@specifies(15)
async def one_source_is_cloned_several_times_at_once(bench: DriverBench) -> None:
    source = await made_volume(bench, byte=0x11)
    clones = [new_volume() for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        for clone in clones:
            group.create_task(bench.driver.create_cloned_volume(clone, source))
    for clone in clones:
        await expect_block(bench, clone, 0x11, of="a clone")
    await expect_names(bench, source, *clones)


@specifies(15)
async def what_is_asked_of_one_volume_does_not_reach_another(bench: DriverBench) -> None:
    kept, changed = await made_volume(bench, byte=0x11), await made_volume(bench, byte=0x22)
    async with asyncio.TaskGroup() as group:
        group.create_task(bench.driver.extend_volume(changed, 2))
        group.create_task(bench.driver.create_snapshot(new_snapshot(kept)))
        group.create_task(bench.driver.create_volume(new_volume()))
    await expect_block(bench, kept, 0x11)
    await expect_size(bench, kept, 1)
    await expect_block(bench, changed, 0x22)
    expect_that(len(await bench.names()) == 4, "something is there that nobody asked for, or is missing")


SPECIFICATIONS = collected(globals())
