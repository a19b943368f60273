"""Images of a Ceph pool (cinder/volume/drivers/rbd.py tells the names and the policies).

volume-<id>                an image
volume-<id>@snapshot-<id>  a snapshot of it, protected, so that it can be cloned
volume-<id>.unfinished     what is made from another image, until it is whole: then it is renamed
<image>@<volume>.clone_snap   what a clone is made from, while it is made

A volume made from a snapshot shares its blocks, unless rbd_flatten_volume_from_snapshot; a clone of a volume is flattened at once,
so that each of the two can go first.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from cinder_lite.contract import Snapshot, Volume
from cinder_lite.domain.capacity import lack_of_room
from cinder_lite.drivers.names import is_snapshot_name, is_volume_name
from cinder_lite.drivers.rbd_commands import HAS_SNAPSHOTS, IS_OPEN, NOT_THERE, Rbd, RbdRefused
from cinder_lite.drivers.rbd_report import Image
from cinder_lite.errors import DriverNotInitialized, SnapshotIsBusy, VolumeBackendAPIException, VolumeIsBusy
from cinder_lite.ports.driver import VolumeStats
from common.base.errors import Fault
from common.host.locks import KeyedLocks
from common.host.to_its_end import to_its_end

GIB = 1024**3
_UNFINISHED, _MOMENT = ".unfinished", ".clone_snap"


@dataclass(frozen=True, slots=True)
class RbdOptions:
    """flattens      rbd_flatten_volume_from_snapshot
    capacity_gb   GiB that may be promised; None: what the cluster's manager says of the pool
    """

    rbd: Rbd
    volume_backend_name: str = "rbd"
    flattens: bool = False
    capacity_gb: float | None = None
    max_over_subscription_ratio: float = 1.0
    reserved_percentage: int = 0


class RbdDriver:
    """Implements `cinder_lite.ports.driver.VolumeDriver`."""

    def __init__(self, options: RbdOptions) -> None:
        self._options = options
        self._rbd = options.rbd
        self._locks = KeyedLocks()
        self._usage: tuple[int, int] | None = None

    # -- setup and reports --------------------------------------------------------------------------------------------

    async def check_for_setup_error(self) -> None:
        """The cluster answers, lets the user in, and has the pool."""
        conf, pool = self._rbd.conf, self._rbd.pool
        if conf is not None and not conf.is_file():
            raise self._not_ready(f"rbd_ceph_conf {conf} is not there")
        try:
            await self._rbd.names()
            self._usage = await self._rbd.usage()
        except RbdRefused as exc:
            reason = f"there is no pool {pool}; make it (ceph osd pool create {pool}; rbd pool init {pool}), or set rbd_pool"
            raise self._not_ready(reason if exc.status == NOT_THERE else str(exc)) from exc
        except Fault as exc:
            raise self._not_ready(str(exc)) from exc

    async def get_volume_stats(self) -> VolumeStats:
        """Raises VolumeBackendAPIException when nobody says how much the pool can hold."""
        self._usage = await self._rbd.usage()
        return await self._stats()

    async def _stats(self) -> VolumeStats:
        """With the room that the cluster told of last: to ask for it takes longer than to make a volume."""
        options, usage = self._options, self._usage
        images = (await self._rbd.listing()).images
        sizes = (image.size for name, image in images.items() if is_volume_name(name.removesuffix(_UNFINISHED)))
        if usage is None and options.capacity_gb is None:
            raise VolumeBackendAPIException(
                data=f"the cluster does not say how much pool {self._rbd.pool} can hold: is a ceph-mgr running? Else set rbd_capacity_gb"
            )
        stored, left = usage or (0, int((options.capacity_gb or 0) * GIB))
        total = stored + left if options.capacity_gb is None else options.capacity_gb * GIB
        return VolumeStats(
            volume_backend_name=options.volume_backend_name,
            pool_name=options.volume_backend_name,
            storage_protocol="ceph",
            driver_version="1.0.0",
            total_capacity_gb=total / GIB,
            free_capacity_gb=max(min(left, total - stored), 0) / GIB,
            provisioned_capacity_gb=sum(sizes) / GIB,
            reserved_percentage=options.reserved_percentage,
            max_over_subscription_ratio=options.max_over_subscription_ratio,
            thin_provisioning_support=True,
            multiattach=True,
        )

    async def list_volumes(self) -> set[str]:
        return {plain for name in await self._rbd.names() if is_volume_name(plain := name.removesuffix(_UNFINISHED))}

    async def list_snapshots(self) -> dict[str, str]:
        listing = await self._rbd.listing()
        return {name: image for image, name in listing.snapshots if is_snapshot_name(name) and is_volume_name(image)}

    def local_path(self, volume: Volume) -> str:
        return f"rbd:{self._rbd.pool}/{volume.name}"

    # -- volumes ------------------------------------------------------------------------------------------------------

    async def create_volume(self, volume: Volume) -> None:
        async with self._locks.hold(volume.name):
            if await self._is_there(volume):
                return
            await self._clear_away(volume.name)
            async with self._locks.hold("room"):
                await self._check_room(volume.name, volume.size)
                await self._rbd.create(volume.name, volume.size)

    async def delete_volume(self, volume: Volume) -> None:
        async with self._locks.hold(volume.name):
            await self._clear_away(volume.name)
            if await self._rbd.info(volume.name) is None:
                await self._clear_moment(volume.name)
            if watchers := await self._rbd.watchers(volume.name):
                raise VolumeIsBusy(volume_name=volume.name, reason=f"it is open at {', '.join(watchers)}")
            kept = await self._rbd.snapshots(volume.name)
            if names := sorted(name for name in kept if not name.endswith(_MOMENT)):
                raise VolumeIsBusy(volume_name=volume.name, reason=f"it has snapshots: {', '.join(names)}")
            try:
                for name in kept:  # left by clones that were never made
                    await self._rbd.unsnap(volume.name, name)
                await self._rbd.remove(volume.name)
            except RbdRefused as exc:
                if exc.status in {IS_OPEN, HAS_SNAPSHOTS}:
                    raise VolumeIsBusy(volume_name=volume.name, reason=exc.fields["words"]) from exc
                raise

    async def extend_volume(self, volume: Volume, new_size: int) -> None:
        async with self._locks.hold(volume.name), self._locks.hold("room"):
            found = await self._found(volume.name)
            if found.size > new_size * GIB:
                raise VolumeBackendAPIException(
                    data=f"{volume.name} has {found.size} bytes and is not made smaller; wanted {new_size} GiB"
                )
            if found.size < new_size * GIB:
                await self._check_room(volume.name, new_size - found.size // GIB)
                await self._rbd.resize(volume.name, new_size)

    # -- snapshots and copies -----------------------------------------------------------------------------------------

    async def create_snapshot(self, snapshot: Snapshot) -> None:
        async with self._locks.hold(snapshot.volume_name):
            await self._found(snapshot.volume_name)
            await self._rbd.snap(snapshot.volume_name, snapshot.name)

    async def delete_snapshot(self, snapshot: Snapshot) -> None:
        async with self._locks.hold(snapshot.volume_name):
            try:
                await self._rbd.unsnap(snapshot.volume_name, snapshot.name)
            except RbdRefused as exc:
                if exc.status != IS_OPEN:
                    raise
                children = await self._rbd.children(snapshot.volume_name, snapshot.name)
                reason = f"it is needed by {', '.join(children) or 'a clone'}"
                raise SnapshotIsBusy(snapshot_name=snapshot.name, reason=reason) from exc

    async def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> None:
        async with self._making(volume) as unfinished:
            if unfinished is None:
                return
            found = (await self._rbd.snapshots(snapshot.volume_name)).get(snapshot.name)
            if found is None or not found.is_protected:
                raise VolumeBackendAPIException(data=f"{snapshot.name} of {snapshot.volume_name} is not there")
            _check_fits(snapshot.name, found.size, volume)
            await self._branch(volume, snapshot.volume_name, snapshot.name, found.size, unfinished)
            if self._options.flattens:
                await self._rbd.flatten(unfinished)

    async def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> None:
        async with self._making(volume) as unfinished:
            if unfinished is None:
                return
            source, moment = await self._found(src_vref.name), f"{volume.name}{_MOMENT}"
            _check_fits(src_vref.name, source.size, volume)
            await self._rbd.unsnap(source.name, moment)
            try:
                await self._rbd.snap(source.name, moment)
                await self._branch(volume, source.name, moment, source.size, unfinished)
                await self._rbd.flatten(unfinished)
                await self._rbd.unsnap(source.name, moment)
            except BaseException:
                await to_its_end(self._give_up(unfinished, source.name, moment))
                raise

    # -- steps --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _making(self, volume: Volume) -> AsyncIterator[str | None]:
        """Gives the name of the image that the block makes, which becomes the volume at its end; None: the volume is there."""
        unfinished = f"{volume.name}{_UNFINISHED}"
        async with self._locks.hold(volume.name):
            if await self._is_there(volume):
                yield None
                return
            await self._clear_away(volume.name)
            try:
                yield unfinished
                await self._rbd.rename(unfinished, volume.name)
            except BaseException:
                await to_its_end(self._give_up(unfinished))
                raise

    async def _branch(self, volume: Volume, image: str, snapshot: str, size: int, unfinished: str) -> None:
        async with self._locks.hold("room"):
            await self._check_room(volume.name, volume.size)
            await self._rbd.clone(image, snapshot, unfinished)
            if size < volume.size * GIB:
                await self._rbd.resize(unfinished, volume.size)

    async def _clear_away(self, name: str) -> None:
        """What a maker of that volume who died has left: half of the image, and the moment that it was made from."""
        unfinished = f"{name}{_UNFINISHED}"
        if unfinished not in await self._rbd.names():
            return
        found = await self._rbd.info(unfinished)
        await self._rbd.remove(unfinished)
        if found is not None and found.parent is not None and found.parent[1] == f"{name}{_MOMENT}":
            await self._rbd.unsnap(*found.parent)

    async def _clear_moment(self, name: str) -> None:
        """A moment from which nothing was made yet when its maker died: nothing but a search finds its image."""
        for image, snapshot in (await self._rbd.listing()).snapshots:
            if snapshot == f"{name}{_MOMENT}":
                await self._rbd.unsnap(image, snapshot)

    async def _give_up(self, unfinished: str, source: str | None = None, moment: str = "") -> None:
        """After a failure, which is the one to be told: what was made is gone, as far as it can be."""
        with suppress(Fault):
            await self._rbd.remove(unfinished)
            if source is not None:
                await self._rbd.unsnap(source, moment)

    async def _is_there(self, volume: Volume) -> bool:
        """Raises VolumeBackendAPIException when it has another size."""
        found = await self._rbd.info(volume.name)
        if found is not None and found.size != volume.size * GIB:
            raise VolumeBackendAPIException(data=f"{volume.name} is there with {found.size} bytes; wanted {volume.size} GiB")
        return found is not None

    async def _found(self, name: str) -> Image:
        found = await self._rbd.info(name)
        if found is None:
            raise VolumeBackendAPIException(data=f"{name} is not there in pool {self._rbd.pool}")
        return found

    async def _check_room(self, name: str, size: int) -> None:
        why_not = lack_of_room(size, await self._stats())
        if why_not is not None:
            raise VolumeBackendAPIException(data=f"no room for {name} in pool {self._rbd.pool}: {why_not}")

    def _not_ready(self, reason: str) -> DriverNotInitialized:
        return DriverNotInitialized(backend=self._options.volume_backend_name, reason=reason)


def _check_fits(name: str, size: int, volume: Volume) -> None:
    if size > volume.size * GIB:
        raise VolumeBackendAPIException(data=f"{name} has {size} bytes; {volume.name} of {volume.size} GiB cannot hold it")
