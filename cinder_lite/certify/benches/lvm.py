"""The bench of the LVM driver: half-made logical volumes and other people's."""

from cinder_lite.certify.benches.local import is_listed
from cinder_lite.contract import Snapshot, Volume
from cinder_lite.drivers.lvm import UNFINISHED
from cinder_lite.drivers.lvm_commands import Lvm
from common.base.ids import new_uuid


class LvmStaging:
    """Implements `cinder_lite.certify.benches.staging.Staging` for one volume group."""

    def __init__(self, lvm: Lvm) -> None:
        self._lvm = lvm
        self._staged: list[str] = []

    async def others(self) -> set[str]:
        return {name for name in await self._lvm.volumes() if not is_listed(name.removeprefix("_"))}

    async def add_strangers(self) -> None:
        for name in ("volume-of-another", f"backup-volume-{new_uuid()}", f"clone-snap-{new_uuid()}", "_snapshot-1", "root"):
            await self._add(name)

    async def begin_volume(self, volume: Volume) -> None:
        await self._add(volume.name, UNFINISHED)

    async def begin_snapshot(self, snapshot: Snapshot) -> None:
        await self._add(f"_{snapshot.name}", UNFINISHED, f"cinder_origin={snapshot.volume_name}")

    async def begin_clone(self, volume: Volume, source: Volume) -> None:
        await self._add(volume.name, UNFINISHED)

    async def close(self) -> None:
        there = await self._lvm.volumes()
        for name in self._staged:
            if name in there and not is_listed(name.removeprefix("_")):
                await self._lvm.ask("lvremove", "-y", self._lvm.path(name))

    async def _add(self, name: str, *tags: str) -> None:
        options = ("-y",) if self._lvm.is_activated else ("-an", "-Zn", "-Wn", "--alloc", "contiguous")
        tagged = [word for tag in tags for word in ("--addtag", tag)]
        await self._lvm.ask("lvcreate", *options, "-L", "64m", *tagged, "-n", name, self._lvm.group)
        self._staged.append(name)
