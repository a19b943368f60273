"""The bench of every driver whose volumes are files or block devices of this machine, a third party's too."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from cinder_lite.certify.benches.staging import NothingStaged, Staging
from cinder_lite.certify.specification import NotAsSpecified, NotStaged
from cinder_lite.contract import Snapshot, SnapshotStatus, Volume, VolumeStatus
from cinder_lite.drivers.names import is_snapshot_name, is_volume_name
from cinder_lite.ports.driver import VolumeDriver
from common.base.errors import Fault
from common.host.to_its_end import in_thread


class LocalBench:
    """Implements `cinder_lite.certify.driver_bench.DriverBench`. What was there before is neither named nor touched."""

    def __init__(self, driver: VolumeDriver, staging: Staging, before: set[str]) -> None:
        self.driver = driver
        self._staging = staging
        self._before = before

    @classmethod
    async def over(cls, driver: VolumeDriver, staging: Staging | None = None) -> Self:
        await driver.check_for_setup_error()
        staging = staging or NothingStaged()
        return cls(driver, staging, await names_of(driver) | await staging.others())

    async def names(self) -> set[str]:
        return (await names_of(self.driver) | await self._staging.others()) - self._before

    async def size_of(self, name: str) -> int:
        return await asyncio.to_thread(_size, self._path(_volume_of(name)))

    async def read(self, volume: Volume, offset: int, length: int) -> bytes:
        return await asyncio.to_thread(_read, self._path(volume), offset, length)

    async def write(self, volume: Volume, offset: int, data: bytes) -> None:
        await in_thread(_write, self._path(volume), offset, data)

    @asynccontextmanager
    async def used(self, volume: Volume) -> AsyncIterator[None]:
        holder = await asyncio.create_subprocess_exec(
            "sh", "-c", 'exec 3<"$0" && echo open && read -r _', self._path(volume),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert holder.stdout is not None
            if await holder.stdout.readline() != b"open\n":
                raise NotAsSpecified(f"{self._path(volume)} cannot be opened")
            yield
        finally:
            await holder.communicate(b"\n")

    async def add_strangers(self) -> None:
        await self._staging.add_strangers()

    async def begin_volume(self, volume: Volume) -> None:
        await self._staging.begin_volume(volume)

    async def begin_snapshot(self, snapshot: Snapshot) -> None:
        await self._staging.begin_snapshot(snapshot)

    async def begin_clone(self, volume: Volume, source: Volume) -> None:
        await self._staging.begin_clone(volume, source)

    async def close(self) -> None:
        await self._staging.close()
        await clean(self.driver, self._before)

    def _path(self, volume: Volume) -> str:
        path = self.driver.local_path(volume)
        if not path.startswith("/"):
            raise NotStaged(f"{path} is no path on this machine: this driver needs a bench of its own")
        return path


async def clean(driver: VolumeDriver, before: set[str]) -> None:
    """Volumes and snapshots that are not in `before` are deleted, whatever is made of whatever; what cannot be deleted stays."""
    for _ in range(3):  # a volume that is needed by a snapshot that is needed by a volume
        snapshots = {name: volume for name, volume in (await driver.list_snapshots()).items() if name not in before}
        for name, volume_name in snapshots.items():
            with suppress(Fault):
                await driver.delete_snapshot(_snapshot_of(name, volume_name))
        for name in await driver.list_volumes() - before:
            with suppress(Fault):
                await driver.delete_volume(_volume_of(name))
        if not await names_of(driver) - before:
            return


def is_listed(name: str) -> bool:
    """Whether a driver lists what has this name."""
    return is_volume_name(name) or is_snapshot_name(name)


def _volume_of(name: str) -> Volume:
    return Volume(id=name.removeprefix("volume-"), size=1, status=VolumeStatus.DELETING)


def _snapshot_of(name: str, volume_name: str) -> Snapshot:
    volume_id = volume_name.removeprefix("volume-")
    return Snapshot(id=name.removeprefix("snapshot-"), volume_id=volume_id, volume_size=1, status=SnapshotStatus.DELETING)


async def names_of(driver: VolumeDriver) -> set[str]:
    """Of its volumes and snapshots."""
    return await driver.list_volumes() | set(await driver.list_snapshots())


def _size(path: str) -> int:
    """Of a device as well as of a file."""
    with Path(path).open("rb") as file:
        return file.seek(0, os.SEEK_END)


def _read(path: str, offset: int, length: int) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        # What a device's cache holds may be older than the device: another node of the same bytes was written.
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


def _write(path: str, offset: int, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, data, offset)
        os.fsync(fd)
    finally:
        os.close(fd)
