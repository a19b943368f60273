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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cinder_lite.contract import Volume
from cinder_lite.errors import ExportFailure, InvalidConnectorException, TargetUnavailable
from cinder_lite.ports.target import Export, ExportState
from common.host.locks import KeyedLocks
from common.host.to_its_end import in_thread


class Record(msgspec.Struct, frozen=True):
    """An export. `hosts` are let in."""

    path: str
    hosts: tuple[str, ...] = ()


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


class LocalTarget:
    """Implements `cinder_lite.ports.target.Target`; one process has the records to itself.

    volumes_dir   records go to its folder `exports`
    my_ip         this machine's address in connectors
    is_own        tells whether another ip is this machine's too
    """

    kind = "local"
    needs_chap = False

    def __init__(self, volumes_dir: Path, *, my_ip: str, is_own: Callable[[str], bool] = is_own_address) -> None:
        self._folder = volumes_dir.absolute() / "exports"
        self._my_ip = my_ip
        self._is_own = is_own
        self._locks = KeyedLocks()

    async def check_for_setup_error(self) -> None:
        """Makes the folder, mode 0700, when it is not there."""
        try:
            await asyncio.to_thread(prepare, self._folder)
        except OSError as exc:
            raise TargetUnavailable(name=self.kind, reason=f"{self._folder} cannot be used: {exc.strerror}") from exc

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        for key in ("host", "ip"):
            if not isinstance(connector.get(key), str) or not connector[key]:
                raise InvalidConnectorException(missing=key)

    def export_name(self, volume: Volume) -> str:
        return volume.name

    async def exports(self) -> set[str]:
        with told("the exports", self._folder):
            return await asyncio.to_thread(names_in, self._folder)

    async def connections(self) -> dict[str, ExportState]:
        with told("the exports", self._folder):
            return await asyncio.to_thread(states_in, self._folder)

    async def create_export(self, export: Export) -> str:
        async with self._locks.hold(export.volume.name):
            with told(export.volume.id, self._folder):
                if not await asyncio.to_thread(os.path.exists, export.path):
                    raise ExportFailure(volume_id=export.volume.id, reason=f"{export.path} is not there")
                found = await self._read(export.volume)
                if found is None or found.path != export.path:
                    await self._write(export.volume, Record(export.path))
        return export.path

    async def extend_target(self, export: Export, new_size: int) -> None:
        """Nothing stands between a host and the file, so there is only to see that it has that size."""
        if await self._read(export.volume) is None:
            return
        with told(export.volume.id, self._folder):
            found = await asyncio.to_thread(_size_of, export.path)
        if found < new_size:
            raise ExportFailure(volume_id=export.volume.id, reason=f"{export.path} has {found} bytes; wanted {new_size}")

    async def remove_export(self, export: Export) -> None:
        async with self._locks.hold(export.volume.name):
            with told(export.volume.id, self._folder):
                await in_thread(partial(self._file(export.volume).unlink, missing_ok=True))

    async def initialize_connection(self, export: Export, connector: Mapping[str, Any]) -> dict[str, Any]:
        self.validate_connector(connector)
        volume, host, ip = export.volume, str(connector["host"]), str(connector["ip"])
        if ip != self._my_ip and not self._is_own(ip):
            reason = f"host {host} is at {ip}, which is not this machine; the local target cannot reach it (choose tgt)"
            raise ExportFailure(volume_id=volume.id, reason=reason)
        async with self._locks.hold(volume.name):
            with told(volume.id, self._folder):
                found = await self._read(volume)
                if found is None or found.path != export.path:
                    raise ExportFailure(volume_id=volume.id, reason=f"{export.path} is not exported; create_export comes first")
                hosts = (*found.hosts, host) if volume.multiattach else (host,)
                await self._write(volume, Record(found.path, tuple(dict.fromkeys(hosts))))
        return local_connection_info(export)

    async def terminate_connection(self, export: Export, connector: Mapping[str, Any] | None) -> None:
        if connector is not None:
            self.validate_connector(connector)
        async with self._locks.hold(export.volume.name):
            with told(export.volume.id, self._folder):
                found = await self._read(export.volume)
                if found is not None and found.hosts:
                    left = () if connector is None else tuple(host for host in found.hosts if host != connector["host"])
                    await self._write(export.volume, Record(found.path, left))

    async def hosts(self, volume: Volume) -> set[str]:
        """The hosts that are let in; none for a volume that is not exported."""
        found = await self._read(volume)
        return set(found.hosts) if found else set()

    def _file(self, volume: Volume) -> Path:
        return self._folder / f"{volume.name}.json"

    async def _read(self, volume: Volume) -> Record | None:
        """None when there is no record, or none that can be read: then it is written anew."""
        return await asyncio.to_thread(read_record, self._file(volume))

    async def _write(self, volume: Volume, record: Record) -> None:
        await in_thread(replace_record, self._file(volume), record)


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


@contextmanager
def told(volume_id: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ExportFailure(volume_id=volume_id, reason=f"its record in {folder}: {exc.strerror or exc}") from exc


def _size_of(path: str) -> int:
    """Of a file or of a block device."""
    disk = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(disk, 0, os.SEEK_END)
    finally:
        os.close(disk)


def prepare(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(13, "this user may not write there")


def names_in(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.json") if not path.name.startswith(".")}


def states_in(folder: Path) -> dict[str, ExportState]:
    """A record that cannot be read serves nobody."""
    records = {name: read_record(folder / f"{name}.json") for name in names_in(folder)}
    return {
        name: ExportState(record.path, frozenset(record.hosts)) if record else ExportState(None) for name, record in records.items()
    }


def read_record(path: Path) -> Record | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def replace_record(path: Path, record: Record) -> None:
    """Whole or not at all."""
    unfinished = path.with_name(f".{path.name}")
    try:
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:  # noqa: PTH123  # the descriptor, for its mode
            file.write(msgspec.json.encode(record))
            file.flush()
            os.fsync(fd)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
