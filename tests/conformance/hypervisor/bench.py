"""What the suite needs around a hypervisor: volumes to plug, and ways to make machines fail."""

import os
import signal
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cinder_lite.ports.target import Chap
from common.base.ids import new_uuid
from common.host.clock import SystemClock
from nova_lite.contract import Instance, VmState
from nova_lite.errors import HypervisorRefused
from nova_lite.ports.connector import VOLUME_SIZE
from nova_lite.ports.hypervisor import Hypervisor
from nova_lite.virt.fake import FakeHost, FakeHypervisor
from nova_lite.virt.qemu import QemuHypervisor
from nova_lite.virt.qemu_argv import QemuOptions
from nova_lite.virt.qemu_machine import QemuMachine
from nova_lite.virt.qemu_process import killed, machine_process
from nova_lite.virt.qmp_client import open_qmp
from nova_lite.virt.simulated import MACHINE_FILE, SimulatedHypervisor
from tests.conformance.hypervisor.tgt_daemon import TgtDaemon
from tests.simulation.adapters import SimulatedHypervisor as HypervisorInSimulation
from tests.simulation.bench import Workbench
from tests.simulation.reality import BackendVolume

ConnectionInfo = dict[str, Any]

GIB = 1024**3
VOLUME_BYTES = 1024 * 1024
DISKS_MAX = 3
SECRET = "Sesame-never-shown-16"
INITIATOR = "iqn.2010-10.org.openstack:suite"


def instance(uuid: str) -> Instance:
    return Instance(uuid=uuid, display_name="vm, one=1", vm_state=VmState.BUILDING, memory_mb=512, vcpus=1)


async def spawned(hypervisor: Hypervisor) -> str:
    """The uuid of a new machine."""
    uuid = new_uuid()
    await hypervisor.spawn(instance(uuid))
    return uuid


_QEMU = pytest.mark.real("qemu")
_TGT = pytest.mark.real("tgt")
_LIBVIRT = pytest.mark.real("libvirt")
WILFUL = [
    "fake",
    pytest.param("qemu-local", marks=_QEMU),
    pytest.param("qemu-iscsi", marks=[_QEMU, _TGT]),
    pytest.param("libvirt-iscsi", marks=[_LIBVIRT, _QEMU, _TGT]),
    pytest.param("libvirt-local", marks=[_LIBVIRT, _QEMU, pytest.mark.long]),
]
"""Adapters whose machines can hang, and whose guests can keep a disk; simulated ones do neither."""
ALL = ["simulated", "simulation", *WILFUL]


class Bench(ABC):
    """One adapter, with what is around it."""

    hypervisor: Hypervisor

    @abstractmethod
    def restarted(self) -> Hypervisor:
        """Another object on the same state, as after a restart of nova-compute."""

    @abstractmethod
    def volume(self) -> ConnectionInfo:
        """connection_info of a new volume of VOLUME_BYTES zeros."""

    @abstractmethod
    def refusable(self) -> ConnectionInfo:
        """connection_info of a new volume that a machine must refuse."""

    @abstractmethod
    async def kill(self, uuid: str) -> None:
        """The machine dies."""

    @abstractmethod
    def hang(self, uuid: str) -> Hypervisor | None:
        """Stop the machine; an impatient hypervisor on the same state. None: machines of this adapter cannot hang."""

    @abstractmethod
    def stubborn(self) -> Hypervisor | None:
        """A hypervisor whose guests do not let go. None: there is none."""

    def stored(self, info: ConnectionInfo, offset: int, length: int) -> bytes | None:
        """What the volume's backing store holds; None where there is no such thing."""
        path = info.get("backing_path")
        return path.read_bytes()[offset : offset + length] if path else None

    def sized(self, info: ConnectionInfo, size_gib: int) -> ConnectionInfo:
        """The same volume, which is to have `size_gib` by its row; its storage shows VOLUME_BYTES."""
        return info | {VOLUME_SIZE: size_gib}

    @abstractmethod
    def grow(self, info: ConnectionInfo, size: int) -> None:
        """The volume's storage has `size` bytes from now on, and says so."""

    async def parts(self, uuid: str) -> set[str]:
        """Everything of volumes that is in the machine, seen or unseen: devices, block nodes, secrets."""
        return set()

    def sessions(self, info: ConnectionInfo) -> int:
        """Logins at the volume's target."""
        return 0

    def files(self, uuid: str) -> list[Path]:
        """The machine's folder and all that is in it."""
        return []

    def processes(self, uuid: str) -> list[Path]:
        """The machine's processes, as folders of /proc."""
        return []

    def traces(self, uuid: str) -> bytes:
        """All that can be read about the machine from outside: its files, log and argument vector."""
        return b""

    async def close(self) -> None:
        await self.hypervisor.close()


