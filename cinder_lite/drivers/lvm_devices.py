"""How the bytes of a logical volume are reached: by device-mapper, or by a loop device where the kernel has none."""

import asyncio
import fcntl
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cinder_lite.drivers import lvm_report
from cinder_lite.drivers.lvm_commands import Lvm, LvmRefused, has_device_mapper
from cinder_lite.drivers.lvm_report import Extents, LogicalVolume, LoopDevice, PhysicalVolume, VolumeGroup
from cinder_lite.drivers.users import users_of
from cinder_lite.errors import VolumeBackendAPIException
from common.host.command import run
from common.host.to_its_end import in_thread, to_its_end

_LOOP_GET_STATUS64, _LOOP_SET_STATUS64 = 0x4C05, 0x4C04
_LOOP_INFO64_BYTES = 232
_SIZELIMIT_AT = 32
"""linux/loop.h, struct loop_info64: lo_sizelimit follows four numbers of 8 bytes."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How lvcreate is asked for a place: options that come first, and physical extents that come last."""

    options: tuple[str, ...]
    where: tuple[str, ...] = ()


class Devices(Protocol):
    """Where the bytes of one group's logical volumes are.

    has_snapshots   LVM's own snapshots work
    """

    @property
    def has_snapshots(self) -> bool: ...

    def path(self, name: str) -> str:
        """Of the device, which need not be there yet."""
        ...

    async def why_not(self) -> str | None:
        """What this machine lacks; None: it will do."""
        ...

    async def placement(self, size: int) -> Placement:
        """Where `size` bytes go. Raises VolumeBackendAPIException when they do not fit so."""
        ...

    async def open(self, volume: LogicalVolume) -> None:
        """The device is there, with the volume's size, and is this volume's. There already: nothing happens."""
        ...

    async def close(self, name: str) -> None:
        """The device is gone. Gone already: nothing happens. Raises LvmRefused while it is open."""
        ...

    async def users(self, volume: LogicalVolume) -> list[str]:
        """Who has it open."""
        ...

    async def tidy(self, volumes: Mapping[str, LogicalVolume]) -> None:
        """After a start of the machine or a crash: devices of these volumes are there, and of no others."""
        ...


class MappedDevices:
    """Implements `Devices` by device-mapper: /dev/<group>/<name>."""

    has_snapshots = True

    def __init__(self, lvm: Lvm) -> None:
        self._lvm = lvm

    def path(self, name: str) -> str:
        return f"/dev/{self._lvm.group}/{name}"

    async def why_not(self) -> str | None:
        if await has_device_mapper():
            return None
        return (
            "this kernel has no device-mapper, so logical volumes cannot be activated. Load dm_mod, or, to try things out on loop "
            "devices, set lvm_devices = loop"
        )

    async def placement(self, size: int) -> Placement:  # noqa: ARG002  # anywhere: device-mapper puts pieces together
        # -y: traces of a file system that lay there before are wiped without asking. -kn: activated like any other.
        return Placement(("-y", "-kn"))

    async def open(self, volume: LogicalVolume) -> None:
        if not volume.is_active:
            name = volume.origin if volume.is_thick_snapshot else volume.name
            await self._lvm.ask("lvchange", "-ay", "-K", self._lvm.path(name))

    async def close(self, name: str) -> None:
        found = (await self._lvm.volumes()).get(name)
        if found is not None and found.is_active:
            # udev may look at a device for a moment after every change of it.
            await self._lvm.ask("lvchange", "-an", "--config", "activation/retry_deactivation=1", self._lvm.path(name))

    async def users(self, volume: LogicalVolume) -> list[str]:
        if not volume.is_open:
            return []
        return await asyncio.to_thread(users_of, Path(self.path(volume.name))) or ["the kernel or a process of another user"]

    async def tidy(self, volumes: Mapping[str, LogicalVolume]) -> None:
        for volume in volumes.values():
            if not volume.is_thin_pool:
                await self.open(volume)


