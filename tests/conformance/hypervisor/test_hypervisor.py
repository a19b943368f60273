"""The port's suite: every adapter of nova_lite.ports.hypervisor runs it. Names carry the numbers of the port's guarantees."""

import asyncio
import logging

import pytest

from common.base.errors import Fault, Invalid
from common.base.ids import new_uuid
from nova_lite.errors import (
    DeviceDetachFailed,
    HypervisorRefused,
    HypervisorUnavailable,
    TooManyDiskDevices,
    VolumeBDMNotFound,
)
from tests.conformance.hypervisor.bench import DISKS_MAX, SECRET, VOLUME_BYTES, WILFUL, Bench, instance, spawned

BLOCK = 4096


async def test_1_a_spawned_machine_is_listed_and_has_no_disks(bench: Bench) -> None:
    uuid = await spawned(bench.hypervisor)
    assert await bench.hypervisor.list_instances() == {uuid}
    assert await bench.hypervisor.disks(uuid) == {}


async def test_1_spawning_again_leaves_the_machine_and_its_disks(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    await bench.hypervisor.spawn(instance(uuid))
    assert await bench.hypervisor.disks(uuid) == {info["serial"]: "/dev/vdb"}


async def test_1_a_machine_that_died_can_be_spawned_anew(bench: Bench) -> None:
    uuid = await spawned(bench.hypervisor)
    await bench.kill(uuid)
    await bench.hypervisor.spawn(instance(uuid))
    assert await bench.hypervisor.list_instances() == {uuid}
    assert await bench.hypervisor.disks(uuid) == {}


async def test_2_a_destroyed_machine_leaves_nothing_behind(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    await bench.hypervisor.destroy(uuid)
    assert await bench.hypervisor.list_instances() == set()
    assert bench.sessions(info) == 0
    assert bench.files(uuid) == []
    assert bench.processes(uuid) == []


async def test_2_destroying_what_is_gone_does_nothing(bench: Bench) -> None:
    uuid = await spawned(bench.hypervisor)
    await bench.hypervisor.destroy(uuid)
    await bench.hypervisor.destroy(uuid)
    await bench.hypervisor.destroy(new_uuid())


async def test_2_a_dead_machine_can_be_destroyed(bench: Bench) -> None:
    uuid = await spawned(bench.hypervisor)
    await bench.kill(uuid)
    await bench.hypervisor.destroy(uuid)
    assert bench.files(uuid) == []
    assert bench.processes(uuid) == []


async def test_3_what_the_machine_writes_is_on_the_volume(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    await bench.hypervisor.write_pattern(uuid, info["serial"], pattern=0x5A, offset=BLOCK, length=BLOCK)
    stored = bench.stored(info, 0, 3 * BLOCK)
    assert stored in (None, bytes(BLOCK) + b"\x5a" * BLOCK + bytes(BLOCK))
    assert await bench.hypervisor.verify_pattern(uuid, info["serial"], pattern=0x5A, offset=BLOCK, length=BLOCK)


async def test_3_attaching_again_does_nothing(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    for _ in range(2):
        await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    assert await bench.hypervisor.disks(uuid) == {info["serial"]: "/dev/vdb"}


async def test_3_a_full_machine_takes_no_more_until_a_disk_has_left(bench: Bench) -> None:
    uuid, infos = await spawned(bench.hypervisor), [bench.volume() for _ in range(DISKS_MAX + 1)]
    for letter, info in zip("bcd", infos, strict=False):
        await bench.hypervisor.attach_volume(info, uuid, f"/dev/vd{letter}")
    with pytest.raises(TooManyDiskDevices):
        await bench.hypervisor.attach_volume(infos[-1], uuid, "/dev/vde")
    await bench.hypervisor.attach_volume(infos[0], uuid, "/dev/vdb")
    await bench.hypervisor.detach_volume(infos[1]["serial"], uuid)
    await bench.hypervisor.attach_volume(infos[-1], uuid, "/dev/vdc")
    assert await bench.hypervisor.disks(uuid) == {
        infos[0]["serial"]: "/dev/vdb",
        infos[2]["serial"]: "/dev/vdd",
        infos[-1]["serial"]: "/dev/vdc",
    }


async def test_3_volumes_attached_at_once_all_arrive(bench: Bench) -> None:
    uuid, infos = await spawned(bench.hypervisor), [bench.volume() for _ in range(DISKS_MAX)]
    async with asyncio.TaskGroup() as group:
        for letter, info in zip("bcd", infos, strict=True):
            group.create_task(bench.hypervisor.attach_volume(info, uuid, f"/dev/vd{letter}"))
    assert set(await bench.hypervisor.disks(uuid)) == {info["serial"] for info in infos}


async def test_4_a_detached_volume_is_free_of_the_machine(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    await bench.hypervisor.write_pattern(uuid, info["serial"], pattern=7, offset=0, length=BLOCK)
    await bench.hypervisor.detach_volume(info["serial"], uuid)
    assert await bench.hypervisor.disks(uuid) == {}
    assert await bench.parts(uuid) == set()
    assert bench.sessions(info) == 0


async def test_4_detaching_what_is_not_attached_does_nothing(bench: Bench) -> None:
    uuid = await spawned(bench.hypervisor)
    await bench.hypervisor.detach_volume(new_uuid(), uuid)


@pytest.mark.parametrize("bench", WILFUL, indirect=True)
async def test_4_a_guest_that_keeps_the_disk_is_told_of_and_the_disk_stays(bench: Bench) -> None:
    stubborn = bench.stubborn()
    assert stubborn is not None
    uuid, info = await spawned(stubborn), bench.volume()
    await stubborn.attach_volume(info, uuid, "/dev/vdb")
    with pytest.raises(DeviceDetachFailed):
        await stubborn.detach_volume(info["serial"], uuid)
    assert await stubborn.disks(uuid) == {info["serial"]: "/dev/vdb"}
    await stubborn.write_pattern(uuid, info["serial"], pattern=9, offset=0, length=BLOCK)


async def test_5_disks_forgets_one_that_left_and_knows_one_that_came_back(bench: Bench) -> None:
    uuid, first, second = await spawned(bench.hypervisor), bench.volume(), bench.volume()
    await bench.hypervisor.attach_volume(first, uuid, "/dev/vdb")
    await bench.hypervisor.attach_volume(second, uuid, "/dev/vdc")
    await bench.hypervisor.detach_volume(first["serial"], uuid)
    assert await bench.hypervisor.disks(uuid) == {second["serial"]: "/dev/vdc"}
    await bench.hypervisor.attach_volume(first, uuid, "/dev/vdd")
    assert await bench.hypervisor.disks(uuid) == {second["serial"]: "/dev/vdc", first["serial"]: "/dev/vdd"}


async def test_6_a_refused_attachment_leaves_the_machine_as_it_was(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    before, refused = await bench.parts(uuid), bench.refusable()
    with pytest.raises(HypervisorRefused):
        await bench.hypervisor.attach_volume(refused, uuid, "/dev/vdc")
    assert await bench.parts(uuid) == before
    assert await bench.hypervisor.disks(uuid) == {info["serial"]: "/dev/vdb"}


async def test_6_an_unknown_kind_of_volume_is_refused(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume() | {"driver_volume_type": "smoke_signals"}
    with pytest.raises(HypervisorRefused):
        await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    assert await bench.hypervisor.disks(uuid) == {}


async def test_7_a_machine_that_died_is_not_listed_and_cannot_be_acted_on(bench: Bench) -> None:
    uuid, other, info = await spawned(bench.hypervisor), await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    await bench.kill(uuid)
    assert await bench.hypervisor.list_instances() == {other}
    with pytest.raises(HypervisorUnavailable):
        await bench.hypervisor.attach_volume(bench.volume(), uuid, "/dev/vdc")
    with pytest.raises(HypervisorUnavailable):
        await bench.hypervisor.detach_volume(info["serial"], uuid)
    with pytest.raises(HypervisorUnavailable):
        await bench.hypervisor.disks(uuid)


async def test_7_a_machine_that_never_was_cannot_be_acted_on(bench: Bench) -> None:
    with pytest.raises(HypervisorUnavailable):
        await bench.hypervisor.attach_volume(bench.volume(), new_uuid(), "/dev/vdb")


async def test_8_another_object_finds_the_machines_and_goes_on_with_them(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    await bench.hypervisor.write_pattern(uuid, info["serial"], pattern=3, offset=0, length=BLOCK)
    await bench.hypervisor.close()
    successor = bench.restarted()
    assert await successor.list_instances() == {uuid}
    assert await successor.disks(uuid) == {info["serial"]: "/dev/vdb"}
    assert await successor.verify_pattern(uuid, info["serial"], pattern=3, offset=0, length=BLOCK)
    await successor.attach_volume(info, uuid, "/dev/vdb")
    await successor.detach_volume(info["serial"], uuid)
    await successor.destroy(uuid)
    assert await bench.hypervisor.list_instances() == set()


async def test_9_no_secret_is_seen_outside(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    uuid, info, refused = await spawned(bench.hypervisor), bench.volume(), bench.refusable()
    with pytest.raises(Fault) as failure:
        await bench.hypervisor.attach_volume(refused, uuid, "/dev/vdb")
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    shown = f"{failure.value!r} {failure.value.fields} {failure.value.__cause__!r} {caplog.text} {bench.hypervisor!r}"
    assert SECRET not in shown
    assert SECRET.encode() not in bench.traces(uuid)


@pytest.mark.parametrize("bench", WILFUL, indirect=True)
async def test_10_a_machine_that_hangs_does_not_hold_up_another(bench: Bench) -> None:
    hung, sound, info = await spawned(bench.hypervisor), await spawned(bench.hypervisor), bench.volume()
    impatient = bench.hang(hung)
    assert impatient is not None
    ended: list[str] = []

    async def on_the_hung_one() -> None:
        with pytest.raises(HypervisorUnavailable):
            await impatient.disks(hung)
        ended.append("hung")

    async def on_the_sound_one() -> None:
        await impatient.attach_volume(info, sound, "/dev/vdb")
        await impatient.detach_volume(info["serial"], sound)
        ended.append("sound")

    async with asyncio.timeout(15), asyncio.TaskGroup() as group:
        group.create_task(on_the_hung_one())
        group.create_task(on_the_sound_one())
    assert set(ended) == {"hung", "sound"}
    assert bench.restarted().kind == "fake" or ended[0] == "sound"


@pytest.mark.parametrize("bench", WILFUL, indirect=True)
async def test_10_a_machine_that_hangs_can_be_destroyed(bench: Bench) -> None:
    uuid = await spawned(bench.hypervisor)
    impatient = bench.hang(uuid)
    assert impatient is not None
    await impatient.destroy(uuid)
    assert await bench.hypervisor.list_instances() == set()
    assert bench.processes(uuid) == []


async def test_11_of_sound_machines_nothing_is_left_over(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    assert await bench.hypervisor.leftovers() == {}
    await bench.hypervisor.detach_volume(info["serial"], uuid)
    await bench.hypervisor.destroy(uuid)
    assert await bench.hypervisor.leftovers() == {}


async def test_11_what_a_dead_machine_left_is_told_until_it_is_destroyed(bench: Bench) -> None:
    dead, alive = await spawned(bench.hypervisor), await spawned(bench.hypervisor)
    await bench.kill(dead)
    found = await bench.restarted().leftovers()
    assert set(found) == {dead}
    assert any(dead in part for part in found[dead])
    await bench.hypervisor.destroy(dead)
    assert await bench.hypervisor.leftovers() == {}
    assert await bench.hypervisor.list_instances() == {alive}


async def test_11_a_machine_that_was_spawned_anew_left_nothing(bench: Bench) -> None:
    uuid = await spawned(bench.hypervisor)
    await bench.kill(uuid)
    await bench.hypervisor.spawn(instance(uuid))
    assert await bench.hypervisor.leftovers() == {}


@pytest.mark.parametrize("bench", WILFUL, indirect=True)
async def test_11_a_machine_that_hangs_is_passed_over(bench: Bench) -> None:
    hung, dead = await spawned(bench.hypervisor), await spawned(bench.hypervisor)
    await bench.kill(dead)
    impatient = bench.hang(hung)
    assert impatient is not None
    assert set(await impatient.leftovers()) == {dead}


async def test_12_a_machine_that_was_powered_off_leaves_nothing_and_starts_anew(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    await bench.hypervisor.write_pattern(uuid, info["serial"], pattern=0x77, offset=0, length=512)
    await bench.hypervisor.power_off(uuid, timeout_s=0.1)
    assert await bench.hypervisor.list_instances() == set()
    assert await bench.hypervisor.leftovers() == {}
    assert bench.sessions(info) == 0
    await bench.hypervisor.spawn(instance(uuid))
    assert await bench.hypervisor.disks(uuid) == {}
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    assert await bench.hypervisor.verify_pattern(uuid, info["serial"], pattern=0x77, offset=0, length=512)


async def test_12_powering_off_what_is_off_or_never_was_does_nothing(bench: Bench) -> None:
    uuid = await spawned(bench.hypervisor)
    for _ in range(2):
        await bench.hypervisor.power_off(uuid, timeout_s=0)
    await bench.hypervisor.power_off(new_uuid(), timeout_s=0)


async def test_13_a_disk_of_another_size_is_refused_and_the_guest_has_not_seen_it(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    before = await bench.parts(uuid)
    with pytest.raises(HypervisorRefused, match=rf"has {VOLUME_BYTES} bytes, and the volume has 1 GiB: it is another one"):
        await bench.hypervisor.attach_volume(bench.sized(info, 1), uuid, "/dev/vdb")
    assert await bench.parts(uuid) == before
    assert await bench.hypervisor.disks(uuid) == {}
    assert bench.sessions(info) == 0


async def test_13_a_disk_of_the_volumes_size_is_taken_rounded_up_as_storage_may(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(bench.sized(info, 0), uuid, "/dev/vdb")
    assert await bench.hypervisor.disks(uuid) == {info["serial"]: "/dev/vdb"}


async def test_a_volume_moves_to_another_machine_with_what_was_written(bench: Bench) -> None:
    one, other, info = await spawned(bench.hypervisor), await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(info, one, "/dev/vdb")
    await bench.hypervisor.write_pattern(one, info["serial"], pattern=0xC3, offset=512, length=512)
    await bench.hypervisor.detach_volume(info["serial"], one)
    await bench.hypervisor.attach_volume(info, other, "/dev/vdc")
    assert await bench.hypervisor.verify_pattern(other, info["serial"], pattern=0xC3, offset=512, length=512)
    assert not await bench.hypervisor.verify_pattern(other, info["serial"], pattern=0xC3, offset=0, length=1024)
    assert await bench.hypervisor.verify_pattern(other, info["serial"], pattern=0, offset=0, length=512)


async def test_a_pattern_needs_a_volume_that_the_machine_has(bench: Bench) -> None:
    uuid, volume_id = await spawned(bench.hypervisor), new_uuid()
    with pytest.raises(VolumeBDMNotFound, match=volume_id):
        await bench.hypervisor.write_pattern(uuid, volume_id, pattern=1, offset=0, length=512)
    with pytest.raises(VolumeBDMNotFound, match=volume_id):
        await bench.hypervisor.verify_pattern(uuid, volume_id, pattern=1, offset=0, length=512)


async def test_a_pattern_beyond_the_end_is_refused_and_the_volume_does_not_grow(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    with pytest.raises(HypervisorRefused):
        await bench.hypervisor.write_pattern(uuid, info["serial"], pattern=1, offset=VOLUME_BYTES, length=512)
    with pytest.raises(HypervisorRefused):
        await bench.hypervisor.verify_pattern(uuid, info["serial"], pattern=1, offset=VOLUME_BYTES - 512, length=1024)
    assert len(bench.stored(info, 0, 2 * VOLUME_BYTES) or bytes(VOLUME_BYTES)) == VOLUME_BYTES


@pytest.mark.parametrize(
    ("pattern", "offset", "length"), [(256, 0, 512), (-1, 0, 512), (1, 1, 512), (1, 0, 100), (1, 0, 0), (1, -512, 512)]
)
async def test_a_pattern_that_is_no_byte_or_no_range_of_sectors_is_invalid(
    bench: Bench, pattern: int, offset: int, length: int
) -> None:
    with pytest.raises(Invalid):
        await bench.hypervisor.write_pattern(new_uuid(), new_uuid(), pattern=pattern, offset=offset, length=length)


async def test_disks_bear_names_under_the_prefix(bench: Bench) -> None:
    assert bench.hypervisor.device_prefix == "/dev/vd"
    assert bench.hypervisor.disks_max == DISKS_MAX
