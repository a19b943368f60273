"""This host's end of a connection; implements `nova_lite.ports.connector`."""

import asyncio
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.base.errors import Invalid
from nova_lite.brick.properties import connector_properties, read_initiator_name
from nova_lite.errors import VolumeConnectionFailed

STAT_TIMEOUT_S = 10.0
"""Longest look at a path: on a dead network file system it takes for ever."""


class HostConnector:
    """Connects what needs no login on the host: files and block devices that are there, and disks that machines log in to.

    initiator_file    /etc/iscsi/initiatorname.iscsi
    userspace_iscsi   True when the hypervisor speaks iSCSI itself, as QEMU does; then the host has nothing to do for it
    """

    def __init__(self, *, host: str, my_ip: str, initiator_file: Path, userspace_iscsi: bool) -> None:
        self._host = host
        self._my_ip = my_ip
        self._initiator_file = initiator_file
        self._userspace_iscsi = userspace_iscsi

    async def get_connector_properties(self) -> dict[str, Any]:
        """Raises Misconfigured when the initiator's file cannot be read."""
        initiator = await asyncio.to_thread(read_initiator_name, self._initiator_file)
        return connector_properties(host=self._host, ip=self._my_ip, initiator=initiator)

    async def connect_volume(self, connection_info: Mapping[str, Any]) -> dict[str, Any]:
        volume_id = str(connection_info.get("serial"))
        match connection_info.get("driver_volume_type"):
            case "local":
                return {"type": "local", "path": await _present(connection_info, volume_id)}
            case "iscsi" if self._userspace_iscsi:
                return {"type": "network"}
            case "iscsi":
                reason = "this host does not log in to iSCSI targets and its hypervisor does not either; run machines in QEMU, or give the volume a local target"
                raise VolumeConnectionFailed(volume_id=volume_id, reason=reason)
            case other:
                raise Invalid(reason=f"driver_volume_type {other!r} is not among iscsi, local")

    async def disconnect_volume(self, connection_info: Mapping[str, Any]) -> None:
        """Nothing was made, so nothing is left."""

    async def connections(self) -> set[str] | None:
        """Files and devices are there in any case, and machines log in by themselves: their sessions are the target's to tell."""
        return None


async def _present(connection_info: Mapping[str, Any], volume_id: str) -> str:
    path = (connection_info.get("data") or {}).get("device_path")
    if not isinstance(path, str):
        raise VolumeConnectionFailed(volume_id=volume_id, reason="connection_info has no data.device_path")
    try:
        async with asyncio.timeout(STAT_TIMEOUT_S):
            flaw = await asyncio.to_thread(_flaw, path)
    except TimeoutError as exc:
        reason = f"{path} did not answer within {STAT_TIMEOUT_S:g} s"
        raise VolumeConnectionFailed(volume_id=volume_id, reason=reason) from exc
    if flaw:
        raise VolumeConnectionFailed(volume_id=volume_id, reason=f"{path} {flaw}")
    return path


def _flaw(path: str) -> str | None:
    """Why the path is no disk; None when it is one."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as exc:
        return f"cannot be found on this host: {exc}"
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        return "is neither a file nor a block device"
    return None if os.access(path, os.R_OK) else "may not be read by this process"