class FakeBench(Bench):
    def __init__(self) -> None:
        self._host = FakeHost(size=VOLUME_BYTES)
        self._fake = self.hypervisor = FakeHypervisor(self._host, disks_max=DISKS_MAX)

    def restarted(self) -> Hypervisor:
        return FakeHypervisor(self._host, disks_max=DISKS_MAX)

    def volume(self) -> ConnectionInfo:
        data = {"auth_method": "CHAP", "auth_username": "u", "auth_password": SECRET}
        return {"driver_volume_type": "iscsi", "serial": new_uuid(), "data": data}

    def grow(self, info: ConnectionInfo, size: int) -> None:
        self._host.sizes[info["serial"]] = size

    def sized(self, info: ConnectionInfo, size_gib: int) -> ConnectionInfo:
        self._host.sizes[info["serial"]] = VOLUME_BYTES
        return super().sized(info, size_gib)

    def refusable(self) -> ConnectionInfo:
        self._fake.script.fail_next("attach_volume", HypervisorRefused(name="vm", command="attach_volume", reason="scripted"))
        return self.volume()

    async def kill(self, uuid: str) -> None:
        self._host.kill(uuid)

    def hang(self, uuid: str) -> Hypervisor | None:
        self._host.hung.add(uuid)
        return self.hypervisor

    def stubborn(self) -> Hypervisor | None:
        fake = FakeHypervisor(self._host, disks_max=DISKS_MAX)
        fake.keep_next_disk()
        return fake


class SimulationBench(Bench):
    """The one of tests/simulation: a guest can keep a disk."""

    def __init__(self) -> None:
        self._workbench = Workbench("cmp1")
        self._reality = self._workbench.reality
        self.hypervisor = self.restarted()

    def restarted(self) -> Hypervisor:
        return HypervisorInSimulation(self._reality, self._reality.hosts["cmp1"], self._workbench.process, disks_max=DISKS_MAX)

    def volume(self) -> ConnectionInfo:
        volume_id = new_uuid()
        iqn, path, chap = f"iqn.x:{volume_id}", self._reality.path(volume_id), Chap("u", SECRET)
        self._reality.volumes[volume_id] = BackendVolume(VOLUME_BYTES / GIB)
        self._reality.export(iqn, path, chap)
        self._reality.let_in(iqn, self._reality.hosts["cmp1"].initiator)
        data = {"auth_method": "CHAP", "auth_username": "u", "auth_password": SECRET, "target_iqn": iqn}
        return {"driver_volume_type": "iscsi", "serial": volume_id, "data": data}

    def refusable(self) -> ConnectionInfo:
        info = self.volume()
        return info | {"data": info["data"] | {"auth_password": f"{SECRET}-not"}}

    def grow(self, info: ConnectionInfo, size: int) -> None:
        self._reality.volumes[info["serial"]].size_gib = size / GIB
        self._reality.extend(info["data"]["target_iqn"])

    def sessions(self, info: ConnectionInfo) -> int:
        return len(self._reality.sessions(info["data"]["target_iqn"]))

    async def kill(self, uuid: str) -> None:
        self._reality.kill_machine(uuid)

    def hang(self, uuid: str) -> Hypervisor | None:
        return None

    def stubborn(self) -> Hypervisor | None:
        return None


class VolumesForSuite(ABC):
    """Where a bench's volumes come from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def backing(self) -> Path:
        path = self.folder / f"{new_uuid()}.img"
        path.touch()
        os.truncate(path, VOLUME_BYTES)
        return path

    @abstractmethod
    def volume(self) -> ConnectionInfo: ...

    @abstractmethod
    def refusable(self) -> ConnectionInfo: ...

    def sessions(self, info: ConnectionInfo) -> int:
        return 0

    def grow(self, info: ConnectionInfo, size: int) -> None:
        os.truncate(info["backing_path"], size)


class LocalVolumes(VolumesForSuite):
    """Files."""

    def volume(self) -> ConnectionInfo:
        path = self.backing()
        return {"driver_volume_type": "local", "serial": new_uuid(), "data": {"device_path": str(path)}, "backing_path": path}

    def refusable(self) -> ConnectionInfo:
        return {"driver_volume_type": "local", "serial": new_uuid(), "data": {"device_path": str(self.folder / "absent")}}


class IscsiVolumes(VolumesForSuite):
    """LUNs of tgtd, with CHAP, for INITIATOR."""

    def __init__(self, folder: Path, tgt: TgtDaemon) -> None:
        super().__init__(folder)
        self.tgt = tgt

    def volume(self) -> ConnectionInfo:
        volume_id = new_uuid()
        iqn = f"iqn.2010-10.org.openstack:volume-{volume_id}"
        data = {"target_portal": self.tgt.portal, "target_iqn": iqn, "target_lun": 1, "target_discovered": False}
        data |= {"auth_method": "CHAP", "auth_username": f"u{volume_id[:8]}", "auth_password": SECRET}
        info: ConnectionInfo = {"driver_volume_type": "iscsi", "serial": volume_id, "data": data}
        info |= {"connector": {"initiator": INITIATOR}, "backing_path": self.backing()}
        self.export(info)
        return info

    def export(self, info: ConnectionInfo) -> None:
        """Make the volume's target, anew when tgtd was restarted."""
        data = info["data"]
        user, password = data["auth_username"], data["auth_password"]
        self.tgt.export(data["target_iqn"], info["backing_path"], user=user, password=password, initiator=INITIATOR)

    def refusable(self) -> ConnectionInfo:
        info = self.volume()
        return info | {"data": info["data"] | {"auth_password": f"{SECRET}-not"}}

    def grow(self, info: ConnectionInfo, size: int) -> None:
        super().grow(info, size)
        self.tgt.look_again(info["data"]["target_iqn"], info["backing_path"])

    def sessions(self, info: ConnectionInfo) -> int:
        return self.tgt.sessions(info["data"]["target_iqn"])


