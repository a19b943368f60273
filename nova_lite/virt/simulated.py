"""Machines without a hypervisor: each is one small file; implements `nova_lite.ports.hypervisor`.

<state_path>/instances/<uuid>/machine.json holds a machine's disks. A `local` disk is the file or block device itself, read and
written in place, so what a machine writes is really there. One nova-compute at a time changes the machines of a state path.
"""

import asyncio
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from common.base.clock import Clock
from common.base.errors import Invalid
from common.base.ids import is_uuid
from common.host.locks import KeyedLocks
from common.host.to_its_end import in_thread
from nova_lite.contract import Instance
from nova_lite.errors import HypervisorRefused, HypervisorUnavailable, TooManyDiskDevices, VolumeBDMNotFound
from nova_lite.ports.connector import VOLUME_SIZE
from nova_lite.ports.hypervisor import ConnectionInfo
from nova_lite.virt.host_side import check_grown
from nova_lite.virt.pattern import check_pattern
from nova_lite.virt.volume_source import check_size

MACHINE_FILE = "machine.json"

_T = TypeVar("_T")


class SimulatedDisk(msgspec.Struct, frozen=True):
    """A plugged volume: its name in the machine, its path on the host."""

    mountpoint: str
    path: str


class SimulatedMachine(msgspec.Struct, frozen=True):
    """What the machine's file holds; `disks` is by volume id."""

    uuid: str
    spawned_at: str
    disks: dict[str, SimulatedDisk]


class SimulatedHypervisor:
    """A machine that lost its file has died: its folder is still there, and nothing can be done with it but `destroy`."""

    def __init__(self, state_path: Path, clock: Clock, *, disks_max: int = 25) -> None:
        self._instances = state_path.absolute() / "instances"
        self._clock = clock
        self._disks_max = disks_max
        self._locks = KeyedLocks()

    @property
    def kind(self) -> str:
        return "simulated"

    @property
    def device_prefix(self) -> str:
        return "/dev/vd"

    @property
    def disks_max(self) -> int:
        return self._disks_max

    async def spawn(self, instance: Instance) -> None:
        folder = self._folder(instance.uuid)
        machine = SimulatedMachine(instance.uuid, self._clock.utcnow().isoformat(), {})
        async with self._locks.hold(instance.uuid):
            await _on_disk(instance.uuid, lambda: _create(folder, machine))

    async def destroy(self, instance_uuid: str) -> None:
        folder = self._folder(instance_uuid)
        async with self._locks.hold(instance_uuid):
            await _on_disk(instance_uuid, lambda: _remove(folder))

    async def power_off(self, instance_uuid: str, *, timeout_s: float) -> None:
        """There is no guest to ask."""
        await self.destroy(instance_uuid)

    async def list_instances(self) -> set[str]:
        return await asyncio.to_thread(_machines_in, self._instances)

    async def attach_volume(self, connection_info: ConnectionInfo, instance_uuid: str, mountpoint: str) -> None:
        async with self._machine(instance_uuid) as machine:
            volume_id = str(connection_info["serial"])
            if volume_id in machine.disks:
                return
            if len(machine.disks) >= self._disks_max:
                raise TooManyDiskDevices(maximum=self._disks_max)
            path = await asyncio.to_thread(_usable_path, connection_info, instance_uuid)
            size = await _on_volume(machine, lambda: _size(path))
            check_size(connection_info.get(VOLUME_SIZE), size, machine=instance_uuid, volume_id=volume_id)
            await self._save(machine, machine.disks | {volume_id: SimulatedDisk(mountpoint, path)})

    async def detach_volume(self, volume_id: str, instance_uuid: str) -> None:
        async with self._machine(instance_uuid) as machine:
            if volume_id in machine.disks:
                await self._save(machine, {key: disk for key, disk in machine.disks.items() if key != volume_id})

    async def extend_volume(self, connection_info: ConnectionInfo, instance_uuid: str, requested_size: int) -> None:
        """The disk is the file itself, so there is only to see that it has that size."""
        async with self._machine(instance_uuid) as machine:
            _disk_of(machine, str(connection_info["serial"]))
            await check_grown(connection_info, requested_size, machine=instance_uuid)

    async def disks(self, instance_uuid: str) -> dict[str, str]:
        async with self._machine(instance_uuid) as machine:
            return {volume_id: disk.mountpoint for volume_id, disk in machine.disks.items()}

    async def leftovers(self) -> dict[str, list[str]]:
        return await asyncio.to_thread(_remains_in, self._instances)

    async def write_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> None:
        check_pattern(pattern, offset=offset, length=length)
        async with self._machine(instance_uuid) as machine:
            disk = _disk_of(machine, volume_id)
            if not await _on_volume(machine, lambda: _write(disk.path, bytes([pattern]) * length, offset)):
                raise _refused(machine.uuid, f"the disk ends before {offset + length}", "write_pattern")

    async def verify_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> bool:
        check_pattern(pattern, offset=offset, length=length)
        async with self._machine(instance_uuid) as machine:
            disk = _disk_of(machine, volume_id)
            found = await _on_volume(machine, lambda: _read(disk.path, length, offset))
        if len(found) < length:
            raise _refused(instance_uuid, f"the disk ends before {offset + length}", "verify_pattern")
        return found == bytes([pattern]) * length

    async def close(self) -> None:
        """Nothing is held between operations."""

    def _folder(self, uuid: str) -> Path:
        if not is_uuid(uuid):
            raise Invalid(reason=f"{uuid!r} is not the uuid of an instance")
        return self._instances / uuid

    @asynccontextmanager
    async def _machine(self, uuid: str) -> AsyncIterator[SimulatedMachine]:
        folder = self._folder(uuid)
        async with self._locks.hold(uuid):
            machine = await _on_disk(uuid, lambda: _load(folder))
            if machine is None:
                raise HypervisorUnavailable(name=uuid, reason="it is not running")
            yield machine

    async def _save(self, machine: SimulatedMachine, disks: dict[str, SimulatedDisk]) -> None:
        changed = msgspec.structs.replace(machine, disks=disks)
        await _on_disk(machine.uuid, lambda: _store(self._folder(machine.uuid), changed))


