"""LVM's driver with device-mapper, on a model of LVM: the sequence of its commands, thick and thin."""

from pathlib import Path

import pytest

from cinder_lite.certify.driver_bench import DriverBench, new_snapshot, new_volume
from cinder_lite.certify.driver_specs import DRIVER_SPECIFICATIONS
from cinder_lite.certify.specification import Specification
from cinder_lite.drivers.lvm import LvmDriver, LvmOptions
from cinder_lite.drivers.lvm_bytes import Clearing
from cinder_lite.errors import DriverNotInitialized, VolumeBackendAPIException, VolumeIsBusy
from tests.support.mapped_lvm import GIB, MappedBench, MappedMachine, Refused


@pytest.fixture(params=["default", "thin"])
async def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DriverBench:
    machine = MappedMachine()
    machine.install(monkeypatch)
    driver = LvmDriver(LvmOptions(lvm_type=request.param))
    await driver.check_for_setup_error()
    return MappedBench(machine, driver)


@pytest.mark.parametrize("specification", DRIVER_SPECIFICATIONS, ids=str)
async def test_specification(bench: DriverBench, specification: Specification[DriverBench]) -> None:
    await specification.check(bench)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> MappedMachine:
    made = MappedMachine()
    made.install(monkeypatch)
    return made


def changes(machine: MappedMachine) -> list[str]:
    """What was asked that changes something, since the last time that it was asked for."""
    lines = [line for line in machine.asked if line.split()[0] not in {"lvs", "vgs", "pvs", "dmsetup"}]
    machine.asked.clear()
    return lines


async def test_a_thick_volume_is_made_cleared_and_removed(machine: MappedMachine) -> None:
    driver, volume = LvmDriver(LvmOptions(lvm_type="default")), new_volume(1)
    await driver.check_for_setup_error()
    await driver.create_volume(volume)
    assert changes(machine) == [f"lvcreate -y -kn -L {GIB}b -n {volume.name} cinder-volumes"]
    await driver.delete_volume(volume)
    path = f"cinder-volumes/{volume.name}"
    assert changes(machine) == [
        f"fallocate --punch-hole --keep-size --offset 0 --length {GIB} /dev/{path}",
        f"lvchange -an --config activation/retry_deactivation=1 {path}",
        f"lvremove -y {path}",
    ]


async def test_a_thick_clone_is_copied_from_a_moment_that_is_cleared_and_removed(machine: MappedMachine) -> None:
    driver, source, clone = LvmDriver(LvmOptions(lvm_type="default")), new_volume(1), new_volume(1)
    await driver.check_for_setup_error()
    await driver.create_volume(source)
    changes(machine)
    await driver.create_cloned_volume(clone, source)
    moment, device = f"clone-snap-{clone.id}", f"/dev/cinder-volumes/{clone.name}"
    cow = f"/dev/mapper/cinder--volumes-{moment.replace('-', '--')}-cow"
    flags = "iflag=count_bytes,fullblock,direct oflag=direct conv=notrunc,sparse,fsync"
    assert changes(machine) == [
        f"lvcreate -y -kn -L {GIB}b --addtag cinder_unfinished -n {clone.name} cinder-volumes",
        f"lvcreate -y -kn -s -L {GIB}b -n {moment} cinder-volumes/{source.name}",
        f"fallocate --punch-hole --keep-size --offset 0 --length {GIB} {device}",
        f"dd if=/dev/cinder-volumes/{moment} of={device} count={GIB} bs=4M {flags}",
        f"fallocate --punch-hole --keep-size --offset 0 --length {GIB} {cow}",
        f"lvremove -y cinder-volumes/{moment}",
        f"lvchange --deltag cinder_unfinished cinder-volumes/{clone.name}",
    ]


async def test_a_thin_clone_shares_blocks_and_nothing_is_copied_or_cleared(machine: MappedMachine) -> None:
    driver, source, clone = LvmDriver(LvmOptions(lvm_type="thin")), new_volume(1), new_volume(2)
    await driver.check_for_setup_error()
    assert changes(machine) == [
        f"lvcreate -y -T -L {int(16 * GIB * 0.95) // 4194304 * 4194304}b cinder-volumes/cinder-volumes-pool"
    ]
    await driver.create_volume(source)
    assert changes(machine) == [f"lvcreate -y -kn -T -V {GIB}b -n {source.name} cinder-volumes/cinder-volumes-pool"]
    await driver.create_cloned_volume(clone, source)
    assert changes(machine) == [
        f"lvcreate -y -kn -s --addtag cinder_unfinished -n {clone.name} cinder-volumes/{source.name}",
        f"lvextend -L {2 * GIB}b cinder-volumes/{clone.name}",
        f"lvchange --deltag cinder_unfinished cinder-volumes/{clone.name}",
    ]
    await driver.delete_volume(clone)
    assert [line.split()[0] for line in changes(machine)] == ["lvchange", "lvremove"]


