"""This host's end of a connection; implements `nova_lite.ports.connector`."""

import asyncio
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.base.errors import Invalid
from nova_lite.brick.iscsi import IscsiConnector
from nova_lite.brick.os_brick import os_brick_properties
from nova_lite.brick.properties import connector_properties, read_initiator_name
from nova_lite.errors import VolumeConnectionFailed
from nova_lite.ports.connector import VOLUME_SIZE, size_flaw

STAT_TIMEOUT_S = 10.0
"""Longest look at a path: on a dead network file system it takes for ever."""


class HostConnector:
    """Files and block devices are there already; a disk on the network the machine reaches itself, or else the host's initiator.

    initiator_file    /etc/iscsi/initiatorname.iscsi
    userspace_disks   True when the hypervisor speaks iSCSI and rbd itself, as QEMU does; then the host has nothing to do for them
    iscsi             the host's own initiator; where there is one, it logs in, whatever the hypervisor could
    os_brick          whether os-brick is asked what this host is, where it is installed
    """

    def __init__(
        self,
        *,
        host: str,
        my_ip: str,
        initiator_file: Path,
        userspace_disks: bool,
        iscsi: IscsiConnector | None = None,
        os_brick: bool = False,
    ) -> None:
        self._host = host
        self._my_ip = my_ip
        self._initiator_file = initiator_file
        self._userspace_disks = userspace_disks
        self._iscsi = iscsi
        self._os_brick = os_brick

    async def get_connector_properties(self) -> dict[str, Any]:
        """Raises Misconfigured when the initiator's file cannot be read."""
        initiator = await asyncio.to_thread(read_initiator_name, self._initiator_file)
        ours = connector_properties(host=self._host, ip=self._my_ip, initiator=initiator)
        theirs = await os_brick_properties(host=self._host, my_ip=self._my_ip) if self._os_brick else None
        return ours if theirs is None else {**ours, **theirs, **({"initiator": initiator} if initiator else {})}

    async def connect_volume(self, connection_info: Mapping[str, Any]) -> dict[str, Any]:
        volume_id = str(connection_info.get("serial"))
        match connection_info.get("driver_volume_type"):
            case "local":
                return {"type": "local", "path": await _present(connection_info, volume_id)}
            case "iscsi" if self._iscsi is not None:
                return await self._iscsi.connect_volume(connection_info)
            case "iscsi" | "rbd" if self._userspace_disks:
                return {"type": "network"}
            case "iscsi" | "rbd" as kind:
                reason = f"this host does not log in to {kind} volumes and its hypervisor does not either; run machines in QEMU, or give the volume a local target"
                raise VolumeConnectionFailed(volume_id=volume_id, reason=reason)
            case other:
                raise Invalid(reason=f"driver_volume_type {other!r} is not among iscsi, local, rbd")

    async def disconnect_volume(self, connection_info: Mapping[str, Any]) -> None:
        """Without an initiator of the host's nothing was made, so nothing is left."""
        if self._iscsi is not None and connection_info.get("driver_volume_type", "iscsi") == "iscsi":
            await self._iscsi.disconnect_volume(connection_info)

    async def connections(self) -> set[str] | None:
        """Without an initiator of the host's there is nothing to see: files and devices are there in any case, and the sessions of
        machines are the target's to tell.
        """
        return None if self._iscsi is None else await self._iscsi.connections()


async def _present(connection_info: Mapping[str, Any], volume_id: str) -> str:
    path = (connection_info.get("data") or {}).get("device_path")
    if not isinstance(path, str):
        raise VolumeConnectionFailed(volume_id=volume_id, reason="connection_info has no data.device_path")
    try:
        async with asyncio.timeout(STAT_TIMEOUT_S):
            flaw = await asyncio.to_thread(_flaw, path, connection_info.get(VOLUME_SIZE))
    except TimeoutError as exc:
        reason = f"{path} did not answer within {STAT_TIMEOUT_S:g} s"
        raise VolumeConnectionFailed(volume_id=volume_id, reason=reason) from exc
    if flaw:
        raise VolumeConnectionFailed(volume_id=volume_id, reason=f"{path}: {flaw}")
    return path


def _flaw(path: str, size_gib: int | None) -> str | None:
    """Why the path is not the volume; None when it can be."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as exc:
        return f"cannot be found on this host: {exc}"
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        return "is neither a file nor a block device"
    try:
        return size_flaw(size_gib, _size(path), shown="it")
    except OSError as exc:
        return f"may not be read by this process: {exc.strerror}"


def _size(path: str) -> int:
    disk = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(disk, 0, os.SEEK_END)
    finally:
        os.close(disk)
