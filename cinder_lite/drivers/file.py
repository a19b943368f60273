"""Volumes as sparse files in a folder: <volumes_dir>/volume-<id>.

A file is made under another name, given its size, and only then linked to its own: who is killed in between leaves no
volume of a wrong size. The file system's room is promised as a thick place does (every volume at its full size), unless
`max_over_subscription_ratio` is above 1, which makes the place thin.
"""

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cinder_lite.contract import Volume
from cinder_lite.domain.capacity import lack_of_room
from cinder_lite.domain.volume import volume_id_of
from cinder_lite.errors import DriverNotInitialized, VolumeBackendAPIException, VolumeIsBusy
from cinder_lite.ports.driver import VolumeStats
from common.host.locks import KeyedLocks

_GIB = 1024**3
_UNFINISHED = ".unfinished"


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

    async def check_for_setup_error(self) -> None:
        """Makes the folder, mode 0700, when it is not there."""
        try:
            await asyncio.to_thread(_prepare, self._folder)
        except OSError as exc:
            reason = f"volumes_dir {self._folder} cannot be used: {exc.strerror}"
            raise DriverNotInitialized(backend=self._options.volume_backend_name, reason=reason) from exc

    async def create_volume(self, volume: Volume) -> None:
        path = self._path(volume)
        # One at a time: the room that one takes is no longer there for the next.
        async with self._locks.hold("room"):
            with _told_as_backend_error(f"volume file {path} could not be made"):
                if await asyncio.to_thread(_is_there, path, volume.size):
                    return
                why_not = lack_of_room(volume.size, await self.get_volume_stats())
                if why_not is not None:
                    raise VolumeBackendAPIException(data=f"no room for {volume.name} in {self._folder}: {why_not}")
                await _to_its_end(_create, path, volume.size)

    async def delete_volume(self, volume: Volume) -> None:
        path = self._path(volume)
        async with self._locks.hold("room"):
            with _told_as_backend_error(f"volume file {path} could not be deleted"):
                users = await asyncio.to_thread(_users_of, path)
                if users:
                    raise VolumeIsBusy(volume_name=volume.name, reason=f"{path} is open in {', '.join(users)}")
                await _to_its_end(_delete, path)

    def local_path(self, volume: Volume) -> str:
        return str(self._path(volume))

    async def get_volume_stats(self) -> VolumeStats:
        """Raises VolumeBackendAPIException when the folder cannot be read."""
        with _told_as_backend_error(f"the room in {self._folder} could not be told"):
            room = await asyncio.to_thread(_measure, self._folder)
        options = self._options
        total = room.total if options.capacity_gb is None else options.capacity_gb * _GIB
        is_thin = options.max_over_subscription_ratio > 1
        # A thick place has given away what its volumes have not written yet; a thin one has not.
        free = min(room.free - (0 if is_thin else room.unwritten), total - (room.written if is_thin else room.provisioned))
        return VolumeStats(
            volume_backend_name=options.volume_backend_name,
            pool_name=options.volume_backend_name,
            storage_protocol=options.storage_protocol,
            driver_version="1.0.0",
            total_capacity_gb=total / _GIB,
            free_capacity_gb=max(free, 0) / _GIB,
            provisioned_capacity_gb=room.provisioned / _GIB,
            reserved_percentage=options.reserved_percentage,
            max_over_subscription_ratio=options.max_over_subscription_ratio,
            thin_provisioning_support=is_thin,
        )

    async def list_volumes(self) -> set[str]:
        with _told_as_backend_error(f"the volumes in {self._folder} could not be told"):
            return await asyncio.to_thread(_names_in, self._folder)

    def _path(self, volume: Volume) -> Path:
        if volume.name != os.path.basename(volume.name):  # noqa: PTH119  # Path would drop what makes the name unfit
            raise VolumeBackendAPIException(data=f"{volume.name!r} cannot be the name of a file")
        return self._folder / volume.name


@dataclass(frozen=True, slots=True)
class _Room:
    """Bytes of the file system, and of the volumes in it."""

    total: int
    free: int
    provisioned: int
    written: int
    unwritten: int


@contextmanager
def _told_as_backend_error(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise VolumeBackendAPIException(data=f"{what}: {exc.strerror or exc}") from exc


async def _to_its_end(act: Callable[..., None], *args: object) -> None:
    """Runs `act` in a thread. Who is cancelled waits for its end, so that nothing is made behind the back of the next."""
    work = asyncio.ensure_future(asyncio.to_thread(act, *args))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        if not work.cancelled():
            work.exception()  # looked at, or else asyncio complains
        raise


def _prepare(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "this user may not write there")


def _is_there(path: Path, size: int) -> bool:
    """Raises VolumeBackendAPIException when something else is there."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode):
        raise VolumeBackendAPIException(data=f"{path} is there, and is not a file")
    if found.st_size != size * _GIB:
        raise VolumeBackendAPIException(data=f"{path} is there with {found.st_size} bytes; wanted {size} GiB")
    return True


def _create(path: Path, size: int) -> None:
    unfinished = _unfinished(path)
    try:
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, size * _GIB)
            os.fsync(fd)
        finally:
            os.close(fd)
        # A link, unlike a rename, never takes the place of a file that is there.
        os.link(unfinished, path, follow_symlinks=False)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _delete(path: Path) -> None:
    _unfinished(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        _sync_folder(path.parent)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}{_UNFINISHED}")


def _names_in(folder: Path) -> set[str]:
    names = {path.name.removeprefix(".").removesuffix(_UNFINISHED) for path in folder.iterdir()}
    return {name for name in names if name == f"volume-{volume_id_of(name)}"}


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _users_of(path: Path) -> list[str]:
    """ "process 123 (qemu)" of each other process that has the file open."""
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return []
    return [
        f"process {process.name}{_command_of(process)}"
        for process in Path("/proc").iterdir()
        if process.name.isdecimal() and int(process.name) != os.getpid() and _has_open(process, path.name, wanted)
    ]


def _has_open(process: Path, name: str, wanted: os.stat_result) -> bool:
    try:
        for fd in (process / "fd").iterdir():
            # The name first: a stat of any open file of any process may wait for a dead file server.
            with suppress(OSError):
                if os.path.basename(os.readlink(fd)) == name and os.path.samestat(fd.stat(), wanted):  # noqa: PTH115, PTH119
                    return True
    except OSError:  # the process has ended, or is another user's
        return False
    return False


def _command_of(process: Path) -> str:
    try:
        return f" ({(process / 'comm').read_text().strip()})"
    except OSError:
        return ""


def _measure(folder: Path) -> _Room:
    system = os.statvfs(folder)
    provisioned = written = unwritten = 0
    for path in folder.glob("volume-*"):
        with suppress(FileNotFoundError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                provisioned += found.st_size
                written += found.st_blocks * 512  # the unit of st_blocks, whatever the file system's is (stat(2))
                unwritten += max(found.st_size - found.st_blocks * 512, 0)
    return _Room(system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize, provisioned, written, unwritten)