async def test_a_thick_volume_with_a_snapshot_is_extended_while_nobody_has_it_open(machine: MappedMachine) -> None:
    driver, volume = LvmDriver(LvmOptions(lvm_type="default")), new_volume(1)
    await driver.check_for_setup_error()
    await driver.create_volume(volume)
    await driver.create_snapshot(new_snapshot(volume))
    changes(machine)
    machine.volumes[volume.name].is_open = True
    with pytest.raises(VolumeIsBusy, match="has snapshots and is open"):
        await driver.extend_volume(volume, 2)
    assert changes(machine) == []
    machine.volumes[volume.name].is_open = False
    await driver.extend_volume(volume, 2)
    path = f"cinder-volumes/{volume.name}"
    assert changes(machine) == [
        f"lvchange -an --config activation/retry_deactivation=1 {path}",
        f"lvextend -L {2 * GIB}b {path}",
        f"lvchange -ay -K {path}",
    ]
    assert machine.volumes[volume.name].is_active


@pytest.mark.parametrize(
    ("clearing", "asked"),
    [
        (Clearing("none"), []),
        (Clearing(size_mib=64, ionice="-c3"), ["ionice -c3 fallocate --punch-hole --keep-size --offset 0 --length 67108864"]),
    ],
)
async def test_clearing_is_done_as_volume_clear_says(
    machine: MappedMachine, monkeypatch: pytest.MonkeyPatch, clearing: Clearing, asked: list[str]
) -> None:
    monkeypatch.setattr(machine, "_ionice", lambda words: machine._fallocate(words[2:]), raising=False)
    driver, volume = LvmDriver(LvmOptions(lvm_type="default", clearing=clearing)), new_volume(1)
    await driver.check_for_setup_error()
    await driver.create_volume(volume)
    await driver.delete_volume(volume)
    assert [line.rpartition(" ")[0] for line in machine.asked if "fallocate" in line] == asked


async def test_a_device_that_cannot_forget_is_overwritten(machine: MappedMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_: list[str]) -> None:
        raise Refused("fallocate: fallocate failed: Operation not supported")

    monkeypatch.setattr(machine, "_fallocate", cannot)
    monkeypatch.setattr(machine, "_blkdiscard", lambda _: None, raising=False)
    driver, volume = LvmDriver(LvmOptions(lvm_type="default")), new_volume(1)
    await driver.check_for_setup_error()
    await driver.create_volume(volume)
    await driver.delete_volume(volume)
    assert f"blkdiscard --zeroout --offset 0 --length {GIB} /dev/cinder-volumes/{volume.name}" in machine.asked
    monkeypatch.setattr(machine, "_blkdiscard", cannot)
    await driver.create_volume(volume)
    with pytest.raises(VolumeBackendAPIException, match="could not be cleared"):
        await driver.delete_volume(volume)
    assert volume.name in machine.volumes


async def test_auto_is_thin_in_an_empty_group_and_thick_beside_thick_volumes(machine: MappedMachine) -> None:
    fresh = LvmDriver(LvmOptions(lvm_type="auto"))
    await fresh.check_for_setup_error()
    assert (await fresh.get_volume_stats()).thin_provisioning_support
    other = MappedMachine()
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        other.install(patch)
        thick, volume = LvmDriver(LvmOptions(lvm_type="default")), new_volume()
        await thick.create_volume(volume)
        found = LvmDriver(LvmOptions(lvm_type="auto"))
        await found.check_for_setup_error()
        assert not (await found.get_volume_stats()).thin_provisioning_support


async def test_a_group_that_is_not_there_is_named_with_those_that_are(machine: MappedMachine) -> None:
    with pytest.raises(DriverNotInitialized, match="there is no volume group nope; found: cinder-volumes"):
        await LvmDriver(LvmOptions(volume_group="nope")).check_for_setup_error()


async def test_thin_volumes_are_refused_on_loop_devices(machine: MappedMachine, tmp_path: Path) -> None:
    driver = LvmDriver(LvmOptions(lvm_type="thin", devices="loop", links_dir=tmp_path))
    with pytest.raises(DriverNotInitialized, match="lvm_type is thin, which needs device-mapper"):
        await driver.check_for_setup_error()
