"""Each volume driver of this project on its bench."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from cinder_lite.certify.benches.fake import FakeBench
from cinder_lite.certify.benches.file import FileStaging
from cinder_lite.certify.benches.local import LocalBench
from cinder_lite.certify.benches.lvm import LvmStaging
from cinder_lite.certify.benches.rbd import RbdBench
from cinder_lite.certify.driver_bench import GIB, DriverBench
from cinder_lite.certify.specification import NotStaged
from cinder_lite.contract import Snapshot, Volume
from cinder_lite.drivers.fake import FakeDriver
from cinder_lite.drivers.file import FileDriver, FileOptions
from cinder_lite.drivers.lvm import LvmDriver, LvmOptions
from cinder_lite.drivers.lvm_commands import Lvm
from cinder_lite.drivers.rbd import RbdDriver, RbdOptions
from cinder_lite.drivers.rbd_commands import Rbd
from common.host.clock import SystemClock
from tests.simulation.adapters import SimulatedDriver
from tests.simulation.bench import Workbench
from tests.simulation.reality import SECTOR_BYTES
from tests.support.ceph import POOL, USER, CephCluster
from tests.support.lvm import GROUP, PrivateGroup


@asynccontextmanager
async def fake(_: Path) -> AsyncIterator[DriverBench]:
    yield FakeBench(FakeDriver(total_capacity_gb=10))


@asynccontextmanager
async def fake_with_links(_: Path) -> AsyncIterator[DriverBench]:
    yield FakeBench(FakeDriver(total_capacity_gb=10, links_clones=True))


@asynccontextmanager
async def file(folder: Path) -> AsyncIterator[DriverBench]:
    place = folder / "volumes"
    yield await LocalBench.over(FileDriver(FileOptions(volumes_dir=place, capacity_gb=10)), FileStaging(place))


@asynccontextmanager
async def simulation(_: Path) -> AsyncIterator[DriverBench]:
    yield SimulatedBench()


class SimulatedBench:
    """Implements `cinder_lite.certify.driver_bench.DriverBench`."""

    def __init__(self) -> None:
        self._bench = Workbench()
        self.reality = self._bench.reality
        self.driver = SimulatedDriver(self.reality, self._bench.process, backend="simulated")

    async def names(self) -> set[str]:
        return set(self.reality.volumes) | set(self.reality.snapshots)

    async def size_of(self, name: str) -> int:
        return int(self.reality.volumes[name].size_gib * GIB)

    async def read(self, volume: Volume, offset: int, length: int) -> bytes:
        assert offset + length <= await self.size_of(volume.name)
        sectors = self.reality.volumes[volume.name].sectors
        return b"".join(bytes([sectors.get(number, 0)]) * SECTOR_BYTES for number in _sectors(offset, length))

    async def write(self, volume: Volume, offset: int, data: bytes) -> None:
        assert offset + len(data) <= await self.size_of(volume.name)
        self.reality.volumes[volume.name].sectors.update(dict.fromkeys(_sectors(offset, len(data)), data[0]))

    @asynccontextmanager
    async def used(self, volume: Volume) -> AsyncIterator[None]:
        self.reality.export("iqn.used", self.reality.path(volume.name), None)
        yield
        self.reality.unexport("iqn.used")

    async def add_strangers(self) -> None:
        raise NotStaged("nothing of others is in this reality")

    async def begin_volume(self, volume: Volume) -> None:
        raise NotStaged("an act of the simulation is done whole or not at all")

    async def begin_snapshot(self, snapshot: Snapshot) -> None:
        raise NotStaged("an act of the simulation is done whole or not at all")

    async def begin_clone(self, volume: Volume, source: Volume) -> None:
        raise NotStaged("an act of the simulation is done whole or not at all")

    async def close(self) -> None:
        assert self._bench.violations == []


def _sectors(offset: int, length: int) -> range:
    return range(offset // SECTOR_BYTES, (offset + length) // SECTOR_BYTES)


@asynccontextmanager
async def lvm(folder: Path, group: PrivateGroup) -> AsyncIterator[DriverBench]:
    """On loop devices: thick, and snapshots are copies."""
    options = LvmOptions(
        volume_group=GROUP, lvm_type="default", devices="loop", links_dir=folder / "links", system_dir=group.system_dir
    )
    lvm = Lvm(GROUP, is_activated=False, system_dir=group.system_dir)
    yield await LocalBench.over(LvmDriver(options), LvmStaging(lvm))


@asynccontextmanager
async def rbd(cluster: CephCluster) -> AsyncIterator[DriverBench]:
    rbd = Rbd(POOL, USER, cluster.client_conf)
    yield await RbdBench.over(RbdDriver(RbdOptions(rbd, capacity_gb=10)), rbd, SystemClock())


BENCHES: dict[str, Callable[[Path], AbstractAsyncContextManager[DriverBench]]] = {
    "fake": fake,
    "fake with links": fake_with_links,
    "file": file,
    "simulation": simulation,
}
