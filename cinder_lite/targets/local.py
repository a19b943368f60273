"""No network: the host opens the file or device where the driver keeps it. Only for a host on this same machine.

Which machine a connector is of, its `ip` says: it must be `my_ip` or another address of this one. The `host` of a connector does not tell, for
several compute hosts may run on one machine; it is what a host is let in by.

Nothing stands between a host and the file but what is written down, so an export is a record: one small file for each in
<volumes_dir>/exports, <volume name>.json, replaced whole.
"""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cinder_lite.contract import Volume
from cinder_lite.errors import ExportFailure
from cinder_lite.ports.target import Export
from cinder_lite.targets.recorded import RecordedTarget


def is_own_address(ip: str) -> bool:
    """True when `ip` is an address of this machine: the kernel then speaks to it from that address. Nothing is sent."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified:
        return address.is_loopback
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((ip, 9))
            own: str = probe.getsockname()[0]
    except OSError:  # no route there
        return False
    return ipaddress.ip_address(own) == address


class LocalTarget(RecordedTarget):
    """Implements `cinder_lite.ports.target.Target`; one process has the records to itself.

    volumes_dir   records go to its folder `exports`
    my_ip         this machine's address in connectors
    is_own        tells whether another ip is this machine's too
    """

    kind = "local"
    needs = ("host", "ip")

    def __init__(self, volumes_dir: Path, *, my_ip: str, is_own: Callable[[str], bool] = is_own_address) -> None:
        super().__init__(volumes_dir)
        self._my_ip = my_ip
        self._is_own = is_own

    async def extend_target(self, export: Export, new_size: int) -> None:
        """Nothing stands between a host and the file, so there is only to see that it has that size."""
        if await self._read(export.volume) is None:
            return
        with self._told(export.volume.id):
            found = await asyncio.to_thread(_size_of, export.path)
        if found < new_size:
            raise ExportFailure(volume_id=export.volume.id, reason=f"{export.path} has {found} bytes; wanted {new_size}")

    async def _check_path(self, export: Export) -> None:
        if not await asyncio.to_thread(os.path.exists, export.path):
            raise ExportFailure(volume_id=export.volume.id, reason=f"{export.path} is not there")

    def _check_reach(self, export: Export, connector: Mapping[str, Any]) -> None:
        ip = str(connector["ip"])
        if ip != self._my_ip and not self._is_own(ip):
            reason = (
                f"host {connector['host']} is at {ip}, which is not this machine; the local target cannot reach it (choose tgt)"
            )
            raise ExportFailure(volume_id=export.volume.id, reason=reason)

    async def _see_closed(self, volume: Volume) -> None:
        """Who has the file open cannot be told here."""

    async def _connection_info(self, export: Export) -> dict[str, Any]:
        return local_connection_info(export)


def local_connection_info(export: Export) -> dict[str, Any]:
    """connection_info of attach-flow 6.1 for os-brick's "local" connector."""
    data = {
        "device_path": export.path,
        "volume_id": export.volume.id,
        "access_mode": "rw",
        "encrypted": False,
        "qos_specs": None,
    }
    return {"driver_volume_type": "local", "data": data}


def _size_of(path: str) -> int:
    """Of a file or of a block device."""
    disk = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(disk, 0, os.SEEK_END)
    finally:
        os.close(disk)
