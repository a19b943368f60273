"""iSCSI by the host's own kernel initiator (attach-flow 7.5): log in, find the disk, make sure that it is the volume, and the way back.

The steps and exit codes are those of os-brick's iSCSI connector. Checked against a stand-in for iscsiadm and for /sys; not verified
against a kernel, which the machines of this project's tests lack.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from common.base.clock import Clock
from common.base.errors import Broken, Fault
from common.host.command import run
from common.host.locks import KeyedLocks
from common.host.to_its_end import in_thread
from nova_lite.brick.iscsi_sysfs import ScsiDisk, Sysfs
from nova_lite.brick.iscsi_text import volume_of_target
from nova_lite.brick.iscsiadm import Iscsiadm
from nova_lite.errors import VolumeConnectionFailed
from nova_lite.ports.connector import VOLUME_SIZE, size_flaw

_FLUSH_TIMEOUT_S = 60.0
_RESCAN_S = (0.0, 1.0, 4.0, 9.0, 16.0)
"""Waits before each look for the disk; the kernel is asked to look again before each. os-brick's are 4, 9, 16."""
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class IscsiPath:
    """One way to a volume, of connection_info."""

    volume_id: str
    target: str
    portal: str
    lun: int
    settings: Mapping[str, str]
    size_gib: int | None

    @classmethod
    def of(cls, connection_info: Mapping[str, Any]) -> Self:
        """Raises VolumeConnectionFailed when something is missing."""
        volume_id, data = str(connection_info.get("serial")), connection_info.get("data") or {}
        try:
            settings = {"node.session.scan": "manual", "node.startup": "automatic"}
            if data.get("auth_method") == "CHAP":
                settings |= {"node.session.auth.authmethod": "CHAP"}
                settings |= {"node.session.auth.username": str(data["auth_username"])}
                settings |= {"node.session.auth.password": str(data["auth_password"])}
            size = connection_info.get(VOLUME_SIZE)
            where = str(data["target_iqn"]), str(data["target_portal"]), int(data["target_lun"])
            return cls(volume_id, *where, settings, None if size is None else int(size))
        except (KeyError, TypeError, ValueError) as exc:
            raise VolumeConnectionFailed(
                volume_id=volume_id, reason=f"connection_info is not that of an iSCSI volume: {exc!r}"
            ) from None


