"""One process's hands on reality: the ports of cinder and nova, each act of which takes a little time and can fail or hang."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any, TypeVar

from cinder_lite.contract import Snapshot, Volume
from cinder_lite.errors import ExportFailure, TargetUnavailable, VolumeBackendAPIException, VolumeIsBusy
from cinder_lite.ports.driver import VolumeStats
from cinder_lite.ports.target import Chap, Export, ExportState
from cinder_lite.targets.iscsi_names import Portal, ProviderLocation, initiator_of, iscsi_connection_info, target_iqn
from common.base.errors import Invalid
from common.testing.process import Process
from nova_lite.brick.properties import connector_properties
from nova_lite.contract import Instance
from nova_lite.errors import (
    DeviceDetachFailed,
    HypervisorRefused,
    HypervisorUnavailable,
    TooManyDiskDevices,
    VolumeBDMNotFound,
    VolumeConnectionFailed,
)
from nova_lite.ports.connector import VOLUME_SIZE, size_flaw
from nova_lite.ports.hypervisor import ConnectionInfo
from nova_lite.virt.pattern import check_pattern
from nova_lite.virt.volume_source import check_size
from tests.simulation.reality import SECTOR_BYTES, BackendSnapshot, BackendVolume, Disk, Host, Machine, Reality

T = TypeVar("T")

_PREFIX = "iqn.2010-10.org.openstack:"
_PORTAL = Portal("192.0.2.1")
_GIB = 1024**3
_LETS_GO_S = 20.0


class SimulatedDriver:
    """Implements `cinder_lite.ports.driver.VolumeDriver`."""

    def __init__(self, reality: Reality, process: Process, *, backend: str) -> None:
        self._reality = reality
        self._process = process
        self._backend = backend

    async def check_for_setup_error(self) -> None:
        """The place is always there."""

    async def create_volume(self, volume: Volume) -> None:
        await self._act("create_volume", lambda: self._make(volume, BackendVolume(0)), takes_s=0.2, of=volume.name)

    async def delete_volume(self, volume: Volume) -> None:
        def act() -> None:
            if volume.name in self._reality.volumes and self._reality.is_used(volume.name):
                raise VolumeIsBusy(volume_name=volume.name, reason="the target has it open")
            if kept := [name for name, found in self._reality.snapshots.items() if found.volume_name == volume.name]:
                raise VolumeIsBusy(volume_name=volume.name, reason=f"it has snapshots: {', '.join(kept)}")
            self._reality.volumes.pop(volume.name, None)

        await self._act("delete_volume", act, takes_s=0.2, of=volume.name)

    async def extend_volume(self, volume: Volume, new_size: int) -> None:
        def act() -> None:
            there = self._there(volume.name)
            if there.size_gib > new_size:
                raise VolumeBackendAPIException(data=f"{volume.name} has {there.size_gib} GiB; wanted {new_size} GiB")
            self._check_room(new_size - there.size_gib)
            there.size_gib = new_size

        await self._act("extend_volume", act, takes_s=0.2, of=volume.name)

    async def create_snapshot(self, snapshot: Snapshot) -> None:
        def act() -> None:
            kept = BackendSnapshot(snapshot.volume_name, deepcopy(self._there(snapshot.volume_name)))
            self._reality.snapshots.setdefault(snapshot.name, kept)

        await self._act("create_snapshot", act, takes_s=0.2, of=snapshot.volume_name)

    async def delete_snapshot(self, snapshot: Snapshot) -> None:
        def act() -> None:
            self._reality.snapshots.pop(snapshot.name, None)

        await self._act("delete_snapshot", act, takes_s=0.2, of=snapshot.volume_name)

    async def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> None:
        def act() -> None:
            found = self._reality.snapshots.get(snapshot.name)
            if found is None:
                raise VolumeBackendAPIException(data=f"{snapshot.name} is not there")
            self._make(volume, found.kept)

        await self._act("create_volume_from_snapshot", act, takes_s=0.2, of=volume.name)

    async def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> None:
        await self._act("create_cloned_volume", lambda: self._make(volume, self._there(src_vref.name)), takes_s=0.2, of=volume.name)

    def local_path(self, volume: Volume) -> str:
        return self._reality.path(volume.name)

    async def get_volume_stats(self) -> VolumeStats:
        await self._process.living()
        provisioned = self._provisioned()
        return VolumeStats(
            volume_backend_name=self._backend,
            pool_name=self._backend,
            storage_protocol="iSCSI",
            driver_version="1.0.0",
            total_capacity_gb=self._reality.total_gib,
            free_capacity_gb=self._reality.total_gib - provisioned,
            provisioned_capacity_gb=provisioned,
        )

    async def list_volumes(self) -> set[str]:
        return await self._act("list_volumes", lambda: set(self._reality.volumes), takes_s=0.01)

    async def list_snapshots(self) -> dict[str, str]:
        def act() -> dict[str, str]:
            return {name: found.volume_name for name, found in self._reality.snapshots.items()}

        return await self._act("list_snapshots", act, takes_s=0.01)

    def _make(self, volume: Volume, kept: BackendVolume) -> None:
        there = self._reality.volumes.get(volume.name)
        if there is None:
            if volume.size < kept.size_gib:
                raise VolumeBackendAPIException(data=f"{volume.name} of {volume.size} GiB cannot hold {kept.size_gib} GiB")
            self._check_room(volume.size)
            self._reality.volumes[volume.name] = BackendVolume(volume.size, dict(kept.sectors))
        elif there.size_gib != volume.size:
            raise VolumeBackendAPIException(data=f"{volume.name} is there with {there.size_gib} GiB; wanted {volume.size} GiB")

    def _there(self, name: str) -> BackendVolume:
        if name not in self._reality.volumes:
            raise VolumeBackendAPIException(data=f"{name} is not there")
        return self._reality.volumes[name]

    def _check_room(self, size_gib: float) -> None:
        free = self._reality.total_gib - self._provisioned()
        if size_gib > free:
            raise VolumeBackendAPIException(data=f"{size_gib} GiB wanted, {free} GiB free")

    def _provisioned(self) -> float:
        return float(sum(volume.size_gib for volume in self._reality.volumes.values()))

    async def _act(self, name: str, act: Callable[[], T], *, takes_s: float, of: str | None = None) -> T:
        with _serial(self._reality, of, name, self._process):
            return await self._process.act(
                f"driver.{name}", act, takes_s=takes_s, failure=lambda: VolumeBackendAPIException(data="the backend failed")
            )


class SimulatedTarget:
    """Implements `cinder_lite.ports.target.Target`."""

    kind = "simulated"
    needs_chap = True

    def __init__(self, reality: Reality, process: Process) -> None:
        self._reality = reality
        self._process = process

    async def check_for_setup_error(self) -> None:
        """The daemon is always there; what it has may be gone."""

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        initiator_of(connector)

    def export_name(self, volume: Volume) -> str:
        return target_iqn(_PREFIX, volume.name)

    async def exports(self) -> set[str]:
        return await self._act("exports", lambda: set(self._reality.served), takes_s=0.01)

    async def connections(self) -> dict[str, ExportState]:
        def act() -> dict[str, ExportState]:
            return {iqn: self._state(iqn) for iqn in sorted(self._reality.served)}

        return await self._act("connections", act, takes_s=0.01)

    async def create_export(self, export: Export) -> str:
        iqn = self.export_name(export.volume)

        def act() -> None:
            self._check_chap(export)
            if export.volume.name not in self._reality.volumes:
                raise ExportFailure(volume_id=export.volume.id, reason=f"{export.path} is not there")
            self._reality.export(iqn, export.path, export.chap)

        await self._act("create_export", act, of=export.volume.name)
        return str(_location(iqn))

    async def extend_target(self, export: Export, new_size: int) -> None:
        iqn = self.export_name(export.volume)

        def act() -> None:
            if iqn in self._reality.served and self._reality.volumes[export.volume.name].size_gib * _GIB < new_size:
                raise ExportFailure(volume_id=export.volume.id, reason=f"{export.path} is smaller than {new_size} bytes")
            self._reality.extend(iqn)

        await self._act("extend_target", act, of=export.volume.name)

    async def remove_export(self, export: Export) -> None:
        iqn = self.export_name(export.volume)
        await self._act("remove_export", lambda: self._reality.unexport(iqn), of=export.volume.name)

    async def initialize_connection(self, export: Export, connector: Mapping[str, Any]) -> dict[str, Any]:
        initiator, iqn = initiator_of(connector), self.export_name(export.volume)

        def act() -> None:
            self._check_chap(export)
            there = self._reality.served.get(iqn)
            if there is None or (there.path, there.chap) != (export.path, export.chap):
                raise ExportFailure(volume_id=export.volume.id, reason=f"{iqn} is not exported as the volume is")
            self._reality.let_in(iqn, initiator, is_shared=export.volume.multiattach)

        await self._act("initialize_connection", act, of=export.volume.name)
        is_multipath = bool(connector.get("multipath"))
        return iscsi_connection_info(_location(iqn), volume_id=export.volume.id, chap=export.chap, is_multipath=is_multipath)

    async def terminate_connection(self, export: Export, connector: Mapping[str, Any] | None) -> None:
        initiator = None if connector is None else initiator_of(connector)
        iqn = self.export_name(export.volume)
        await self._act("terminate_connection", lambda: self._reality.shut_out(iqn, initiator), of=export.volume.name)

    def _state(self, iqn: str) -> ExportState:
        there = self._reality.served[iqn]
        sessions = sorted(disk.machine.host.initiator for disk in self._reality.sessions(iqn))
        return ExportState(there.path, frozenset(there.acl), tuple(sessions))

    def _check_chap(self, export: Export) -> None:
        if export.chap is None:
            raise ExportFailure(volume_id=export.volume.id, reason="this target needs CHAP credentials and was given none")

    async def _act(self, name: str, act: Callable[[], T], *, takes_s: float = 0.05, of: str | None = None) -> T:
        with _serial(self._reality, of, name, self._process):
            return await self._process.act(
                f"target.{name}", act, takes_s=takes_s, failure=lambda: TargetUnavailable(name="tgtd", reason="it does not answer")
            )


def _serial(reality: Reality, subject: str | None, name: str, process: Process) -> AbstractContextManager[None]:
    """What is done to one volume is done one after another; looking (None) disturbs nobody."""
    return nullcontext() if subject is None else reality.acting(subject, name, process)


def _location(iqn: str) -> ProviderLocation:
    return ProviderLocation((_PORTAL,), iqn=iqn, lun=1, tid=1)


class SimulatedConnector:
    """Implements `nova_lite.ports.connector.Connector`; machines log in themselves."""

    def __init__(self, host: Host, process: Process, *, ip: str = "192.0.2.2") -> None:
        self._host = host
        self._process = process
        self._ip = ip
        self.sizes: dict[str, int] = {}

    async def get_connector_properties(self) -> dict[str, Any]:
        await self._process.living()
        return connector_properties(host=self._host.name, ip=self._ip, initiator=self._host.initiator or None)

    async def connect_volume(self, connection_info: Mapping[str, Any]) -> dict[str, Any]:
        volume_id = str(connection_info["serial"])
        match connection_info.get("driver_volume_type"):
            case "iscsi" | "rbd":
                device = {"type": "network"}
            case "local":
                device = {"type": "local", "path": str(connection_info["data"]["device_path"])}
            case other:
                raise Invalid(reason=f"driver_volume_type {other!r} is not among iscsi, local, rbd")
        if volume_id in self.sizes and (flaw := size_flaw(connection_info.get(VOLUME_SIZE), self.sizes[volume_id], shown="it")):
            raise VolumeConnectionFailed(volume_id=volume_id, reason=flaw)
        await self._act("connect_volume", volume_id, lambda: self._host.connected.add(volume_id))
        return device

    async def disconnect_volume(self, connection_info: Mapping[str, Any]) -> None:
        volume_id = str(connection_info["serial"])
        await self._act("disconnect_volume", volume_id, lambda: self._host.connected.discard(volume_id))

    async def connections(self) -> set[str]:
        await self._process.living()
        return set(self._host.connected)

    async def _act(self, name: str, volume_id: str, act: Callable[[], None]) -> None:
        await self._process.act(
            f"connector.{name}",
            act,
            takes_s=0.05,
            failure=lambda: VolumeConnectionFailed(volume_id=volume_id, reason="the initiator failed"),
        )


class SimulatedHypervisor:
    """Implements `nova_lite.ports.hypervisor.Hypervisor`."""

    kind = "simulated"
    device_prefix = "/dev/vd"

    def __init__(self, reality: Reality, host: Host, process: Process, *, disks_max: int = 25) -> None:
        self._reality = reality
        self._host = host
        self._process = process
        self.disks_max = disks_max

    async def spawn(self, instance: Instance) -> None:
        def act() -> None:
            self._host.machines.setdefault(instance.uuid, Machine(instance.uuid, self._host))
            self._host.dead.discard(instance.uuid)

        await self._act("spawn", instance.uuid, act, takes_s=0.5)

    async def destroy(self, instance_uuid: str) -> None:
        def act() -> None:
            self._host.machines.pop(instance_uuid, None)
            self._host.dead.discard(instance_uuid)

        await self._act("destroy", instance_uuid, act, takes_s=0.2)

    async def power_off(self, instance_uuid: str, *, timeout_s: float) -> None:
        def act() -> None:
            self._host.machines.pop(instance_uuid, None)
            self._host.dead.discard(instance_uuid)

        await self._act("power_off", instance_uuid, act, takes_s=1.0)

    async def list_instances(self) -> set[str]:
        await self._process.living()
        return set(self._host.machines)

    async def attach_volume(self, connection_info: ConnectionInfo, instance_uuid: str, mountpoint: str) -> None:
        volume_id, data = str(connection_info["serial"]), connection_info.get("data") or {}

        def act() -> None:
            machine = self._machine(instance_uuid)
            if volume_id in machine.disks:
                return
            if connection_info.get("driver_volume_type") != "iscsi":
                raise HypervisorRefused(name=instance_uuid, command="blockdev-add", reason="unknown driver_volume_type")
            if len(machine.disks) >= self.disks_max:
                raise TooManyDiskDevices(maximum=self.disks_max)
            if (shown := self._reality.size_of(data.get("target_iqn", ""))) is not None:
                check_size(connection_info.get(VOLUME_SIZE), shown, machine=instance_uuid, volume_id=volume_id)
            chap = Chap(data["auth_username"], data["auth_password"]) if "auth_username" in data else None
            disk = Disk(volume_id, mountpoint, data.get("target_iqn", ""), chap, machine)
            if not self._reality.plug(machine, disk):
                raise HypervisorRefused(name=instance_uuid, command="blockdev-add", reason="the target refuses the login")

        with _serial(self._reality, f"{self._host.name}/{volume_id}", "attach_volume", self._process):
            await self._act("attach_volume", instance_uuid, act)

    async def detach_volume(self, volume_id: str, instance_uuid: str) -> None:
        def act() -> None:
            machine = self._machine(instance_uuid)
            if volume_id in machine.disks and machine.clings:
                machine.clings = False
                raise DeviceDetachFailed(device=machine.disks[volume_id].mountpoint, name=instance_uuid, timeout_s=_LETS_GO_S)
            machine.disks.pop(volume_id, None)

        with _serial(self._reality, f"{self._host.name}/{volume_id}", "detach_volume", self._process):
            await self._act("detach_volume", instance_uuid, act)

    async def extend_volume(self, connection_info: ConnectionInfo, instance_uuid: str, requested_size: int) -> None:
        def act() -> None:
            disk = self._disk(instance_uuid, str(connection_info["serial"]))
            served = self._reality.served.get(disk.iqn)
            if served is None or served.size_gib * _GIB < requested_size:
                raise HypervisorRefused(name=instance_uuid, command="block_resize", reason="the target is smaller")
            disk.size_gib = requested_size / _GIB

        await self._act("extend_volume", instance_uuid, act)

    async def disks(self, instance_uuid: str) -> dict[str, str]:
        await self._process.living()
        return {disk.volume_id: disk.mountpoint for disk in self._machine(instance_uuid).disks.values()}

    async def leftovers(self) -> dict[str, list[str]]:
        await self._process.living()
        return {uuid: [f"/simulated/instances/{uuid}"] for uuid in sorted(self._host.dead)}

    async def write_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> None:
        def act() -> None:
            sectors = self._sectors(instance_uuid, volume_id, pattern=pattern, offset=offset, length=length)
            self._bytes(instance_uuid, volume_id).sectors.update(dict.fromkeys(sectors, pattern))

        await self._act("write_pattern", instance_uuid, act)

    async def verify_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> bool:
        def act() -> bool:
            sectors = self._sectors(instance_uuid, volume_id, pattern=pattern, offset=offset, length=length)
            found = self._bytes(instance_uuid, volume_id).sectors
            return all(found.get(sector, 0) == pattern for sector in sectors)

        return await self._act("verify_pattern", instance_uuid, act)

    async def close(self) -> None:
        """Nothing is held."""

    def _machine(self, uuid: str) -> Machine:
        machine = self._host.machines.get(uuid)
        if machine is None:
            raise HypervisorUnavailable(name=uuid, reason="it is not running")
        return machine

    def _disk(self, uuid: str, volume_id: str) -> Disk:
        disk = self._machine(uuid).disks.get(volume_id)
        if disk is None:
            raise VolumeBDMNotFound(volume_id=volume_id, instance_uuid=uuid)
        return disk

    def _bytes(self, uuid: str, volume_id: str) -> BackendVolume:
        found = self._reality.bytes_of(self._disk(uuid, volume_id))
        if found is None:
            raise HypervisorRefused(name=uuid, command="the pattern", reason="its session is gone")
        return found

    def _sectors(self, uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> range:
        check_pattern(pattern, offset=offset, length=length)
        if offset + length > self._disk(uuid, volume_id).size_gib * _GIB:
            raise HypervisorRefused(name=uuid, command="the pattern", reason=f"the disk ends before {offset + length}")
        return range(offset // SECTOR_BYTES, (offset + length) // SECTOR_BYTES)

    async def _act(self, name: str, uuid: str, act: Callable[[], T], *, takes_s: float = 0.1) -> T:
        return await self._process.act(
            f"hypervisor.{name}",
            act,
            takes_s=takes_s,
            failure=lambda: HypervisorUnavailable(name=uuid, reason="its socket does not answer"),
        )