class LoopDevices:
    """Implements `Devices` by loop devices over a physical volume: for volumes of one piece, on a kernel without device-mapper.

    folder   has a symbolic link for each volume, which is its path: the number of a loop device is another after each start
    """

    has_snapshots = False

    def __init__(self, lvm: Lvm, folder: Path) -> None:
        self._lvm = lvm
        self._folder = folder.absolute() / lvm.group
        self._lock = asyncio.Lock()

    def path(self, name: str) -> str:
        return str(self._folder / name)

    async def why_not(self) -> str | None:
        return None if await asyncio.to_thread(os.path.exists, "/dev/loop-control") else "this machine has no /dev/loop-control"

    async def placement(self, size: int) -> Placement:
        """Together, with room to grow: a loop device shows one piece."""
        physical, room, volumes = await self._lvm.physical(), await self._lvm.room(), await self._lvm.volumes()
        taken = [extents for volume in volumes.values() for extents in volume.extents]
        wanted = -(-size // room.extent_size)
        places = [place for one in physical if (place := lvm_report.place_in_gap(one, taken, wanted))]
        if not places:
            raise VolumeBackendAPIException(data=f"no {size} bytes lie together in {self._lvm.group}, as a loop device needs them")
        place = places[0]
        where = f"{place.device}:{place.first}-{place.last}"
        return Placement(("-an", "-Zn", "-Wn", "--alloc", "contiguous"), (where,))

    async def open(self, volume: LogicalVolume) -> None:
        physical, room = await self._lvm.physical(), await self._lvm.room()
        async with self._lock:
            await self._open(volume, self._wanted(volume, physical, room), await _loops())

    async def close(self, name: str) -> None:
        async with self._lock:
            path = Path(self.path(name))
            if not await asyncio.to_thread(os.path.islink, path):
                return
            device = str(await asyncio.to_thread(path.resolve))
            devices = {physical.device for physical in await self._lvm.physical()}
            # Only what is one of ours still: the number may be another's by now.
            if any(loop.device == device and loop.backing in devices for loop in await _loops()):
                await _losetup("--detach", device)
            await in_thread(path.unlink)

    async def users(self, volume: LogicalVolume) -> list[str]:
        return await asyncio.to_thread(users_of, Path(self.path(volume.name)))

    async def tidy(self, volumes: Mapping[str, LogicalVolume]) -> None:
        physical, room = await self._lvm.physical(), await self._lvm.room()
        await in_thread(self._folder.mkdir, 0o700, parents=True, exist_ok=True)
        wanted = {name: self._wanted(volume, physical, room) for name, volume in volumes.items()}
        async with self._lock:
            loops, devices = await _loops(), {one.device for one in physical}
            places = {(place.backing, place.offset) for place in wanted.values()}
            for loop in loops:
                if loop.backing in devices and (loop.backing, loop.offset) not in places:
                    await _losetup("--detach", loop.device)
            for link in await asyncio.to_thread(lambda: list(self._folder.iterdir())):
                if link.name not in volumes:
                    await in_thread(link.unlink)
            for name, volume in volumes.items():
                await self._open(volume, wanted[name], loops)

    def _wanted(self, volume: LogicalVolume, physical: tuple[PhysicalVolume, ...], room: VolumeGroup) -> LoopDevice:
        """The loop device of that volume, without its number."""
        if len(volume.extents) != 1:
            raise VolumeBackendAPIException(
                data=f"{volume.name} has {len(volume.extents)} segments; a loop device can show one only"
            )
        extents: Extents = volume.extents[0]
        start = next(one.pe_start for one in physical if one.device == extents.device)
        return LoopDevice("", start + extents.first * room.extent_size, volume.size, extents.device)

    async def _open(self, volume: LogicalVolume, wanted: LoopDevice, loops: tuple[LoopDevice, ...]) -> None:
        there = [loop for loop in loops if (loop.backing, loop.offset) == (wanted.backing, wanted.offset)]
        if not there:
            where = ("--offset", str(wanted.offset), "--sizelimit", str(wanted.size))
            device = (await _losetup("--find", "--show", "--direct-io=on", *where, wanted.backing)).strip()
        else:
            device = there[0].device
            if there[0].size != wanted.size:
                await in_thread(_resize, device, wanted.size)
        await in_thread(_link, Path(self.path(volume.name)), device)


async def _loops() -> tuple[LoopDevice, ...]:
    return lvm_report.parse_loops(await _losetup("--list", "--json", "--output", lvm_report.LOOP_FIELDS))


async def _losetup(*options: str) -> str:
    output = await to_its_end(run("losetup", *options, timeout_s=20.0, env=Lvm("").environment))
    if output.status != 0:
        raise LvmRefused(program="losetup", words=output.said)
    return output.stdout


def _resize(device: str, size: int) -> None:
    """Shows `size` bytes from now on, to those who have it open too (loop(4), LOOP_SET_STATUS64)."""
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        info = bytearray(_LOOP_INFO64_BYTES)
        fcntl.ioctl(fd, _LOOP_GET_STATUS64, info)
        struct.pack_into("=Q", info, _SIZELIMIT_AT, size)
        fcntl.ioctl(fd, _LOOP_SET_STATUS64, bytes(info))
    finally:
        os.close(fd)


def _link(path: Path, device: str) -> None:
    if path.is_symlink() and os.readlink(path) == device:  # noqa: PTH115  # as text: nothing need be there
        return
    fresh = path.with_name(f".{path.name}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(device)
    fresh.replace(path)
