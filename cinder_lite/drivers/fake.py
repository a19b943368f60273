"""A driver that keeps its volumes in memory, and fails when a test tells it to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cinder_lite.contract import Snapshot, Volume
from cinder_lite.domain.capacity import lack_of_room
from cinder_lite.errors import SnapshotIsBusy, VolumeBackendAPIException, VolumeIsBusy
from cinder_lite.ports.driver import VolumeStats
from common.testing.script import Script, When

BLOCK_BYTES = 4096
Blocks = dict[int, bytes]
"""Number of a block of BLOCK_BYTES -> what was written there; the others hold zeros."""


@dataclass(frozen=True, slots=True)
class FakeSnapshot:
    """What the fake keeps of a volume of `size` GiB."""

    volume_name: str
    size: int
    blocks: Blocks


@dataclass(slots=True)
class FakeDriver:
    """Implements `cinder_lite.ports.driver.VolumeDriver`.

    sizes           volume name -> GiB, of every volume that is there
    blocks          volume name -> what was written to it
    snapshots       snapshot name -> what it keeps
    made_from       volume name -> the snapshot that it still needs; stays empty unless `links_clones`
    links_clones    True: a volume made from a snapshot needs that snapshot, as in rbd
    in_use          names of volumes that somebody has open
    script          what goes wrong next
    acts            what was asked, as "create_volume volume-1"
    """

    volume_backend_name: str = "fake"
    total_capacity_gb: float = 100.0
    sizes: dict[str, int] = field(default_factory=dict)
    blocks: dict[str, Blocks] = field(default_factory=dict)
    snapshots: dict[str, FakeSnapshot] = field(default_factory=dict)
    made_from: dict[str, str] = field(default_factory=dict)
    links_clones: bool = False
    in_use: set[str] = field(default_factory=set)
    script: Script = field(default_factory=Script)
    acts: list[str] = field(default_factory=list)

    async def check_for_setup_error(self) -> None:
        async with self._act("check_for_setup_error"):
            """The place is always there."""

    async def create_volume(self, volume: Volume) -> None:
        async with self._act("create_volume", volume.name):
            self._make(volume, {})

    async def delete_volume(self, volume: Volume) -> None:
        name = volume.name
        async with self._act("delete_volume", name):
            if name in self.sizes and name in self.in_use:
                raise VolumeIsBusy(volume_name=name, reason="somebody has it open")
            kept = sorted(snapshot for snapshot, found in self.snapshots.items() if found.volume_name == name)
            if kept:
                raise VolumeIsBusy(volume_name=name, reason=f"it has snapshots: {', '.join(kept)}")
            self.sizes.pop(name, None)
            self.blocks.pop(name, None)
            self.made_from.pop(name, None)

    async def extend_volume(self, volume: Volume, new_size: int) -> None:
        async with self._act("extend_volume", volume.name):
            there = self._size_of(volume.name)
            if there > new_size:
                raise VolumeBackendAPIException(
                    data=f"{volume.name} has {there} GiB and is not made smaller; wanted {new_size} GiB"
                )
            self._check_room(new_size - there)
            self.sizes[volume.name] = new_size

    async def create_snapshot(self, snapshot: Snapshot) -> None:
        async with self._act("create_snapshot", snapshot.name):
            size = self._size_of(snapshot.volume_name)
            kept = dict(self.blocks.get(snapshot.volume_name, {}))
            self.snapshots.setdefault(snapshot.name, FakeSnapshot(snapshot.volume_name, size, kept))

    async def delete_snapshot(self, snapshot: Snapshot) -> None:
        async with self._act("delete_snapshot", snapshot.name):
            children = sorted(name for name, parent in self.made_from.items() if parent == snapshot.name)
            if children:
                raise SnapshotIsBusy(snapshot_name=snapshot.name, reason=f"it is needed by {', '.join(children)}")
            self.snapshots.pop(snapshot.name, None)

    async def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> None:
        async with self._act("create_volume_from_snapshot", volume.name):
            kept = self.snapshots.get(snapshot.name)
            if kept is None:
                raise VolumeBackendAPIException(data=f"{snapshot.name} is not there")
            is_new = volume.name not in self.sizes
            self._make(volume, kept.blocks, of=snapshot.name, size=kept.size)
            if self.links_clones and is_new:
                self.made_from[volume.name] = snapshot.name

    async def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> None:
        async with self._act("create_cloned_volume", volume.name):
            size = self._size_of(src_vref.name)
            self._make(volume, self.blocks.get(src_vref.name, {}), of=src_vref.name, size=size)

    def local_path(self, volume: Volume) -> str:
        return f"/fake/{self.volume_backend_name}/{volume.name}"

    async def get_volume_stats(self) -> VolumeStats:
        async with self._act("get_volume_stats"):
            return self._stats()

    async def list_volumes(self) -> set[str]:
        async with self._act("list_volumes"):
            return set(self.sizes)

    async def list_snapshots(self) -> dict[str, str]:
        async with self._act("list_snapshots"):
            return {name: kept.volume_name for name, kept in self.snapshots.items()}

    def _make(self, volume: Volume, blocks: Blocks, *, of: str = "", size: int = 0) -> None:
        there = self.sizes.get(volume.name)
        if there == volume.size:
            return
        if there is not None:
            raise VolumeBackendAPIException(data=f"{volume.name} is there with {there} GiB; wanted {volume.size} GiB")
        if volume.size < size:
            raise VolumeBackendAPIException(data=f"{of} has {size} GiB; {volume.name} of {volume.size} GiB cannot hold it")
        self._check_room(volume.size)
        self.sizes[volume.name] = volume.size
        self.blocks[volume.name] = dict(blocks)

    def _size_of(self, name: str) -> int:
        if name not in self.sizes:
            raise VolumeBackendAPIException(data=f"{name} is not there")
        return self.sizes[name]

    def _check_room(self, size: int) -> None:
        why_not = lack_of_room(size, self._stats()) if size > 0 else None
        if why_not is not None:
            raise VolumeBackendAPIException(data=why_not)

    def _stats(self) -> VolumeStats:
        provisioned = float(sum(self.sizes.values()))
        return VolumeStats(
            volume_backend_name=self.volume_backend_name,
            pool_name=self.volume_backend_name,
            storage_protocol="fake",
            driver_version="1.0.0",
            total_capacity_gb=self.total_capacity_gb,
            free_capacity_gb=self.total_capacity_gb - provisioned,
            provisioned_capacity_gb=provisioned,
        )

    @asynccontextmanager
    async def _act(self, act: str, name: str | None = None) -> AsyncIterator[None]:
        self.acts.append(f"{act} {name}" if name else act)
        self.script.strike(act, When.BEFORE)
        yield
        self.script.strike(act, When.AFTER)
