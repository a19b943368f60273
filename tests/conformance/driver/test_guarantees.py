"""The numbered guarantees of cinder_lite/ports/driver.py, for every driver."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cinder_lite.errors import VolumeBackendAPIException, VolumeIsBusy
from tests.conformance.driver.rigs import GIB, FakeRig, FileRig, Rig, SimulatedRig, volume

RIGS: dict[str, Callable[[Path], Rig]] = {"fake": lambda _: FakeRig(), "file": FileRig, "simulation": lambda _: SimulatedRig()}


@pytest.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    made = RIGS[request.param](tmp_path)
    await made.driver.check_for_setup_error()
    return made


async def test_1_a_created_volume_is_there_with_its_whole_size(rig: Rig) -> None:
    new = volume(3)
    await rig.driver.create_volume(new)
    assert rig.names() == {new.name}
    assert rig.size_of(new.name) == 3 * GIB


async def test_1_creating_it_again_changes_nothing(rig: Rig) -> None:
    new = volume(6)  # more than half of the place: it must not be counted twice
    await rig.driver.create_volume(new)
    await rig.driver.create_volume(new)
    assert rig.size_of(new.name) == 6 * GIB


async def test_1_a_volume_of_that_name_and_another_size_is_refused_and_kept(rig: Rig) -> None:
    new = volume(1)
    await rig.driver.create_volume(new)
    with pytest.raises(VolumeBackendAPIException, match="wanted 2 GiB"):
        await rig.driver.create_volume(msgspec.structs.replace(new, size=2))
    assert rig.size_of(new.name) == GIB


async def test_2_nothing_is_left_of_a_deleted_volume(rig: Rig) -> None:
    gone, kept = volume(), volume()
    await rig.driver.create_volume(gone)
    await rig.driver.create_volume(kept)
    await rig.driver.delete_volume(gone)
    assert rig.names() == {kept.name}


async def test_2_deleting_a_volume_that_is_gone_changes_nothing(rig: Rig) -> None:
    await rig.driver.delete_volume(volume())
    assert rig.names() == set()


async def test_2_a_volume_in_use_is_not_deleted(rig: Rig) -> None:
    used = volume()
    await rig.driver.create_volume(used)
    async with rig.used(used):
        with pytest.raises(VolumeIsBusy, match=used.name):
            await rig.driver.delete_volume(used)
        assert rig.names() == {used.name}
    await rig.driver.delete_volume(used)
    assert rig.names() == set()


async def test_3_the_path_is_absolute_and_stays(rig: Rig) -> None:
    new = volume()
    before = rig.driver.local_path(new)
    await rig.driver.create_volume(new)
    assert before.startswith("/")
    assert rig.driver.local_path(msgspec.structs.replace(new, display_name="renamed", size=1)) == before
    assert rig.driver.local_path(volume()) != before


async def test_4_the_report_counts_every_volume_at_its_full_size(rig: Rig) -> None:
    empty = await rig.driver.get_volume_stats()
    assert (empty.total_capacity_gb, empty.provisioned_capacity_gb) == (10, 0)
    await rig.driver.create_volume(volume(2))
    await rig.driver.create_volume(volume(1))
    full = await rig.driver.get_volume_stats()
    assert full.provisioned_capacity_gb == 3
    assert full.total_capacity_gb == 10
    assert full.free_capacity_gb == pytest.approx(empty.free_capacity_gb - 3, abs=0.1)


async def test_4_what_is_deleted_is_free_again(rig: Rig) -> None:
    new = volume(4)
    await rig.driver.create_volume(new)
    await rig.driver.delete_volume(new)
    stats = await rig.driver.get_volume_stats()
    assert stats.provisioned_capacity_gb == 0
    assert stats.free_capacity_gb == pytest.approx(10, abs=0.1)


async def test_5_a_new_volume_reads_as_zeros(rig: Rig) -> None:
    new = volume(1)
    await rig.driver.create_volume(new)
    for offset in (0, GIB // 2, GIB - 4096):
        assert await rig.read(new, offset, 4096) == bytes(4096)


async def test_6_a_failed_create_leaves_nothing(rig: Rig) -> None:
    rig.break_creating()
    before = rig.names()
    with pytest.raises(VolumeBackendAPIException, match="1 GiB wanted, 0"):
        await rig.driver.create_volume(volume(1))
    assert rig.names() == before


async def test_7_every_volume_is_listed_and_a_deleted_one_no_longer(rig: Rig) -> None:
    assert await rig.driver.list_volumes() == set()
    gone, kept = volume(), volume()
    for new in (gone, kept):
        await rig.driver.create_volume(new)
    assert await rig.driver.list_volumes() == {gone.name, kept.name}
    await rig.driver.delete_volume(gone)
    assert await rig.driver.list_volumes() == {kept.name}


async def test_7_a_half_made_volume_is_listed_until_it_is_deleted(rig: Rig) -> None:
    half = volume()
    rig.begin_creating(half)
    assert await rig.driver.list_volumes() == {half.name}
    await rig.driver.delete_volume(half)
    assert await rig.driver.list_volumes() == set()


async def test_7_what_is_not_ours_is_not_listed(rig: Rig) -> None:
    rig.add_strangers()
    assert await rig.driver.list_volumes() == set()