class IscsiConnector:
    """The kernel's initiator of this host. `dev`: /dev."""

    def __init__(
        self,
        admin: Iscsiadm,
        sysfs: Sysfs,
        clock: Clock,
        *,
        dev: Path = Path("/dev"),
        number: Callable[[Path], str] | None = None,
        flush: Callable[[Path], Awaitable[None]] | None = None,
    ) -> None:
        self._admin = admin
        self._sysfs = sysfs
        self._clock = clock
        self._dev = dev
        self._number = number or device_number
        self._flush = flush or flush_buffers
        self._locks = KeyedLocks()

    async def connect_volume(self, connection_info: Mapping[str, Any]) -> dict[str, Any]:
        """{"type": "block", "path": "/dev/sdb", "scsi_wwn"?}; a connection that fails is taken back."""
        path = IscsiPath.of(connection_info)
        async with self._locks.hold(path.target):
            is_connected = False
            try:
                disk = await self._connected(path)
                is_connected = True
            finally:
                if not is_connected:
                    await self._taken_back(path)
        device = {"type": "block", "path": str(self._dev / disk.name)}
        return device if disk.wwid is None else {**device, "scsi_wwn": disk.wwid}

    async def disconnect_volume(self, connection_info: Mapping[str, Any]) -> None:
        """By the target's name, or where connection_info has none by the volume's id."""
        volume_id, data = str(connection_info.get("serial")), connection_info.get("data") or {}
        target, lun = data.get("target_iqn"), data.get("target_lun")
        for session in await self._admin.sessions(volume_id):
            if session.target == target or (target is None and volume_of_target(session.target) == volume_id):
                async with self._locks.hold(session.target):
                    await self._disconnected(volume_id, session.sid, session.target, session.portal, lun)
        if target is not None and data.get("target_portal"):
            await self._admin.forget_node(volume_id, str(target), str(data["target_portal"]))

    async def connections(self) -> set[str]:
        """Volumes of cinder's that this host is logged in to."""
        return {volume_id for session in await self._admin.sessions() if (volume_id := volume_of_target(session.target))}

    async def _connected(self, path: IscsiPath) -> ScsiDisk:
        await self._admin.ensure_node(path.volume_id, path.target, path.portal, path.settings)
        sid = await self._sid(path)
        if sid is None:
            await self._admin.login(path.volume_id, path.target, path.portal)
            sid = await self._sid(path)
        if sid is None:
            raise VolumeConnectionFailed(volume_id=path.volume_id, reason=f"there is no session of {path.target} after the login")
        disk = await self._found(path, sid)
        if self._flaw(path, sid, disk) is not None:
            # What the kernel remembers of a volume that had this LUN before is forgotten, and it looks again: once.
            await self._removed(path.volume_id, sid, disk)
            disk = await self._found(path, sid)
        if (flaw := self._flaw(path, sid, disk)) is not None:
            raise VolumeConnectionFailed(volume_id=path.volume_id, reason=flaw)
        return disk

    async def _sid(self, path: IscsiPath) -> int | None:
        found = await self._admin.sessions(path.volume_id)
        return next((session.sid for session in found if (session.target, session.portal) == (path.target, path.portal)), None)

    async def _found(self, path: IscsiPath, sid: int) -> ScsiDisk:
        """The session's disk with that LUN, once the kernel shows it and its node is there."""
        for wait_s in _RESCAN_S:
            deadline = self._clock.monotonic() + wait_s
            for host in await asyncio.to_thread(self._sysfs.hosts_of, sid):
                await in_thread(self._sysfs.scan, host, path.lun)
            while True:
                for disk in await asyncio.to_thread(self._sysfs.disks_of, sid):
                    if disk.lun == path.lun and (self._dev / disk.name).exists():
                        return disk
                if self._clock.monotonic() >= deadline:
                    break
                await self._clock.sleep(_LOOK_S)
        raise VolumeConnectionFailed(
            volume_id=path.volume_id, reason=f"no disk with LUN {path.lun} came up in the session of {path.target}"
        )

    def _flaw(self, path: IscsiPath, sid: int, disk: ScsiDisk) -> str | None:
        """Why the disk cannot be the volume; None: it is (CVE-2023-2088)."""
        node = self._dev / disk.name
        if (target := self._sysfs.target_of(sid)) != path.target:
            return f"session {sid} is of target {target} and not of {path.target}"
        if (wanted := self._sysfs.number_of(disk)) is not None and (found := self._number(node)) != wanted:
            return f"{node} is device {found}, and the volume's disk is {wanted}: the node is a stale one"
        return size_flaw(path.size_gib, disk.size, shown=str(node))

    async def _disconnected(self, volume_id: str, sid: int, target: str, portal: str, lun: int | None) -> None:
        for disk in await asyncio.to_thread(self._sysfs.disks_of, sid):
            if lun is None or disk.lun == int(lun):
                await self._removed(volume_id, sid, disk)
        if not await asyncio.to_thread(self._sysfs.disks_of, sid):
            await self._admin.logout(volume_id, target, portal)
            await self._admin.forget_node(volume_id, target, portal)

    async def _removed(self, volume_id: str, sid: int, disk: ScsiDisk) -> None:
        """Flushed first: what the kernel holds of it is written or the volume stays connected."""
        node = self._dev / disk.name
        if node.exists():
            try:
                await self._flush(node)
            except Fault as exc:
                raise VolumeConnectionFailed(volume_id=volume_id, reason=f"{node} could not be flushed: {exc}") from exc
        await in_thread(self._sysfs.delete, disk)
        deadline = self._clock.monotonic() + _RESCAN_S[-1]
        while disk.name in {found.name for found in await asyncio.to_thread(self._sysfs.disks_of, sid)}:
            if self._clock.monotonic() > deadline:
                raise VolumeConnectionFailed(volume_id=volume_id, reason=f"the kernel keeps {node}: something has it open")
            await self._clock.sleep(_LOOK_S)

    async def _taken_back(self, path: IscsiPath) -> None:
        try:
            for session in await self._admin.sessions(path.volume_id):
                if session.target == path.target:
                    await self._disconnected(path.volume_id, session.sid, session.target, session.portal, path.lun)
            await self._admin.forget_node(path.volume_id, path.target, path.portal)
        except Fault:
            return  # the undo of the flow comes again


async def flush_buffers(node: Path) -> None:
    """What the kernel holds of the device is written. Raises Broken, Timeout."""
    output = await run("blockdev", "--flushbufs", str(node), timeout_s=_FLUSH_TIMEOUT_S)
    if output.status:
        raise Broken(what="blockdev --flushbufs", reason=output.said)


def device_number(node: Path) -> str:
    """ "8:16" of a device's node."""
    number = node.stat().st_rdev
    return f"{os.major(number)}:{os.minor(number)}"
