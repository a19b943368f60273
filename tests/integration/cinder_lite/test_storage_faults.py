"""What is wrong with a storage system is told as such, in time, and leaves nothing half made."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest

from cinder_lite.certify.benches.local import LocalBench
from cinder_lite.certify.benches.staging import NothingStaged
from cinder_lite.certify.driver_bench import new_snapshot, new_volume
from cinder_lite.contract import Volume
from cinder_lite.drivers import lvm_bytes
from cinder_lite.drivers.file import FileDriver, FileOptions
from cinder_lite.drivers.lvm import LvmDriver, LvmOptions
from cinder_lite.drivers.rbd import RbdDriver, RbdOptions
from cinder_lite.drivers.rbd_commands import Rbd
from cinder_lite.errors import DriverNotInitialized, VolumeBackendAPIException, VolumeIsBusy
from cinder_lite.ports.driver import VolumeDriver
from common.host.command import Output, run
from tests.support.ceph import POOL, USER, CephCluster
from tests.support.lvm import GROUP, PrivateGroup

WRONG_KEY = "AQBSdFhcGJmqGxAA3kJCHTZ1nC0A8a4gJw1Jrg=="


@pytest.fixture
def cluster(ceph_cluster: CephCluster) -> CephCluster:
    return ceph_cluster


@pytest.fixture
def group(volume_group: PrivateGroup) -> PrivateGroup:
    return volume_group


def rbd(conf: Path, *, pool: str = POOL, timeout_s: int = 3) -> RbdDriver:
    return RbdDriver(RbdOptions(Rbd(pool, USER, conf, connect_timeout_s=timeout_s), capacity_gb=10))


def lvm(group: PrivateGroup, folder: Path, *, name: str = GROUP, devices: Literal["device-mapper", "loop"] = "loop") -> LvmDriver:
    return LvmDriver(LvmOptions(name, lvm_type="default", devices=devices, links_dir=folder, system_dir=group.system_dir))


async def write(driver: VolumeDriver, volume: Volume, byte: int) -> None:
    await LocalBench(driver, NothingStaged(), set()).write(volume, 0, bytes([byte]) * 4096)


async def first_byte(driver: VolumeDriver, volume: Volume) -> int:
    return (await LocalBench(driver, NothingStaged(), set()).read(volume, 0, 4096))[0]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class Heart:
    """Beats every 10 ms while the loop goes on."""

    def __init__(self) -> None:
        self.beats = 0

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            self.beats += 1


@pytest.fixture
async def heart() -> AsyncIterator[Heart]:
    made = Heart()
    beating = asyncio.ensure_future(made.beat())
    yield made
    beating.cancel()
    await asyncio.wait({beating})


# -- Ceph -------------------------------------------------------------------------------------------------------------


async def test_a_pool_that_is_missing_is_named(cluster: CephCluster) -> None:
    with pytest.raises(DriverNotInitialized, match="there is no pool nope; make it"):
        await rbd(cluster.client_conf, pool="nope").check_for_setup_error()


async def test_a_ceph_conf_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DriverNotInitialized, match=r"rbd_ceph_conf .*none\.conf is not there"):
        await rbd(tmp_path / "none.conf").check_for_setup_error()


async def test_a_wrong_key_is_told_and_its_secret_is_not(cluster: CephCluster) -> None:
    with pytest.raises(DriverNotInitialized, match=r"does not let client.cinder in") as caught:
        await rbd(cluster.conf_with_key(WRONG_KEY, "wrong")).check_for_setup_error()
    assert WRONG_KEY not in f"{caught.value} {caught.value.__cause__}"


async def test_a_cluster_without_a_manager_says_how_to_go_without(cluster: CephCluster) -> None:
    driver = RbdDriver(RbdOptions(Rbd(POOL, USER, cluster.client_conf)))
    with pytest.raises(VolumeBackendAPIException, match="set rbd_capacity_gb"):
        await driver.get_volume_stats()


@pytest.mark.timeout(120, func_only=True)
async def test_a_monitor_that_is_down_is_told_in_time_and_the_loop_goes_on(cluster: CephCluster, heart: Heart) -> None:
    driver, volume = rbd(cluster.client_conf), new_volume()
    await driver.check_for_setup_error()
    await driver.create_volume(volume)
    cluster.kill("mon")
    try:
        with pytest.raises(VolumeBackendAPIException, match="no answer within 3 s"):
            await driver.delete_volume(volume)
        with pytest.raises(DriverNotInitialized, match="no answer within 3 s"):
            await rbd(cluster.client_conf).check_for_setup_error()
        assert heart.beats > 100  # of 600 in the two times 3 s
    finally:
        cluster.start_monitor()
    cluster.ask("ceph", "--connect-timeout", "60", "mon", "stat")
    await rbd(cluster.client_conf, timeout_s=30).delete_volume(volume)
    assert await driver.list_volumes() == set()


async def test_an_image_that_somebody_watches_is_busy(cluster: CephCluster) -> None:
    driver, volume = rbd(cluster.client_conf, timeout_s=10), new_volume()
    await driver.create_volume(volume)
    argv = ("rbd", "--id", USER, "--conf", str(cluster.client_conf), "watch", f"{POOL}/{volume.name}")
    nothing = asyncio.subprocess.DEVNULL
    watcher = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.PIPE, stdout=nothing, stderr=nothing)
    watched = Rbd(POOL, USER, cluster.client_conf)
    async with asyncio.timeout(30):
        while not await watched.watchers(volume.name):
            pass
    with pytest.raises(VolumeIsBusy, match=r"it is open at 127\.0\.0\.1:0/"):
        await driver.delete_volume(volume)
    await watcher.communicate(b"\n")
    await driver.delete_volume(volume)


# -- LVM --------------------------------------------------------------------------------------------------------------


async def test_a_volume_group_that_is_missing_is_named_with_those_that_are_there(group: PrivateGroup, tmp_path: Path) -> None:
    with pytest.raises(DriverNotInitialized, match=f"there is no volume group nope; found: {GROUP}. Make it"):
        await lvm(group, tmp_path, name="nope").check_for_setup_error()


@pytest.mark.skipif("device-mapper" in Path("/proc/devices").read_text(), reason="this kernel has device-mapper")
async def test_a_kernel_without_device_mapper_is_told_with_what_to_do(group: PrivateGroup, tmp_path: Path) -> None:
    with pytest.raises(DriverNotInitialized, match=r"no device-mapper.*set lvm_devices = loop"):
        await lvm(group, tmp_path, devices="device-mapper").check_for_setup_error()


async def test_a_copy_that_fails_in_the_middle_leaves_nothing(
    group: PrivateGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, source, clone = lvm(group, tmp_path), new_volume(), new_volume()
    await driver.check_for_setup_error()
    await driver.create_volume(source)
    real = run

    async def full(*argv: str, **options: Any) -> Output:
        if argv[0] != "dd":
            return await real(*argv, **options)
        return Output(1, "", "dd: error writing '/dev/x': No space left on device\n1+0 records in\n")

    with monkeypatch.context() as patch:
        patch.setattr(lvm_bytes, "run", full)
        with pytest.raises(VolumeBackendAPIException, match=r"could not be copied .*No space left on device"):
            await driver.create_cloned_volume(clone, source)
        snapshot = new_snapshot(source)
        with pytest.raises(VolumeBackendAPIException, match="No space left on device"):
            await driver.create_snapshot(snapshot)
    assert (await driver.list_volumes(), await driver.list_snapshots()) == ({source.name}, {})
    await driver.delete_volume(source)
    assert names_in(tmp_path / GROUP) == set()


async def test_after_a_restart_of_the_machine_the_paths_lead_to_their_volumes_again(group: PrivateGroup, tmp_path: Path) -> None:
    """Loop devices and links are as they happen to be: one is missing, one leads to another volume, one is of a volume that is gone."""
    driver, one, other = lvm(group, tmp_path), new_volume(), new_volume()
    await driver.check_for_setup_error()
    for volume, byte in ((one, 0x11), (other, 0x22)):
        await driver.create_volume(volume)
        await write(driver, volume, byte)
    links = tmp_path / GROUP
    there = {volume.name: (links / volume.name).readlink() for volume in (one, other)}
    (links / one.name).unlink()
    (links / one.name).symlink_to(there[other.name])
    (links / "volume-gone").symlink_to(there[one.name])
    again = lvm(group, tmp_path)
    await again.check_for_setup_error()
    assert [await first_byte(again, volume) for volume in (one, other)] == [0x11, 0x22]
    assert names_in(links) == {one.name, other.name}
    for volume in (one, other):
        await again.delete_volume(volume)


# -- files ------------------------------------------------------------------------------------------------------------


async def test_a_disk_that_is_full_in_the_middle_of_a_copy_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, source, clone = FileDriver(FileOptions(tmp_path, capacity_gb=10)), new_volume(), new_volume()
    await driver.create_volume(source)
    await write(driver, source, 0x11)

    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        patch.setattr("fcntl.ioctl", lambda *_: (_ for _ in ()).throw(OSError(95, "no reflinks here")))
        with pytest.raises(VolumeBackendAPIException, match="No space left on device"):
            await driver.create_cloned_volume(clone, source)
        with pytest.raises(VolumeBackendAPIException, match="No space left on device"):
            await driver.create_snapshot(new_snapshot(source))
    assert names_in(tmp_path) == {source.name}


async def test_a_volume_in_use_is_not_copied_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that is opened while it is copied: what is written meanwhile would be half in the copy."""
    driver, source = FileDriver(FileOptions(tmp_path, capacity_gb=10)), new_volume()
    await driver.create_volume(source)
    await write(driver, source, 0x11)
    monkeypatch.setattr("fcntl.ioctl", lambda *_: (_ for _ in ()).throw(OSError(95, "no reflinks here")))
    bench = LocalBench(driver, NothingStaged(), set())
    async with bench.used(source):
        for verb in (driver.create_snapshot(new_snapshot(source)), driver.create_cloned_volume(new_volume(), source)):
            with pytest.raises(VolumeIsBusy, match=r"open in process \d+ \(sh\), and .* cannot clone a file that is in use"):
                await verb
    seen = iter([[], ["process 7 (late)"]])
    monkeypatch.setattr("cinder_lite.drivers.file.users_of", lambda _: next(seen))
    with pytest.raises(VolumeIsBusy, match=r"opened in process 7 \(late\) while it was copied"):
        await driver.create_cloned_volume(new_volume(), source)
    assert names_in(tmp_path) == {source.name}
