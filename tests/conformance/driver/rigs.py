"""Each volume driver with what the suite needs to look behind it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.drivers.fake import FakeDriver
from cinder_lite.drivers.file import FileDriver, FileOptions
from cinder_lite.ports.driver import VolumeDriver
from common.base.ids import new_uuid
from tests.simulation.adapters import SimulatedDriver
from tests.simulation.bench import Workbench
from tests.simulation.reality import BackendVolume

GIB = 1024**3


def volume(size: int = 1) -> Volume:
    return Volume(id=new_uuid(), size=size, status=VolumeStatus.CREATING)


class Rig(Protocol):
    """A driver of a place of 10 GiB, and a look at that place."""

    @property
    def driver(self) -> VolumeDriver: ...

    def names(self) -> set[str]:
        """Of everything that is in the place."""
        ...

    def size_of(self, name: str) -> int:
        """Bytes."""
        ...

    async def read(self, volume: Volume, offset: int, length: int) -> bytes: ...

    def used(self, volume: Volume) -> AbstractAsyncContextManager[None]:
        """Somebody else has it open meanwhile."""
        ...

    def break_creating(self) -> None:
        """From now on no volume can be made."""
        ...

    def begin_creating(self, volume: Volume) -> None:
        """What is there when whoever makes it dies on the way."""
        ...

    def add_strangers(self) -> None:
        """Things of others lie in the place."""
        ...


class FakeRig:
    def __init__(self) -> None:
        self.driver = FakeDriver(total_capacity_gb=10)

    def names(self) -> set[str]:
        return set(self.driver.sizes)

    def size_of(self, name: str) -> int:
        return self.driver.sizes[name] * GIB

    async def read(self, volume: Volume, offset: int, length: int) -> bytes:
        assert offset + length <= self.size_of(volume.name)
        return bytes(length)

    @asynccontextmanager
    async def used(self, volume: Volume) -> AsyncIterator[None]:
        self.driver.in_use.add(volume.name)
        yield
        self.driver.in_use.remove(volume.name)

    def break_creating(self) -> None:
        self.driver.total_capacity_gb = 0.5

    def begin_creating(self, volume: Volume) -> None:
        self.driver.sizes[volume.name] = 0

    def add_strangers(self) -> None:
        pass


class FileRig:
    def __init__(self, folder: Path) -> None:
        self._folder = folder / "volumes"
        self.driver = FileDriver(FileOptions(volumes_dir=self._folder, capacity_gb=10))

    def names(self) -> set[str]:
        return {path.name for path in self._folder.iterdir()}

    def size_of(self, name: str) -> int:
        return (self._folder / name).stat().st_size

    async def read(self, volume: Volume, offset: int, length: int) -> bytes:
        return await asyncio.to_thread(_read, self.driver.local_path(volume), offset, length)

    @asynccontextmanager
    async def used(self, volume: Volume) -> AsyncIterator[None]:
        holder = await asyncio.create_subprocess_exec(
            "sh", "-c", 'exec 3<"$0"; echo open; read _', self.driver.local_path(volume),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"open\n"
        try:
            yield
        finally:
            await holder.communicate(b"\n")

    def break_creating(self) -> None:
        """A volume of another takes the whole place."""
        other = self._folder / "volume-of-another"
        other.touch()
        os.truncate(other, 10 * GIB)

    def begin_creating(self, volume: Volume) -> None:
        (self._folder / f".{volume.name}.unfinished").touch()

    def add_strangers(self) -> None:
        (self._folder / "exports").mkdir()
        for name in ("volume-of-another", f"backup-{volume().name}", f"{volume().name}.old", "lost+found"):
            (self._folder / name).touch()


class SimulatedRig:
    def __init__(self) -> None:
        self._bench = Workbench()
        self.driver = SimulatedDriver(self._bench.reality, self._bench.process, backend="simulated")

    def names(self) -> set[str]:
        return set(self._bench.reality.volumes)

    def size_of(self, name: str) -> int:
        return int(self._bench.reality.volumes[name].size_gib * GIB)

    async def read(self, volume: Volume, offset: int, length: int) -> bytes:
        assert offset + length <= self.size_of(volume.name)
        assert self._bench.reality.volumes[volume.name].sectors == {}
        return bytes(length)

    @asynccontextmanager
    async def used(self, volume: Volume) -> AsyncIterator[None]:
        reality = self._bench.reality
        reality.export("iqn.used", reality.path(volume.name), None)
        yield
        reality.unexport("iqn.used")

    def break_creating(self) -> None:
        self._bench.reality.total_gib = 0.5

    def begin_creating(self, volume: Volume) -> None:
        self._bench.reality.volumes[volume.name] = BackendVolume(0)

    def add_strangers(self) -> None:
        pass


def _read(path: str, offset: int, length: int) -> bytes:
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(length)
