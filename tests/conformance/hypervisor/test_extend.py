"""Guarantee 14 of nova_lite/ports/hypervisor.py, for every hypervisor: a disk that has grown is shown in its new size."""

import pytest

from common.base.ids import new_uuid
from nova_lite.errors import HypervisorRefused, HypervisorUnavailable, VolumeBDMNotFound
from tests.conformance.hypervisor.bench import VOLUME_BYTES, Bench, spawned

LAST = 2 * VOLUME_BYTES - 512
"""Where the second half of a volume of twice its size ends."""


async def test_14_a_machine_reads_and_writes_what_its_disk_has_grown_by(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    volume_id = info["serial"]
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    await bench.hypervisor.write_pattern(uuid, volume_id, pattern=0x11, offset=0, length=512)
    with pytest.raises(HypervisorRefused):
        await bench.hypervisor.write_pattern(uuid, volume_id, pattern=0x22, offset=LAST, length=512)
    bench.grow(info, 2 * VOLUME_BYTES)
    for _ in range(2):
        await bench.hypervisor.extend_volume(info, uuid, 2 * VOLUME_BYTES)
    await bench.hypervisor.write_pattern(uuid, volume_id, pattern=0x22, offset=LAST, length=512)
    assert await bench.hypervisor.verify_pattern(uuid, volume_id, pattern=0x22, offset=LAST, length=512)
    assert await bench.hypervisor.verify_pattern(uuid, volume_id, pattern=0x11, offset=0, length=512)
    assert bench.stored(info, LAST, 512) in {None, b"\x22" * 512}
    assert await bench.hypervisor.disks(uuid) == {volume_id: "/dev/vdb"}


async def test_14_a_storage_that_has_not_grown_is_told_as_such_and_stays_so(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    bench.grow(info, VOLUME_BYTES)
    with pytest.raises(HypervisorRefused):
        await bench.hypervisor.extend_volume(info, uuid, 2 * VOLUME_BYTES)
    with pytest.raises(HypervisorRefused):
        await bench.hypervisor.write_pattern(uuid, info["serial"], pattern=0x22, offset=LAST, length=512)


async def test_14_a_disk_that_the_machine_has_not_and_a_machine_that_is_not_there_are_told_apart(bench: Bench) -> None:
    uuid, info = await spawned(bench.hypervisor), bench.volume()
    with pytest.raises(VolumeBDMNotFound):
        await bench.hypervisor.extend_volume(info, uuid, VOLUME_BYTES)
    with pytest.raises(HypervisorUnavailable):
        await bench.hypervisor.extend_volume(info, new_uuid(), VOLUME_BYTES)
