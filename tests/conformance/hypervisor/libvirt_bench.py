"""Libvirt with what is around it: a private daemon for the run, a compute host of its own for each test."""

import asyncio
import json
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from common.host.clock import SystemClock
from nova_lite.ports.hypervisor import Hypervisor
from nova_lite.virt.libvirt import LibvirtHypervisor
from nova_lite.virt.libvirt_client import DEBIANS_PYTHON, LibvirtClient
from nova_lite.virt.libvirt_xml import LibvirtOptions, parse_secret
from tests.conformance.hypervisor.bench import DISKS_MAX, Bench, ConnectionInfo, IscsiVolumes, LocalVolumes, VolumesForSuite
from tests.conformance.hypervisor.tgt_daemon import TgtDaemon
from tests.support.libvirtd import Libvirtd

_HOSTS = count(1)
_NODES = """
import json, sys, libvirt, libvirt_qemu
domain = libvirt.open(sys.argv[1]).lookupByUUIDString(sys.argv[2])
said = libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-named-block-nodes", "arguments": {"flat": true}}', 0)
print(json.dumps([node["node-name"] for node in json.loads(said)["return"]]))
"""


class LibvirtBench(Bench):
    """The daemon outlives it; at the end its machines are killed, and their definitions belong to a host that nobody is any more."""

    volumes: VolumesForSuite

    def __init__(self, daemon: Libvirtd) -> None:
        self.daemon = daemon
        self.host = f"cmp{next(_HOSTS)}"
        self.folder = daemon.state / self.host
        self.folder.mkdir()
        daemon.give(self.folder)
        self.options = LibvirtOptions(connection_uri=daemon.uri, disks_max=DISKS_MAX)
        self.hypervisor = self.restarted()
        self.volumes = LocalVolumes(self.folder)

    def restarted(self) -> LibvirtHypervisor:
        return self.libvirt(self.options)

    def libvirt(self, options: LibvirtOptions) -> LibvirtHypervisor:
        return LibvirtHypervisor(self.folder, SystemClock(), options, host=self.host)

    def volume(self) -> ConnectionInfo:
        info = self.volumes.volume()
        self.daemon.give(info["backing_path"])
        return info

    def refusable(self) -> ConnectionInfo:
        return self.volumes.refusable()

    def sessions(self, info: ConnectionInfo) -> int:
        return self.volumes.sessions(info)

    def grow(self, info: ConnectionInfo, size: int) -> None:
        self.volumes.grow(info, size)

    async def kill(self, uuid: str) -> None:
        """Returns once libvirt has noticed, which takes it a second."""
        self.send_signal(uuid, signal.SIGKILL)
        while uuid in await self.hypervisor.list_instances():
            await SystemClock().sleep(0.05)

    def hang(self, uuid: str) -> Hypervisor | None:
        self.send_signal(uuid, signal.SIGSTOP)
        return self.libvirt(replace(self.options, command_timeout_s=5.0))

    def send_signal(self, uuid: str, number: signal.Signals) -> None:
        os.kill(self.daemon.machine_pids()[uuid], number)

    def stubborn(self) -> LibvirtHypervisor:
        return self.libvirt(replace(self.options, unplug_by_guest=True, detach_timeout_s=0.5))

    async def parts(self, uuid: str) -> set[str]:
        argv = [DEBIANS_PYTHON, "-c", _NODES, self.daemon.uri, uuid]
        said = await asyncio.to_thread(subprocess.run, argv, capture_output=True, check=True, timeout=20)
        client = LibvirtClient(self.daemon.uri)
        secrets = [parse_secret(secret) for secret in await client.ask("secrets", name=uuid, timeout_s=20)]
        disks = await self.hypervisor.disks(uuid)
        return {*json.loads(said.stdout), *disks, *(f"secret of {found[1]}" for found in secrets if found and found[0] == uuid)}

    def files(self, uuid: str) -> list[Path]:
        """Libvirt keeps the log of a machine that is gone."""
        return [path for path in self.daemon.folder.rglob(f"*{uuid}*") if path.suffix != ".log"]

    def processes(self, uuid: str) -> list[Path]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it ended meanwhile
                found += [path.parent] if uuid.encode() in path.read_bytes() else []
        return found

    def traces(self, uuid: str) -> bytes:
        (process,) = self.processes(uuid)
        files = [path for path in self.daemon.folder.rglob("*") if path.is_file() and path.suffix != ".img"]
        read = [path.read_bytes() for path in files if path.name != "master-key.aes"]
        return b"".join(read) + (process / "cmdline").read_bytes() + (process / "environ").read_bytes()

    async def close(self) -> None:
        mine = await self.restarted().list_instances()
        for uuid, pid in self.daemon.machine_pids().items():
            if uuid in mine:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class LibvirtIscsiBench(LibvirtBench):
    def __init__(self, daemon: Libvirtd, folder: Path) -> None:
        super().__init__(daemon)
        self.tgt = TgtDaemon(folder)
        self.volumes = IscsiVolumes(folder, self.tgt)

    async def close(self) -> None:
        try:
            self.tgt.go_on()
            await super().close()
        finally:
            self.tgt.stop()
