"""The blocking half of the file driver: what is done to a folder of volumes and snapshots. Call it in a thread.

<folder>/volume-<id>                   a volume
<folder>/volume-<id>.snapshot-<id>     a snapshot of it
<folder>/.<one of these>.unfinished    what is being made, or what was left when its maker died

A file is made under its unfinished name, and only linked to its own when it is whole: who is killed in between leaves nothing
that could be taken for a volume. All of these raise OSError.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cinder_lite.drivers.names import is_snapshot_name, is_volume_name

GIB = 1024**3
_UNFINISHED = ".unfinished"
_COPY_BYTES = 16 * 1024 * 1024
_FICLONE = 0x40049409
"""linux/fs.h, ioctl_ficlone(2)."""
_CANNOT_CLONE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM}


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of the file system, and of what is kept in it.

    provisioned   full sizes of the volumes
    written       what these volumes take now
    unwritten     what they may still come to take
    snapshots     what the snapshots take; it never grows
    """

    total: int
    free: int
    provisioned: int = 0
    written: int = 0
    unwritten: int = 0
    snapshots: int = 0


def prepare(folder: Path) -> None:
    """Makes the folder, mode 0700, when it is not there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "this user may not write there")


def size_of(path: Path) -> int | None:
    """Bytes of a volume or snapshot; None when it is not there. Raises OSError, EEXIST, when something else is."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise FileExistsError(errno.EEXIST, "it is there, and is not a file")
    return found.st_size


def begin(path: Path, size_bytes: int) -> None:
    """The unfinished file of `path` is there, with that size and no bytes; what an earlier try left of it is gone."""
    with _made(_unfinished(path), truncate=True) as fd:
        os.ftruncate(fd, size_bytes)


def copy(source: Path, path: Path, *, is_still: bool) -> None:
    """Into the unfinished file of `path` go the bytes of `source`. Raises OSError, EBUSY, when that takes more than a moment.

    is_still   nobody writes to `source`, so it may take its time
    """
    with _opened(source, os.O_RDONLY) as origin, _made(_unfinished(path)) as copied:
        size = os.fstat(copied).st_size
        try:
            fcntl.ioctl(copied, _FICLONE, origin)
        except OSError as exc:
            if exc.errno not in _CANNOT_CLONE:
                raise
            if not is_still:
                raise OSError(errno.EBUSY, "its file system cannot clone a file that is in use") from exc
            _copy_data(origin, copied)
        os.ftruncate(copied, size)


def sync(path: Path) -> None:
    """What was written to the unfinished file of `path` is on the disk."""
    with _opened(_unfinished(path), os.O_RDONLY) as fd:
        os.fsync(fd)


def finish(path: Path) -> None:
    """The unfinished file becomes `path`. A link, unlike a rename, never takes the place of a file that is there."""
    os.link(_unfinished(path), path, follow_symlinks=False)
    give_up(path)
    _sync_folder(path.parent)


def give_up(path: Path) -> None:
    """Nothing is left of what was begun."""
    _unfinished(path).unlink(missing_ok=True)


def extend(path: Path, size_bytes: int) -> None:
    with _opened(path, os.O_WRONLY) as fd:
        os.ftruncate(fd, size_bytes)
        os.fsync(fd)


def delete(path: Path) -> None:
    give_up(path)
    path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        _sync_folder(path.parent)


def volumes_in(folder: Path) -> set[str]:
    """Names; half-made ones too."""
    return {name for name in _names_in(folder) if is_volume_name(name)}


def snapshots_in(folder: Path) -> dict[str, str]:
    """Name of a snapshot -> its volume's; half-made ones too."""
    found = (name.partition(".") for name in _names_in(folder))
    return {snapshot: volume for volume, _, snapshot in found if is_volume_name(volume) and is_snapshot_name(snapshot)}


def measure(folder: Path, begun: Collection[str] = ()) -> Room:
    """What there is. Unfinished files count when somebody makes them now: their names are in `begun`."""
    system = os.statvfs(folder)
    provisioned = written = unwritten = snapshots = 0
    for path in folder.iterdir():
        name = _finished_name(path)
        if not name.startswith("volume-") or (name != path.name and name not in begun):
            continue
        with suppress(FileNotFoundError):
            found = path.lstat()
            taken = found.st_blocks * 512
            if not stat.S_ISREG(found.st_mode):
                continue
            if is_snapshot_name(name.partition(".")[2]):
                snapshots += taken
            else:
                provisioned += found.st_size
                written += taken
                unwritten += max(found.st_size - taken, 0)
    total, free = system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize
    return Room(total, free, provisioned, written, unwritten, snapshots)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}{_UNFINISHED}")


def _finished_name(path: Path) -> str:
    return path.name.removeprefix(".").removesuffix(_UNFINISHED) if path.name.endswith(_UNFINISHED) else path.name


def _names_in(folder: Path) -> set[str]:
    return {_finished_name(path) for path in folder.iterdir()}


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _made(path: Path, *, truncate: bool = False) -> Iterator[int]:
    with _opened(path, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if truncate else 0)) as fd:
        yield fd


def _copy_data(origin: int, copied: int) -> None:
    """What is not a hole."""
    end = os.fstat(origin).st_size
    offset = 0
    while offset < end:
        try:
            start = os.lseek(origin, offset, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # holes to the end
                return
            raise
        offset = os.lseek(origin, start, os.SEEK_HOLE)
        _copy_range(origin, copied, start, offset)


def _copy_range(origin: int, copied: int, start: int, end: int) -> None:
    while start < end:
        data = os.pread(origin, min(_COPY_BYTES, end - start), start)
        if not data:
            raise OSError(errno.EIO, "it became shorter while it was copied")
        start += os.pwrite(copied, data, start)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
