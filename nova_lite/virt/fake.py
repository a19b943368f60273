"""A hypervisor in memory that fails when told to; implements `nova_lite.ports.hypervisor`. For tests of what uses the port."""

import asyncio
from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import StrEnum

from nova_lite.contract import Instance
from nova_lite.errors import (
    DeviceDetachFailed,
    HypervisorRefused,
    HypervisorUnavailable,
    TooManyDiskDevices,
    VolumeBDMNotFound,
)
from nova_lite.ports.hypervisor import ConnectionInfo
from nova_lite.virt.pattern import check_pattern

_SECTOR_BYTES = 512
_DETACH_TIMEOUT_S = 20.0


class When(StrEnum):
    """Whether a scripted fault strikes before the act has an effect, or after it: the answer is lost."""

    BEFORE = "before"
    AFTER = "after"


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
    """

    machines: dict[str, dict[str, str]] = field(default_factory=dict)
    hung: set[str] = field(default_factory=set)
    sectors: dict[tuple[str, int], int] = field(default_factory=dict)
    size: int = 1024**3

    def kill(self, instance_uuid: str) -> None:
        """The machine dies by itself."""
        self.machines.pop(instance_uuid, None)


class FakeHypervisor:
    """Its effects are real in its own `host`; faults come from the script, each once and in the order given.

    calls   what was asked, in order
    """

    def __init__(self, host: FakeHost | None = None, *, disks_max: int = 25) -> None:
        self.host = host or FakeHost()
        self.calls: list[Call] = []
        self._disks_max = disks_max
        self._faults: defaultdict[str, deque[tuple[BaseException, When]]] = defaultdict(deque)
        self._gates: dict[str, asyncio.Event] = {}

    def fail_next(self, method: str, error: BaseException, when: When = When.BEFORE) -> None:
        """The next call of `method` that no earlier fault takes raises `error`."""
        self._faults[method].append((error, when))

    def keep_next_disk(self) -> None:
        """The guest does not let go at the next `detach_volume`."""
        self.fail_next("detach_volume", DeviceDetachFailed(device="/dev/vd?", name="fake", timeout_s=_DETACH_TIMEOUT_S))

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
        after = await self._begin("spawn", instance.uuid)
        self.host.machines.setdefault(instance.uuid, {})
        _strike(after)

    async def destroy(self, instance_uuid: str) -> None:
        after = await self._begin("destroy", instance_uuid)
        self.host.machines.pop(instance_uuid, None)
        self.host.hung.discard(instance_uuid)
        _strike(after)

    async def list_instances(self) -> set[str]:
        return set(self.host.machines)

    async def attach_volume(self, connection_info: ConnectionInfo, instance_uuid: str, mountpoint: str) -> None:
        volume_id = str(connection_info["serial"])
        after = await self._begin("attach_volume", instance_uuid, volume_id)
        disks = self._disks(instance_uuid)
        if connection_info.get("driver_volume_type") not in {"local", "iscsi"}:
            raise HypervisorRefused(name=instance_uuid, command="attach_volume", reason="unknown driver_volume_type")
        if volume_id not in disks and len(disks) >= self._disks_max:
            raise TooManyDiskDevices(maximum=self._disks_max)
        disks.setdefault(volume_id, mountpoint)
        _strike(after)

    async def detach_volume(self, volume_id: str, instance_uuid: str) -> None:
        after = await self._begin("detach_volume", instance_uuid, volume_id)
        self._disks(instance_uuid).pop(volume_id, None)
        _strike(after)

    async def disks(self, instance_uuid: str) -> dict[str, str]:
        _strike(await self._begin("disks", instance_uuid))
        return dict(self._disks(instance_uuid))

    async def write_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> None:
        after = await self._begin("write_pattern", instance_uuid, volume_id)
        for sector in self._sectors(instance_uuid, volume_id, pattern=pattern, offset=offset, length=length):
            self.host.sectors[volume_id, sector] = pattern
        _strike(after)

    async def verify_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> bool:
        _strike(await self._begin("verify_pattern", instance_uuid, volume_id))
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
        if offset + length > self.host.size:
            raise HypervisorRefused(name=uuid, command="the pattern", reason=f"the disk ends before {offset + length}")
        return range(offset // _SECTOR_BYTES, (offset + length) // _SECTOR_BYTES)

    async def _begin(self, method: str, uuid: str, volume_id: str | None = None) -> BaseException | None:
        """Note the call and strike its fault, or return the one that is to strike after the effect."""
        self.calls.append(Call(method, uuid, volume_id))
        if method in self._gates:
            await self._gates[method].wait()
        if not self._faults[method]:
            return None
        error, when = self._faults[method].popleft()
        if when is When.BEFORE:
            raise error
        return error


def _strike(fault: BaseException | None) -> None:
    if fault is not None:
        raise fault
