"""A hypervisor in memory that fails when told to; implements `nova_lite.ports.hypervisor`. For tests of what uses the port."""

import asyncio
from dataclasses import dataclass, field

from common.testing.script import Script, When
from nova_lite.contract import Instance
from nova_lite.errors import (
    DeviceDetachFailed,
    HypervisorRefused,
    HypervisorUnavailable,
    TooManyDiskDevices,
    VolumeBDMNotFound,
)
from nova_lite.ports.connector import VOLUME_SIZE
from nova_lite.ports.hypervisor import ConnectionInfo
from nova_lite.virt.pattern import check_pattern
from nova_lite.virt.volume_source import check_size

_SECTOR_BYTES = 512
_DETACH_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Call:
    """Something that was asked of the fake: a method of the port, and of whom."""

    method: str
    instance_uuid: str
    volume_id: str | None = None


@dataclass(slots=True)
class FakeHost:
    """What is there whether or not nova-compute runs: give the same one to a second FakeHypervisor.

    machines   instance uuid -> volume id -> mountpoint
    hung       machines that do not answer
    sectors    (volume id, sector) -> the byte that fills it; sectors never written hold 0
    size       bytes of every volume
    sizes      volume id -> bytes that its storage shows, where that is to be compared
    shown      volume id -> bytes that its guest was told of last, where it was told of any
    leftovers  instance uuid -> what is left of the machine, or in it
    """

    machines: dict[str, dict[str, str]] = field(default_factory=dict)
    hung: set[str] = field(default_factory=set)
    sectors: dict[tuple[str, int], int] = field(default_factory=dict)
    size: int = 1024**3
    sizes: dict[str, int] = field(default_factory=dict)
    shown: dict[str, int] = field(default_factory=dict)
    leftovers: dict[str, list[str]] = field(default_factory=dict)

    def kill(self, instance_uuid: str) -> None:
        """The machine dies by itself."""
        self.machines.pop(instance_uuid, None)
        self.leftovers[instance_uuid] = [f"/fake/instances/{instance_uuid}"]


