"""Compute hosts whose machines run a guest that answers: QEMU's from a saved state, libvirt's from their boot."""

import asyncio
import os
import shutil
import signal
import xml.etree.ElementTree as ET
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from common.host.clock import SystemClock
from nova_lite.ports.hypervisor import Hypervisor
from nova_lite.virt.guest import GuestSystem
from nova_lite.virt.libvirt import LibvirtHypervisor
from nova_lite.virt.libvirt_client import DEBIANS_PYTHON, LibvirtClient
from nova_lite.virt.libvirt_xml import LibvirtOptions
from nova_lite.virt.qemu import QemuHypervisor
from nova_lite.virt.qemu_argv import SERIAL
from nova_lite.virt.qemu_process import killed, machine_process
from nova_lite.virt.qmp_client import open_qmp
from tests.support.guests import BOOT_TIMEOUT_S, MEMORY_MIB, GuestShell, guest_folder, guest_options, save_state
from tests.support.libvirtd import libvirtd

NAMES = ("cmp1", "cmp2")
DETACH_TIMEOUT_S = 6.0
"""A guest that can lets go of a disk within a second, on a busy machine too."""


class ComputeHost(ABC):
    """One host's hypervisor, and the consoles of its guests."""

    hypervisor: Hypervisor

    def __init__(self, name: str) -> None:
        self.name = name

    @asynccontextmanager
    async def console(self, uuid: str) -> AsyncIterator[GuestShell]:
        """The guest's console, once it answers."""
        shell = await self._open(uuid)
        try:
            await shell.ready(timeout_s=BOOT_TIMEOUT_S)
            yield shell
        finally:
            shell.close()

    @abstractmethod
    async def kill(self, uuid: str) -> None:
        """The machine's process dies."""

    @abstractmethod
    async def pause(self, uuid: str) -> None:
        """The guest stands still, and answers nobody."""

    @abstractmethod
    async def go_on(self, uuid: str) -> None: ...

    @abstractmethod
    async def _open(self, uuid: str) -> GuestShell: ...


class QemuHost(ComputeHost):
    def __init__(self, name: str, folder: Path, state: Path, keyrings: Path) -> None:
        super().__init__(name)
        options = guest_options(
            saved_state=str(state),
            spawn_timeout_s=60.0,
            command_timeout_s=40.0,
            detach_timeout_s=DETACH_TIMEOUT_S,
            keyrings=keyrings,
        )
        self._qemu = self.hypervisor = QemuHypervisor(folder / name, SystemClock(), options)

    async def kill(self, uuid: str) -> None:
        with machine_process(self._qemu.folder_of(uuid), uuid) as pidfd:
            assert pidfd is not None
            assert await killed(pidfd, timeout_s=20)

    async def pause(self, uuid: str) -> None:
        await self._tell(uuid, "stop")

    async def go_on(self, uuid: str) -> None:
        await self._tell(uuid, "cont")

    async def _tell(self, uuid: str, command: str) -> None:
        async with open_qmp(self._qemu.folder_of(uuid), name=uuid, timeout_s=20) as qmp:
            await qmp.execute(command)

    async def _open(self, uuid: str) -> GuestShell:
        return await GuestShell.at_socket(self._qemu.folder_of(uuid) / SERIAL)


class LibvirtHost(ComputeHost):
    def __init__(self, name: str, folder: Path, options: LibvirtOptions, pids: Path) -> None:
        super().__init__(name)
        self._options, self._pids = options, pids
        self.hypervisor = LibvirtHypervisor(folder / name, SystemClock(), options, host=name)

    async def kill(self, uuid: str) -> None:
        os.kill(int((self._pids / f"instance-{uuid}.pid").read_text()), signal.SIGKILL)
        while uuid in await self.hypervisor.list_instances():
            await SystemClock().sleep(0.1)

    async def pause(self, uuid: str) -> None:
        await self._tell(uuid, "suspend")

    async def go_on(self, uuid: str) -> None:
        await self._tell(uuid, "resume")

    async def _tell(self, uuid: str, verb: str) -> None:
        code = f"import libvirt, sys; libvirt.open(sys.argv[1]).lookupByUUIDString(sys.argv[2]).{verb}()"
        process = await asyncio.create_subprocess_exec(DEBIANS_PYTHON, "-c", code, self._options.connection_uri, uuid)
        assert await process.wait() == 0

    async def _open(self, uuid: str) -> GuestShell:
        found = await LibvirtClient(self._options.connection_uri).ask("list", name=uuid, timeout_s=40)
        (xml,) = [domain["xml"] for domain in found if domain["uuid"] == uuid]
        return await GuestShell.at_terminal(ET.fromstring(xml).find("devices/serial/source").attrib["path"])  # type: ignore[union-attr]


@asynccontextmanager
async def qemu_hosts(folder: Path, keyrings: Path) -> AsyncIterator[list[ComputeHost]]:
    """Two, whose guests go on from one saved state."""
    state = await save_state(folder / "saved")
    hosts: list[ComputeHost] = [QemuHost(name, folder, state, keyrings) for name in NAMES]
    try:
        yield hosts
    finally:
        await _cleared(hosts)


@asynccontextmanager
async def libvirt_hosts(folder: Path, keyrings: Path) -> AsyncIterator[list[ComputeHost]]:
    """Two on one libvirtd of another user's, who can read the guest's files."""
    with libvirtd() as daemon:
        kernel, initrd = (shutil.copy(guest_folder() / name, daemon.state / name) for name in ("vmlinuz", "initrd.gz"))
        options = LibvirtOptions(
            connection_uri=daemon.uri, disks_max=3, memory_mib_max=MEMORY_MIB, guest=GuestSystem(str(kernel), str(initrd)),
            command_timeout_s=60.0, keyrings=keyrings, detach_timeout_s=DETACH_TIMEOUT_S,
        )  # fmt: skip
        pids = daemon.folder / "rt/libvirt/qemu/run"
        hosts: list[ComputeHost] = [LibvirtHost(name, daemon.state, options, pids) for name in NAMES]
        try:
            yield hosts
        finally:
            await _cleared(hosts)


async def _cleared(hosts: list[ComputeHost]) -> None:
    for host in hosts:
        async with asyncio.TaskGroup() as group:
            for uuid in await host.hypervisor.list_instances():
                group.create_task(host.hypervisor.destroy(uuid))


HYPERVISORS = {"qemu": qemu_hosts, "libvirt": libvirt_hosts}
"""By name: what makes two compute hosts in a folder."""
