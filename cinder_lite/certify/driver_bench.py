"""A volume driver on the bench: the driver, and a look at the place behind it."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from cinder_lite.contract import Snapshot, SnapshotStatus, Volume, VolumeStatus
from cinder_lite.ports.driver import VolumeDriver
from common.base.ids import new_uuid

GIB = 1024**3


def new_volume(size: int = 1) -> Volume:
    return Volume(id=new_uuid(), size=size, status=VolumeStatus.CREATING)


def new_snapshot(volume: Volume) -> Snapshot:
    return Snapshot(id=new_uuid(), volume_id=volume.id, volume_size=volume.size, status=SnapshotStatus.CREATING)


class DriverBench(Protocol):
    """A driver of a place with room for 10 GiB at least, and a look at that place.

    Names are those of volumes and snapshots that were not there when the bench was set up. The methods from `add_strangers` on
    may raise NotStaged: then what they bring about is not tried on this backend.
    """

    @property
    def driver(self) -> VolumeDriver: ...

    async def names(self) -> set[str]:
        """Of everything that is in the place, half-made things too."""
        ...

    async def size_of(self, name: str) -> int:
        """Bytes of a volume."""
        ...

    async def read(self, volume: Volume, offset: int, length: int) -> bytes: ...

    async def write(self, volume: Volume, offset: int, data: bytes) -> None:
        """It is in the place when this returns."""
        ...

    def used(self, volume: Volume) -> AbstractAsyncContextManager[None]:
        """Somebody else has it open meanwhile."""
        ...

    async def add_strangers(self) -> None:
        """Things of others lie in the place, which are no volumes and snapshots of ours."""
        ...

    async def begin_volume(self, volume: Volume) -> None:
        """What is there when whoever makes it dies on the way."""
        ...

    async def begin_snapshot(self, snapshot: Snapshot) -> None:
        """The same for a snapshot."""
        ...

    async def begin_clone(self, volume: Volume, source: Volume) -> None:
        """The same for a clone, with some of the source's bytes."""
        ...

    async def close(self) -> None:
        """What the specification left is taken away, as far as it can be."""
        ...
