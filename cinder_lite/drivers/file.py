"""Volumes as sparse files in a folder (`cinder_lite.drivers.file_store` tells how they lie there).

The file system's room is promised as a thick place does (every volume at its full size), unless `max_over_subscription_ratio`
is above 1, which makes the place thin. Snapshots and clones share blocks where the file system can (reflinks of XFS and Btrfs);
elsewhere what was written is copied, and only while nobody has the volume open.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cinder_lite.contract import Snapshot, Volume
from cinder_lite.domain.capacity import lack_of_room
from cinder_lite.drivers import file_store
from cinder_lite.drivers.file_store import GIB
from cinder_lite.drivers.users import users_of
from cinder_lite.errors import DriverNotInitialized, VolumeBackendAPIException, VolumeIsBusy
from cinder_lite.ports.driver import VolumeStats
from common.host.locks import KeyedLocks
from common.host.to_its_end import in_thread


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Where the volumes are and how much may be promised.

    capacity_gb                   GiB to count as the place's size; None: the size of its file system
    max_over_subscription_ratio   above 1: a thin place, whose promises may exceed its size by that much
    storage_protocol              how the target brings volumes to hosts; told to the scheduler
    """

    volumes_dir: Path
    volume_backend_name: str = "file"
    capacity_gb: float | None = None
    max_over_subscription_ratio: float = 1.0
    reserved_percentage: int = 0
    storage_protocol: str = "iSCSI"