class FakeHypervisor:
    """Its effects are real in its own `host`; faults come from the script, each once and in the order given.

    calls   what was asked, in order
    """

    def __init__(self, host: FakeHost | None = None, *, disks_max: int = 25) -> None:
        self.host = host or FakeHost()
        self.calls: list[Call] = []
        self._disks_max = disks_max
        self.script = Script()
        self._gates: dict[str, asyncio.Event] = {}

    def keep_next_disk(self) -> None:
        """The guest does not let go at the next `detach_volume`."""
        self.script.fail_next("detach_volume", DeviceDetachFailed(device="/dev/vd?", name="fake", timeout_s=_DETACH_TIMEOUT_S))

    def hold(self, method: str) -> asyncio.Event:
        """Calls of `method` wait, before they have an effect, until the event is set."""
        return self._gates.setdefault(method, asyncio.Event())

    @property
    def kind(self) -> str:
        return "fake"

    @property
    def device_prefix(self) -> str:
        return "/dev/vd"

    @property
    def disks_max(self) -> int:
        return self._disks_max

    async def spawn(self, instance: Instance) -> None:
        await self._begin("spawn", instance.uuid)
        self.host.machines.setdefault(instance.uuid, {})
        self.host.leftovers.pop(instance.uuid, None)
        self.script.strike("spawn", When.AFTER)

    async def destroy(self, instance_uuid: str) -> None:
        await self._begin("destroy", instance_uuid)
        self.host.machines.pop(instance_uuid, None)
        self.host.hung.discard(instance_uuid)
        self.host.leftovers.pop(instance_uuid, None)
        self.script.strike("destroy", When.AFTER)

    async def power_off(self, instance_uuid: str, *, timeout_s: float) -> None:
        await self._begin("power_off", instance_uuid)
        self.host.machines.pop(instance_uuid, None)
        self.host.hung.discard(instance_uuid)
        self.host.leftovers.pop(instance_uuid, None)
        self.script.strike("power_off", When.AFTER)

    async def list_instances(self) -> set[str]:
        return set(self.host.machines)

    async def attach_volume(self, connection_info: ConnectionInfo, instance_uuid: str, mountpoint: str) -> None:
        volume_id = str(connection_info["serial"])
        await self._begin("attach_volume", instance_uuid, volume_id)
        disks = self._disks(instance_uuid)
        if connection_info.get("driver_volume_type") not in {"local", "iscsi"}:
            raise HypervisorRefused(name=instance_uuid, command="attach_volume", reason="unknown driver_volume_type")
        if volume_id in self.host.sizes:
            check_size(connection_info.get(VOLUME_SIZE), self.host.sizes[volume_id], machine=instance_uuid, volume_id=volume_id)
        if volume_id not in disks and len(disks) >= self._disks_max:
            raise TooManyDiskDevices(maximum=self._disks_max)
        disks.setdefault(volume_id, mountpoint)
        self.script.strike("attach_volume", When.AFTER)

    async def detach_volume(self, volume_id: str, instance_uuid: str) -> None:
        await self._begin("detach_volume", instance_uuid, volume_id)
        self._disks(instance_uuid).pop(volume_id, None)
        self.script.strike("detach_volume", When.AFTER)

    async def extend_volume(self, connection_info: ConnectionInfo, instance_uuid: str, requested_size: int) -> None:
        volume_id = str(connection_info["serial"])
        await self._begin("extend_volume", instance_uuid, volume_id)
        if volume_id not in self._disks(instance_uuid):
            raise VolumeBDMNotFound(volume_id=volume_id, instance_uuid=instance_uuid)
        if self.host.sizes.get(volume_id, requested_size) < requested_size:
            raise HypervisorRefused(name=instance_uuid, command="extend_volume", reason="the storage is smaller")
        self.host.shown[volume_id] = requested_size
        self.script.strike("extend_volume", When.AFTER)

    async def disks(self, instance_uuid: str) -> dict[str, str]:
        await self._begin("disks", instance_uuid)
        self.script.strike("disks", When.AFTER)
        return dict(self._disks(instance_uuid))

    async def leftovers(self) -> dict[str, list[str]]:
        return {uuid: list(found) for uuid, found in self.host.leftovers.items() if uuid not in self.host.hung}

    async def write_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> None:
        await self._begin("write_pattern", instance_uuid, volume_id)
        for sector in self._sectors(instance_uuid, volume_id, pattern=pattern, offset=offset, length=length):
            self.host.sectors[volume_id, sector] = pattern
        self.script.strike("write_pattern", When.AFTER)

    async def verify_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> bool:
        await self._begin("verify_pattern", instance_uuid, volume_id)
        self.script.strike("verify_pattern", When.AFTER)
        sectors = self._sectors(instance_uuid, volume_id, pattern=pattern, offset=offset, length=length)
        return all(self.host.sectors.get((volume_id, sector), 0) == pattern for sector in sectors)

    async def close(self) -> None:
        """Nothing is held."""

    def _disks(self, uuid: str) -> dict[str, str]:
        if uuid not in self.host.machines or uuid in self.host.hung:
            raise HypervisorUnavailable(name=uuid, reason="it does not answer" if uuid in self.host.hung else "it is not running")
        return self.host.machines[uuid]

    def _sectors(self, uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> range:
        check_pattern(pattern, offset=offset, length=length)
        if volume_id not in self._disks(uuid):
            raise VolumeBDMNotFound(volume_id=volume_id, instance_uuid=uuid)
        if offset + length > self.host.shown.get(volume_id, self.host.size):
            raise HypervisorRefused(name=uuid, command="the pattern", reason=f"the disk ends before {offset + length}")
        return range(offset // _SECTOR_BYTES, (offset + length) // _SECTOR_BYTES)

    async def _begin(self, method: str, uuid: str, volume_id: str | None = None) -> None:
        self.calls.append(Call(method, uuid, volume_id))
        if method in self._gates:
            await self._gates[method].wait()
        self.script.strike(method, When.BEFORE)
