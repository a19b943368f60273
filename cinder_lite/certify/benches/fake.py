"""The bench of the fake driver: its memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cinder_lite.certify.specification import NotStaged
from cinder_lite.contract import Snapshot, Volume
from cinder_lite.drivers.fake import BLOCK_BYTES, FakeDriver

_GIB = 1024**3


class FakeBench:
    """Implements `cinder_lite.certify.driver_bench.DriverBench`."""

    def __init__(self, driver: FakeDriver) -> None:
        self.driver = driver

    async def names(self) -> set[str]:
        return set(self.driver.sizes) | set(self.driver.snapshots)

    async def size_of(self, name: str) -> int:
        return self.driver.sizes[name] * _GIB

    async def read(self, volume: Volume, offset: int, length: int) -> bytes:
        assert offset + length <= await self.size_of(volume.name)
        return self.driver.blocks[volume.name].get(offset // BLOCK_BYTES, bytes(BLOCK_BYTES))[:length]

    async def write(self, volume: Volume, offset: int, data: bytes) -> None:
        assert offset + len(data) <= await self.size_of(volume.name)
        self.driver.blocks[volume.name][offset // BLOCK_BYTES] = data

    @asynccontextmanager
    async def used(self, volume: Volume) -> AsyncIterator[None]:
        self.driver.in_use.add(volume.name)
        try:
            yield
        finally:
            self.driver.in_use.discard(volume.name)

    async def add_strangers(self) -> None:
        raise NotStaged("the fake's memory is its own")

    async def begin_volume(self, volume: Volume) -> None:
        raise NotStaged("the fake does all or nothing")

    async def begin_snapshot(self, snapshot: Snapshot) -> None:
        raise NotStaged("the fake does all or nothing")

    async def begin_clone(self, volume: Volume, source: Volume) -> None:
        raise NotStaged("the fake does all or nothing")

    async def close(self) -> None:
        self.driver.sizes.clear()
        self.driver.blocks.clear()
        self.driver.snapshots.clear()
        self.driver.made_from.clear()