class FileDriver:
    """Implements `cinder_lite.ports.driver.VolumeDriver`.

    "In use" is what the kernel shows to this user: an open file of another process in /proc/*/fd. It shows neither the files
    of processes of other users, unless this one is root, nor what the kernel itself holds (loop devices, LIO).
    """

    def __init__(self, options: FileOptions) -> None:
        self._options = options
        self._folder = options.volumes_dir.absolute()
        self._locks = KeyedLocks()
        self._begun: set[str] = set()

    async def check_for_setup_error(self) -> None:
        """Makes the folder, mode 0700, when it is not there."""
        try:
            await in_thread(file_store.prepare, self._folder)
        except OSError as exc:
            reason = f"volumes_dir {self._folder} cannot be used: {exc.strerror}"
            raise DriverNotInitialized(backend=self._options.volume_backend_name, reason=reason) from exc

    async def create_volume(self, volume: Volume) -> None:
        async with self._making(volume):
            """A file with nothing written is a volume of zeros."""

    async def delete_volume(self, volume: Volume) -> None:
        path = self._path(volume.name)
        async with self._locks.hold(volume.name):
            with _told(f"volume file {path} could not be deleted"):
                if users := await asyncio.to_thread(users_of, path):
                    raise VolumeIsBusy(volume_name=volume.name, reason=f"{path} is open in {', '.join(users)}")
                if kept := [name for name, of in (await self.list_snapshots()).items() if of == volume.name]:
                    raise VolumeIsBusy(volume_name=volume.name, reason=f"it has snapshots: {', '.join(sorted(kept))}")
                await in_thread(file_store.delete, path)

    async def extend_volume(self, volume: Volume, new_size: int) -> None:
        path = self._path(volume.name)
        # The room too: what one takes is no longer there for the next.
        async with self._locks.hold(volume.name), self._locks.hold("room"):
            with _told(f"volume file {path} could not be extended"):
                there = await self._bytes_of(volume.name)
                if there > new_size * GIB:
                    raise VolumeBackendAPIException(data=f"{path} has {there} bytes and is not made smaller; wanted {new_size} GiB")
                if there < new_size * GIB:
                    await self._check_room(volume.name, new_size - there // GIB)
                    await in_thread(file_store.extend, path, new_size * GIB)

    async def create_snapshot(self, snapshot: Snapshot) -> None:
        path = self._snapshot_path(snapshot)
        async with self._locks.hold(snapshot.volume_name):
            with _told(f"snapshot file {path} could not be made"):
                size = await self._bytes_of(snapshot.volume_name)
                if await asyncio.to_thread(file_store.size_of, path) is not None:
                    return
                async with self._whole(path):
                    await in_thread(file_store.begin, path, size)
                    await self._copy(snapshot.volume_name, path)

    async def delete_snapshot(self, snapshot: Snapshot) -> None:
        path = self._snapshot_path(snapshot)
        async with self._locks.hold(snapshot.volume_name):
            with _told(f"snapshot file {path} could not be deleted"):
                await in_thread(file_store.delete, path)

    async def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> None:
        source = self._snapshot_path(snapshot)
        async with self._making(volume, of=source) as is_new:
            if is_new:
                await in_thread(partial(file_store.copy, is_still=True), source, self._path(volume.name))

    async def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> None:
        async with self._making(volume, of=self._path(src_vref.name)) as is_new:
            if is_new:
                await self._copy(src_vref.name, self._path(volume.name))

    def local_path(self, volume: Volume) -> str:
        return str(self._path(volume.name))

    async def get_volume_stats(self) -> VolumeStats:
        """Raises VolumeBackendAPIException when the folder cannot be read."""
        with _told(f"the room in {self._folder} could not be told"):
            room = await asyncio.to_thread(file_store.measure, self._folder, frozenset(self._begun))
        options = self._options
        total = room.total if options.capacity_gb is None else options.capacity_gb * GIB
        is_thin = options.max_over_subscription_ratio > 1
        # A thick place has given away what its volumes have not written yet; a thin one has not.
        promised = room.snapshots + (room.written if is_thin else room.provisioned)
        free = min(room.free - (0 if is_thin else room.unwritten), total - promised)
        return VolumeStats(
            volume_backend_name=options.volume_backend_name,
            pool_name=options.volume_backend_name,
            storage_protocol=options.storage_protocol,
            driver_version="1.0.0",
            total_capacity_gb=total / GIB,
            free_capacity_gb=max(free, 0) / GIB,
            provisioned_capacity_gb=room.provisioned / GIB,
            reserved_percentage=options.reserved_percentage,
            max_over_subscription_ratio=options.max_over_subscription_ratio,
            thin_provisioning_support=is_thin,
        )

    async def list_volumes(self) -> set[str]:
        with _told(f"the volumes in {self._folder} could not be told"):
            return await asyncio.to_thread(file_store.volumes_in, self._folder)

    async def list_snapshots(self) -> dict[str, str]:
        with _told(f"the snapshots in {self._folder} could not be told"):
            return await asyncio.to_thread(file_store.snapshots_in, self._folder)

    @asynccontextmanager
    async def _making(self, volume: Volume, *, of: Path | None = None) -> AsyncIterator[bool]:
        """Gives False when the volume is there with its size. Else its file is begun, and whole when the block has filled it."""
        path = self._path(volume.name)
        async with self._locks.hold(volume.name):
            with _told(f"volume file {path} could not be made"):
                if await _is_there(path, volume.size):
                    yield False
                    return
                await self._check_source(volume, of)
                with self._promised(volume.name):
                    async with self._whole(path):
                        await self._begin(path, volume.size)
                        yield True

    @asynccontextmanager
    async def _whole(self, path: Path) -> AsyncIterator[None]:
        """At the end of the block the unfinished file becomes `path`; nothing is left of it when the block fails."""
        try:
            yield
            await in_thread(file_store.sync, path)
            # Not while somebody measures: the file is under one name or the other, and could be missed under both.
            async with self._locks.hold("room"):
                await in_thread(file_store.finish, path)
        except BaseException:
            await in_thread(file_store.give_up, path)
            raise

    async def _begin(self, path: Path, size: int) -> None:
        """One at a time: the room that one takes is no longer there for the next."""
        async with self._locks.hold("room"):
            await in_thread(file_store.give_up, path)
            await self._check_room(path.name, size)
            await in_thread(file_store.begin, path, size * GIB)

    @contextmanager
    def _promised(self, name: str) -> Iterator[None]:
        """Inside, the room that an unfinished file of that name takes is counted."""
        self._begun.add(name)
        try:
            yield
        finally:
            self._begun.discard(name)

    async def _check_source(self, volume: Volume, source: Path | None) -> None:
        size = None if source is None else await asyncio.to_thread(file_store.size_of, source)
        if source is not None and size is None:
            raise VolumeBackendAPIException(data=f"{source} is not there")
        if (size or 0) > volume.size * GIB:
            raise VolumeBackendAPIException(data=f"{source} has {size} bytes; {volume.name} of {volume.size} GiB cannot hold it")

    async def _check_room(self, name: str, size: int) -> None:
        why_not = lack_of_room(size, await self.get_volume_stats())
        if why_not is not None:
            raise VolumeBackendAPIException(data=f"no room for {name} in {self._folder}: {why_not}")

    async def _copy(self, name: str, path: Path) -> None:
        """The bytes of a volume, which anybody may begin to use meanwhile, go into the unfinished file of `path`."""
        source = self._path(name)
        users = await asyncio.to_thread(users_of, source)
        try:
            await in_thread(partial(file_store.copy, is_still=not users), source, path)
        except OSError as exc:
            if exc.errno != errno.EBUSY:
                raise
            raise VolumeIsBusy(f"{name} is open in {', '.join(users)}, and {exc.strerror}; detach it first",
                               volume_name=name, reason=f"open in {', '.join(users)}") from exc  # fmt: skip
        if not users and (late := await asyncio.to_thread(users_of, source)):
            raise VolumeIsBusy(f"{name} was opened in {', '.join(late)} while it was copied; detach it first",
                               volume_name=name, reason=f"open in {', '.join(late)}")  # fmt: skip

    async def _bytes_of(self, name: str) -> int:
        """Raises VolumeBackendAPIException for a volume that is not there."""
        size = await asyncio.to_thread(file_store.size_of, self._path(name))
        if size is None:
            raise VolumeBackendAPIException(data=f"volume file {self._path(name)} is not there")
        return size

    def _path(self, name: str) -> Path:
        if name != os.path.basename(name):  # noqa: PTH119  # Path would drop what makes the name unfit
            raise VolumeBackendAPIException(data=f"{name!r} cannot be the name of a file")
        return self._folder / name

    def _snapshot_path(self, snapshot: Snapshot) -> Path:
        return self._path(f"{snapshot.volume_name}.{snapshot.name}")


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise VolumeBackendAPIException(data=f"{what}: {exc.strerror or exc}") from exc


async def _is_there(path: Path, size: int) -> bool:
    """Raises VolumeBackendAPIException when it has another size."""
    found = await asyncio.to_thread(file_store.size_of, path)
    if found is not None and found != size * GIB:
        raise VolumeBackendAPIException(data=f"{path} is there with {found} bytes; wanted {size} GiB")
    return found is not None