class _OnFiles(Bench):
    """Machines under <folder>/state, volumes as files beside it."""

    volumes: VolumesForSuite

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.volumes = LocalVolumes(folder)

    def instance_folder(self, uuid: str) -> Path:
        return self.state / "instances" / uuid

    def volume(self) -> ConnectionInfo:
        return self.volumes.volume()

    def refusable(self) -> ConnectionInfo:
        return self.volumes.refusable()

    def sessions(self, info: ConnectionInfo) -> int:
        return self.volumes.sessions(info)

    def grow(self, info: ConnectionInfo, size: int) -> None:
        self.volumes.grow(info, size)

    def files(self, uuid: str) -> list[Path]:
        folder = self.instance_folder(uuid)
        return [folder, *folder.rglob("*")] if folder.exists() else []

    def traces(self, uuid: str) -> bytes:
        return b"".join(path.read_bytes() for path in self.files(uuid) if path.is_file())


class SimulatedBench(_OnFiles):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.hypervisor = self.restarted()

    def restarted(self) -> Hypervisor:
        return SimulatedHypervisor(self.state, SystemClock(), disks_max=DISKS_MAX)

    async def kill(self, uuid: str) -> None:
        (self.instance_folder(uuid) / MACHINE_FILE).unlink()

    def hang(self, uuid: str) -> Hypervisor | None:
        return None

    def stubborn(self) -> Hypervisor | None:
        return None


class QemuBench(_OnFiles):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.hypervisor = self.restarted()

    def restarted(self) -> Hypervisor:
        return self.qemu(QemuOptions(disks_max=DISKS_MAX))

    def qemu(self, options: QemuOptions) -> QemuHypervisor:
        return QemuHypervisor(self.state, SystemClock(), options)

    async def kill(self, uuid: str) -> None:
        with machine_process(self.instance_folder(uuid), uuid) as pidfd:
            assert pidfd is not None
            assert await killed(pidfd, timeout_s=20)

    def hang(self, uuid: str) -> Hypervisor | None:
        self.send_signal(uuid, signal.SIGSTOP)
        return self.qemu(QemuOptions(disks_max=DISKS_MAX, command_timeout_s=1.0, quit_timeout_s=1.0))

    def send_signal(self, uuid: str, number: signal.Signals) -> None:
        with machine_process(self.instance_folder(uuid), uuid) as pidfd:
            assert pidfd is not None
            signal.pidfd_send_signal(pidfd, number)

    def stubborn(self) -> Hypervisor:
        return self.qemu(QemuOptions(disks_max=DISKS_MAX, unplug_by_guest=True, detach_timeout_s=0.5))

    async def parts(self, uuid: str) -> set[str]:
        async with open_qmp(self.instance_folder(uuid), name=uuid, timeout_s=20) as qmp:
            found = await QemuMachine(qmp, name=uuid, options=QemuOptions(), clock=SystemClock()).inventory()
        return {*found.devices, *found.nodes, *(name for name in found.objects if name not in {"type", "pc.ram"})}

    def processes(self, uuid: str) -> list[Path]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it ended meanwhile
                found += [path.parent] if uuid.encode() in path.read_bytes() else []
        return found

    def traces(self, uuid: str) -> bytes:
        (process,) = self.processes(uuid)
        return super().traces(uuid) + (process / "cmdline").read_bytes() + (process / "environ").read_bytes()

    async def close(self) -> None:
        hypervisor = self.qemu(QemuOptions(quit_timeout_s=2.0))
        for uuid in await hypervisor.list_instances():
            await hypervisor.destroy(uuid)


class QemuIscsiBench(QemuBench):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tgt = TgtDaemon(folder)
        self.volumes = self.iscsi = IscsiVolumes(folder, self.tgt)

    def export(self, info: ConnectionInfo) -> None:
        self.iscsi.export(info)

    async def close(self) -> None:
        try:
            self.tgt.go_on()
            await super().close()
        finally:
            self.tgt.stop()
