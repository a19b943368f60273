"""Logical volumes of LVM, thick or thin (cinder/volume/drivers/lvm.py tells the names and the policies).

volume-<id>       a volume
_snapshot-<id>    a snapshot; LVM keeps names that begin with "snapshot" for itself
clone-snap-<id>   what a thick clone is copied from, while it is copied
<group>-pool      the pool of the thin ones

What takes more than one command to make bears the tag `cinder_unfinished` until it is whole. A snapshot bears its volume's name in
a tag as well, for LVM forgets the origin where the snapshot is a copy.

Clearing: thick volumes are cleared before they are removed, as `volume_clear` says; what lies free is taken to be clear, so a
group that held other things before must be cleared once by its owner. A thin pool gives zeros by itself.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cinder_lite.contract import Snapshot, Volume
from cinder_lite.domain.capacity import lack_of_room
from cinder_lite.drivers.lvm_bytes import Clearing, copy
from cinder_lite.drivers.lvm_commands import Lvm, LvmRefused
from cinder_lite.drivers.lvm_devices import Devices, LoopDevices, MappedDevices
from cinder_lite.drivers.lvm_report import LogicalVolume
from cinder_lite.drivers.names import is_snapshot_name, is_volume_name
from cinder_lite.errors import DriverNotInitialized, SnapshotIsBusy, VolumeBackendAPIException, VolumeIsBusy
from cinder_lite.ports.driver import VolumeStats
from common.base.errors import Fault
from common.host.locks import KeyedLocks
from common.host.to_its_end import to_its_end

GIB = 1024**3
UNFINISHED = "cinder_unfinished"
_ORIGIN = "cinder_origin="
_POOL_SHARE = 0.95
"""Of the free room, for a thin pool that the driver makes; the rest is for its metadata to grow (cinder's figure)."""


@dataclass(frozen=True, slots=True)
class LvmOptions:
    """cinder's options of an LVM backend.

    lvm_type     "default" is thick; "auto" thin where the group has the pool already or is empty
    devices      "device-mapper", or "loop" for a kernel without it: thick only, each volume in one piece, snapshots are copies
    links_dir    where "loop" puts the paths of its volumes
    system_dir   LVM_SYSTEM_DIR
    """

    volume_group: str = "cinder-volumes"
    volume_backend_name: str = "lvm"
    lvm_type: Literal["default", "thin", "auto"] = "auto"
    devices: Literal["device-mapper", "loop"] = "device-mapper"
    links_dir: Path = Path("/var/lib/lite/cinder/volumes/lvm")
    system_dir: Path | None = None
    clearing: Clearing = field(default_factory=Clearing)
    max_over_subscription_ratio: float = 1.0
    reserved_percentage: int = 0
    storage_protocol: str = "iSCSI"


class LvmDriver:
    """Implements `cinder_lite.ports.driver.VolumeDriver`. Needs root, as LVM does."""

    def __init__(self, options: LvmOptions, *, devices: Devices | None = None) -> None:
        self._options = options
        is_mapped = options.devices == "device-mapper"
        self._lvm = Lvm(options.volume_group, is_activated=is_mapped, system_dir=options.system_dir)
        self._devices = devices or (MappedDevices(self._lvm) if is_mapped else LoopDevices(self._lvm, options.links_dir))
        self._is_thin = options.lvm_type == "thin"
        self._locks = KeyedLocks()

    # -- setup and reports --------------------------------------------------------------------------------------------

    async def check_for_setup_error(self) -> None:
        """The group is there and can be used; the thin pool is made when it is not there."""
        try:
            if reason := await self._devices.why_not():
                raise self._not_ready(reason)
            groups = await self._lvm.groups()
            if self._options.volume_group not in groups:
                raise self._not_ready(
                    f"there is no volume group {self._options.volume_group}; found: {', '.join(sorted(groups)) or 'none'}. Make it "
                    f"(vgcreate {self._options.volume_group} DEVICE), or set volume_group"
                )
            volumes = await self._lvm.volumes()
            self._is_thin = self._chosen_thin(volumes)
            if self._is_thin and self._pool not in volumes:
                await self._create_pool()
            await self._devices.tidy(await self._lvm.volumes())
        except DriverNotInitialized:
            raise
        except Fault as exc:
            raise self._not_ready(str(exc)) from exc

    async def get_volume_stats(self) -> VolumeStats:
        options = self._options
        volumes, room = await self._lvm.volumes(), await self._lvm.room()
        total, free = room.size, float(room.free)
        if self._is_thin:
            pool = volumes[self._pool]
            total, free = pool.size, pool.size * (1 - (pool.data_percent or 0) / 100)
        return VolumeStats(
            volume_backend_name=options.volume_backend_name,
            pool_name=options.volume_backend_name,
            storage_protocol=options.storage_protocol,
            driver_version="1.0.0",
            total_capacity_gb=total / GIB,
            free_capacity_gb=free / GIB,
            provisioned_capacity_gb=sum(found.size for name, found in volumes.items() if is_volume_name(name)) / GIB,
            reserved_percentage=options.reserved_percentage,
            max_over_subscription_ratio=options.max_over_subscription_ratio if self._is_thin else 1.0,
            thin_provisioning_support=self._is_thin,
        )

    async def list_volumes(self) -> set[str]:
        return {name for name in await self._lvm.volumes() if is_volume_name(name)}

    async def list_snapshots(self) -> dict[str, str]:
        volumes = await self._lvm.volumes()
        names = {name.removeprefix("_"): _origin_of(found) for name, found in volumes.items()}
        return {name: origin for name, origin in names.items() if is_snapshot_name(name)}

    def local_path(self, volume: Volume) -> str:
        return self._devices.path(volume.name)

    # -- volumes ------------------------------------------------------------------------------------------------------

    async def create_volume(self, volume: Volume) -> None:
        async with self._making(volume.name, volume.size):
            """Free room reads as zeros."""

    async def delete_volume(self, volume: Volume) -> None:
        async with self._changing(volume.name) as volumes:
            kept = [name.removeprefix("_") for name, found in volumes.items() if _is_snapshot_of(found, volume.name)]
            if kept:
                raise VolumeIsBusy(volume_name=volume.name, reason=f"it has snapshots: {', '.join(sorted(kept))}")
            await self._remove_if_there(volumes, _temporary(volume.name))
            found = volumes.get(volume.name)
            if found and (users := await self._devices.users(found)):
                raise VolumeIsBusy(volume_name=volume.name, reason=f"it is open in {', '.join(users)}")
            await self._remove_if_there(volumes, volume.name)

    async def extend_volume(self, volume: Volume, new_size: int) -> None:
        async with self._changing(volume.name) as volumes:
            found = self._whole(volumes, volume.name)
            if found.size > new_size * GIB:
                raise VolumeBackendAPIException(
                    data=f"{volume.name} has {found.size} bytes and is not made smaller; wanted {new_size} GiB"
                )
            if found.size < new_size * GIB:
                async with self._locks.hold("room"):
                    await self._check_room(volume.name, new_size - found.size // GIB)
                    await self._extend(found, new_size, volumes)
            await self._devices.open((await self._lvm.volumes())[volume.name])

    # -- snapshots and copies -----------------------------------------------------------------------------------------

    async def create_snapshot(self, snapshot: Snapshot) -> None:
        name, tags = f"_{snapshot.name}", (f"{_ORIGIN}{snapshot.volume_name}",)
        async with self._changing(snapshot.volume_name) as volumes:
            source = self._whole(volumes, snapshot.volume_name)
            if name in volumes and UNFINISHED not in volumes[name].tags:
                return
            await self._remove_if_there(volumes, name)
            if self._devices.has_snapshots:
                await self._take(source, name, *tags)
                return
            async with self._filling(name, source.size, *tags) as made:
                await self._copy_still(source, made)

    async def delete_snapshot(self, snapshot: Snapshot) -> None:
        name = f"_{snapshot.name}"
        async with self._changing(snapshot.volume_name) as volumes:
            found = volumes.get(name)
            if found and (users := await self._devices.users(found)):
                raise SnapshotIsBusy(snapshot_name=snapshot.name, reason=f"it is open in {', '.join(users)}")
            await self._remove_if_there(volumes, name)

    async def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> None:
        name = f"_{snapshot.name}"
        async with self._making(volume.name, volume.size, of=name) as making:
            if making is None:
                return
            source, made = making
            if source.is_invalid:
                raise VolumeBackendAPIException(data=f"{snapshot.name} ran full of changes to its volume, and what it kept is lost")
            if not self._is_thin:
                await self._devices.open(source)
                await copy(self._devices.path(name), self._devices.path(made.name), source.size)

    async def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> None:
        async with self._making(volume.name, volume.size, of=src_vref.name) as making:
            if making is None or self._is_thin:
                return
            source, made = making
            if not self._devices.has_snapshots:
                await self._copy_still(source, made)
                return
            moment = _temporary(volume.name)
            await self._take(source, moment)
            try:
                await copy(self._devices.path(moment), self._devices.path(made.name), source.size)
            finally:
                await to_its_end(self._remove((await self._lvm.volumes())[moment]))

    # -- steps --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _changing(self, name: str) -> AsyncIterator[Mapping[str, LogicalVolume]]:
        """Alone with that volume; gives all as they are. LVM's refusals become the port's errors."""
        async with self._locks.hold(name):
            try:
                yield await self._lvm.volumes()
            except LvmRefused as exc:
                raise VolumeBackendAPIException(data=f"{name}: {exc}") from exc

    @asynccontextmanager
    async def _making(
        self, name: str, size: int, *, of: str | None = None
    ) -> AsyncIterator[tuple[LogicalVolume, LogicalVolume] | None]:
        """The volume is there at the end of the block, which fills it: it gets the source and what was made.

        None when it is there already, or is of nothing. A thin one made of a source has that one's bytes at once.
        """
        async with self._changing(name) as volumes:
            found = volumes.get(name)
            if found is not None and UNFINISHED not in found.tags:
                if found.size != size * GIB:
                    raise VolumeBackendAPIException(data=f"{name} is there with {found.size} bytes; wanted {size} GiB")
                await self._devices.open(found)
                yield None
                return
            source = self._source(volumes, of, name, size) if of else None
            await self._remove_if_there(volumes, _temporary(name))
            await self._remove_if_there(volumes, name)
            if source is None:
                await self._create(name, size * GIB)
                yield None
                return
            async with self._filling(name, size * GIB, of=source) as made:
                yield source, made

    @asynccontextmanager
    async def _filling(self, name: str, size: int, *tags: str, of: LogicalVolume | None = None) -> AsyncIterator[LogicalVolume]:
        """A volume that is whole at the end of the block, and gone when the block fails."""
        try:
            if self._is_thin and of is not None:
                made = await self._branch(of, name, size)
            else:
                made = await self._create(name, size, UNFINISHED, *tags)
            yield made
            await self._lvm.ask("lvchange", "--deltag", UNFINISHED, self._lvm.path(name))
        except BaseException:
            await to_its_end(self._give_up(name))
            raise

    async def _create(self, name: str, size: int, *tags: str) -> LogicalVolume:
        """It is there, and its device. One at a time: the room that one takes is no longer there for the next."""
        async with self._locks.hold("room"):
            await self._check_room(name, size // GIB)
            if self._is_thin:
                where = ("-y", "-kn", "-T", "-V", f"{size}b", *_tagged(tags), "-n", name, self._lvm.path(self._pool))
            else:
                place = await self._devices.placement(size)
                where = (*place.options, "-L", f"{size}b", *_tagged(tags), "-n", name, self._lvm.group, *place.where)
            await self._lvm.ask("lvcreate", *where)
        try:
            made = (await self._lvm.volumes())[name]
            await self._devices.open(made)
        except BaseException:
            await to_its_end(self._give_up(name))
            raise
        return made

    async def _branch(self, source: LogicalVolume, name: str, size: int) -> LogicalVolume:
        """A thin volume that shares the blocks of another."""
        async with self._locks.hold("room"):
            await self._check_room(name, size // GIB)
            await self._take(source, name, UNFINISHED)
            if size > source.size:
                await self._lvm.ask("lvextend", "-L", f"{size}b", self._lvm.path(name))
        return (await self._lvm.volumes())[name]

    async def _take(self, source: LogicalVolume, name: str, *tags: str) -> None:
        """LVM's own snapshot, of one moment, whoever writes meanwhile. A thick one gets the room to take every change."""
        room = () if self._is_thin else ("-L", f"{source.size}b")
        await self._lvm.ask("lvcreate", "-y", "-kn", "-s", *room, *_tagged(tags), "-n", name, self._lvm.path(source.name))
        await self._devices.open((await self._lvm.volumes())[name])

    async def _extend(self, found: LogicalVolume, new_size: int, volumes: Mapping[str, LogicalVolume]) -> None:
        path, one_piece = self._lvm.path(found.name), () if self._devices.has_snapshots else ("--alloc", "contiguous")
        has_snapshots = any(_is_snapshot_of(other, found.name) for other in volumes.values())
        if self._is_thin or not self._devices.has_snapshots or not has_snapshots:
            await self._lvm.ask("lvextend", *one_piece, "-L", f"{new_size * GIB}b", path)
            return
        if users := await self._devices.users(found):
            # lvextend(8): "Snapshot origin volumes can be resized only while inactive".
            raise VolumeIsBusy(
                f"{found.name} has snapshots and is open in {', '.join(users)}: LVM extends it only while nobody has it open",
                volume_name=found.name,
                reason="it has snapshots and is in use",
            )
        await self._devices.close(found.name)
        try:
            await self._lvm.ask("lvextend", "-L", f"{new_size * GIB}b", path)
        finally:
            await to_its_end(self._lvm.ask("lvchange", "-ay", "-K", path))

    async def _copy_still(self, source: LogicalVolume, made: LogicalVolume) -> None:
        """Copies a volume that nobody has open, for a copy that takes time is no single moment."""
        for when in ("before", "while"):
            if users := await self._devices.users(source):
                raise VolumeIsBusy(
                    f"{source.name} is open in {', '.join(users)}, and without device-mapper LVM has no snapshots; detach it first",
                    volume_name=source.name,
                    reason=f"open in {', '.join(users)} {when} it was copied",
                )
            if when == "before":
                await copy(self._devices.path(source.name), self._devices.path(made.name), source.size)

    async def _remove_if_there(self, volumes: Mapping[str, LogicalVolume], name: str) -> None:
        if name in volumes:
            await self._remove(volumes[name])
        else:
            await self._devices.close(name)

    async def _remove(self, found: LogicalVolume) -> None:
        """Cleared, and gone."""
        if not found.pool:
            await self._devices.open(found)
            device = _changes_of(self._lvm.group, found.name) if found.is_thick_snapshot else self._devices.path(found.name)
            await self._options.clearing.clear(device, found.size)
        if not found.is_thick_snapshot:  # its device is its volume's too, and ends by lvremove
            await self._devices.close(found.name)
        await self._lvm.ask("lvremove", "-y", self._lvm.path(found.name))

    async def _give_up(self, name: str) -> None:
        """After a failure, which is the one to be told: what was made is gone, as far as it can be."""
        with suppress(Fault):
            volumes = await self._lvm.volumes()
            await self._remove_if_there(volumes, _temporary(name))
            await self._remove_if_there(volumes, name)

    # -- decisions ----------------------------------------------------------------------------------------------------

    @property
    def _pool(self) -> str:
        return f"{self._options.volume_group}-pool"

    def _chosen_thin(self, volumes: Mapping[str, LogicalVolume]) -> bool:
        match self._options.lvm_type:
            case "thin" if not self._devices.has_snapshots:
                raise self._not_ready("lvm_type is thin, which needs device-mapper; with lvm_devices = loop it must be default")
            case "auto":
                return self._devices.has_snapshots and (self._pool in volumes or not volumes)
            case chosen:
                return chosen == "thin"

    async def _create_pool(self) -> None:
        room = await self._lvm.room()
        size = int(room.free * _POOL_SHARE) // room.extent_size * room.extent_size
        await self._lvm.ask("lvcreate", "-y", "-T", "-L", f"{size}b", self._lvm.path(self._pool))

    async def _check_room(self, name: str, size: int) -> None:
        why_not = lack_of_room(size, await self.get_volume_stats())
        if why_not is not None:
            raise VolumeBackendAPIException(data=f"no room for {name} in volume group {self._options.volume_group}: {why_not}")

    def _whole(self, volumes: Mapping[str, LogicalVolume], name: str) -> LogicalVolume:
        found = volumes.get(name)
        if found is None or UNFINISHED in found.tags:
            raise VolumeBackendAPIException(data=f"{name.removeprefix('_')} is not there in volume group {self._lvm.group}")
        return found

    def _source(self, volumes: Mapping[str, LogicalVolume], of: str, name: str, size: int) -> LogicalVolume:
        source = self._whole(volumes, of)
        if source.size > size * GIB:
            raise VolumeBackendAPIException(data=f"{of} has {source.size} bytes; {name} of {size} GiB cannot hold it")
        return source

    def _not_ready(self, reason: str) -> DriverNotInitialized:
        return DriverNotInitialized(backend=self._options.volume_backend_name, reason=reason)


def _temporary(name: str) -> str:
    return f"clone-snap-{name.removeprefix('volume-')}"


def _tagged(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for tag in tags for word in ("--addtag", tag))


def _origin_of(found: LogicalVolume) -> str:
    tagged = [tag.removeprefix(_ORIGIN) for tag in found.tags if tag.startswith(_ORIGIN)]
    return tagged[0] if tagged else found.origin


def _is_snapshot_of(found: LogicalVolume, name: str) -> bool:
    return is_snapshot_name(found.name.removeprefix("_")) and _origin_of(found) == name


def _changes_of(group: str, name: str) -> str:
    """The device where a thick snapshot keeps what its volume has overwritten: cleared instead of the snapshot, which reads both.

    Device-mapper doubles the dashes of a name (lvm2/libdm, dm_build_dm_name).
    """
    return f"/dev/mapper/{group.replace('-', '--')}-{name.replace('-', '--')}-cow"
