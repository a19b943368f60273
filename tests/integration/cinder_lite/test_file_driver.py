"""What the file driver does on a real file system beyond its port's guarantees."""

import asyncio
import errno
import os
import threading
from pathlib import Path
from stat import S_IMODE
from typing import Any

import pytest

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.drivers.file import FileDriver, FileOptions
from cinder_lite.errors import DriverNotInitialized, VolumeBackendAPIException
from common.base.ids import new_uuid


def volume(size: int = 1, name: str | None = None) -> Volume:
    return Volume(id=name or new_uuid(), size=size, status=VolumeStatus.CREATING)


def status(path: str) -> os.stat_result:
    return Path(path).stat()


def mode_of_folder(path: str) -> int:
    return S_IMODE(Path(path).parent.stat().st_mode)


def make_link(path: str) -> None:
    Path(path).symlink_to("/dev/null")


@pytest.fixture
async def driver(tmp_path: Path) -> FileDriver:
    made = FileDriver(FileOptions(volumes_dir=tmp_path / "a" / "volumes"))
    await made.check_for_setup_error()
    return made


async def test_folder_and_files_are_for_their_owner_only(driver: FileDriver) -> None:
    new = volume()
    await driver.create_volume(new)
    path = driver.local_path(new)
    assert mode_of_folder(path) == 0o700
    assert S_IMODE(status(path).st_mode) == 0o600


async def test_a_volume_takes_no_room_before_it_is_written(driver: FileDriver) -> None:
    new = volume()
    await driver.create_volume(new)
    assert status(driver.local_path(new)).st_blocks == 0


async def test_a_place_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "volumes").touch()
    with pytest.raises(DriverNotInitialized, match=f"volumes_dir {tmp_path}/volumes cannot be used"):
        await FileDriver(FileOptions(volumes_dir=tmp_path / "volumes")).check_for_setup_error()


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EFBIG, errno.EIO])
async def test_what_the_file_system_refuses_is_said_and_leaves_nothing(
    driver: FileDriver, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    def refuse(_fd: int, _length: int) -> None:
        raise OSError(fault, os.strerror(fault))

    new = volume()
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(VolumeBackendAPIException, match=os.strerror(fault)):
            await driver.create_volume(new)
    assert list(Path(driver.local_path(new)).parent.iterdir()) == []


async def test_what_one_who_was_killed_left_is_no_volume_and_is_cleared(driver: FileDriver) -> None:
    new = volume()
    path = Path(driver.local_path(new))
    (path.parent / f".{path.name}.unfinished").write_bytes(b"half")
    assert (await driver.get_volume_stats()).provisioned_capacity_gb == 0
    await driver.delete_volume(new)
    assert list(path.parent.iterdir()) == []


async def test_a_cancelled_create_has_ended_when_it_returns(driver: FileDriver) -> None:
    new = volume()
    for ticks in range(12):
        work = asyncio.ensure_future(driver.create_volume(new))
        for _ in range(ticks):
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait({work})
        await driver.delete_volume(new)
        assert list(Path(driver.local_path(new)).parent.iterdir()) == []


async def test_who_cancels_a_create_waits_for_its_end(driver: FileDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else the volume would appear after it was deleted."""
    linking, may_link, link = threading.Event(), threading.Event(), os.link

    def slow_link(*args: Any, **options: Any) -> None:
        linking.set()
        may_link.wait(10)
        link(*args, **options)

    monkeypatch.setattr(os, "link", slow_link)
    new = volume()
    work = asyncio.ensure_future(driver.create_volume(new))
    await asyncio.to_thread(linking.wait, 10)
    work.cancel()
    assert (await asyncio.wait({work}, timeout=0.05))[0] == set()
    may_link.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    await driver.delete_volume(new)
    assert list(Path(driver.local_path(new)).parent.iterdir()) == []


async def test_many_created_at_once_never_promise_more_than_there_is(tmp_path: Path) -> None:
    driver = FileDriver(FileOptions(volumes_dir=tmp_path, capacity_gb=3))
    results = await asyncio.gather(*(driver.create_volume(volume()) for _ in range(8)), return_exceptions=True)
    assert [type(result) for result in results].count(VolumeBackendAPIException) == 5
    assert (await driver.get_volume_stats()).free_capacity_gb == 0


async def test_a_thin_place_promises_more_than_it_has(tmp_path: Path) -> None:
    driver = FileDriver(FileOptions(volumes_dir=tmp_path, capacity_gb=2, max_over_subscription_ratio=2.0))
    await driver.create_volume(volume(3))
    stats = await driver.get_volume_stats()
    assert stats.thin_provisioning_support
    assert (stats.free_capacity_gb, stats.provisioned_capacity_gb) == (2, 3)
    with pytest.raises(VolumeBackendAPIException, match="2 GiB wanted, 1 GiB free"):
        await driver.create_volume(volume(2))


async def test_a_name_that_leads_elsewhere_is_refused(driver: FileDriver) -> None:
    with pytest.raises(VolumeBackendAPIException, match="cannot be the name of a file"):
        driver.local_path(volume(name="../../etc/passwd"))


async def test_what_is_there_and_is_no_file_is_refused(driver: FileDriver) -> None:
    new = volume()
    make_link(driver.local_path(new))
    with pytest.raises(VolumeBackendAPIException, match="is not a file"):
        await driver.create_volume(new)