async def _on_disk(uuid: str, act: Callable[[], _T]) -> _T:
    """What `act` returns, done in a thread; an error is the host's. Raises HypervisorUnavailable."""
    try:
        return await in_thread(act)
    except (OSError, msgspec.MsgspecError) as exc:
        raise HypervisorUnavailable(name=uuid, reason=f"its state on this host: {exc}") from exc


async def _on_volume(machine: SimulatedMachine, act: Callable[[], _T]) -> _T:
    """What `act` returns, done in a thread; an error is the volume's. Raises HypervisorRefused."""
    try:
        return await in_thread(act)
    except OSError as exc:
        raise _refused(machine.uuid, f"the disk failed: {exc.strerror}", "the pattern") from exc


def _create(folder: Path, machine: SimulatedMachine) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if _load(folder) is None:
        _store(folder, machine)


def _load(folder: Path) -> SimulatedMachine | None:
    try:
        return msgspec.json.decode((folder / MACHINE_FILE).read_bytes(), type=SimulatedMachine)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _store(folder: Path, machine: SimulatedMachine) -> None:
    # A reader sees the old file or the new one. Nothing is synced: a simulated machine does not outlive its host either.
    draft = folder / f"{MACHINE_FILE}.new"
    draft.write_bytes(msgspec.json.encode(machine))
    draft.replace(folder / MACHINE_FILE)


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _machines_in(instances: Path) -> set[str]:
    return {file.parent.name for file in instances.glob(f"*/{MACHINE_FILE}") if is_uuid(file.parent.name)}


def _remains_in(instances: Path) -> dict[str, list[str]]:
    folders = [folder for folder in instances.glob("*") if is_uuid(folder.name)]
    return {folder.name: [str(folder)] for folder in folders if not (folder / MACHINE_FILE).exists()}


def _disk_of(machine: SimulatedMachine, volume_id: str) -> SimulatedDisk:
    disk = machine.disks.get(volume_id)
    if disk is None:
        raise VolumeBDMNotFound(volume_id=volume_id, instance_uuid=machine.uuid)
    return disk


def _usable_path(connection_info: ConnectionInfo, uuid: str) -> str:
    kind = connection_info.get("driver_volume_type")
    if kind != "local":
        reason = f"a simulated machine cannot speak {kind}: give the volume a local target, or run machines in QEMU"
        raise _refused(uuid, reason, "attach_volume")
    path = (connection_info.get("data") or {}).get("device_path")
    try:
        mode = Path(path).stat().st_mode if isinstance(path, str) else 0
    except OSError as exc:
        raise _refused(uuid, f"{path}: {exc.strerror}", "attach_volume") from exc
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise _refused(uuid, f"device_path {path!r} is neither a file nor a block device", "attach_volume")
    return str(path)


def _size(path: str) -> int:
    disk = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(disk, 0, os.SEEK_END)
    finally:
        os.close(disk)


def _write(path: str, data: bytes, offset: int) -> bool:
    """False when the disk is too short; it never grows."""
    disk = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if offset + len(data) > os.lseek(disk, 0, os.SEEK_END):
            return False
        while data:
            written = os.pwrite(disk, data, offset)
            data, offset = data[written:], offset + written
    finally:
        os.close(disk)
    return True


def _read(path: str, length: int, offset: int) -> bytes:
    """Up to `length` bytes: fewer at the disk's end."""
    disk = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while length and (part := os.pread(disk, length, offset)):
            parts.append(part)
            length, offset = length - len(part), offset + len(part)
    finally:
        os.close(disk)
    return b"".join(parts)


def _refused(uuid: str, reason: str, command: str) -> HypervisorRefused:
    return HypervisorRefused(name=uuid, command=command, reason=reason)
