"""Each target with what the suite needs to meet it as a host does."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.errors import ExportFailure
from cinder_lite.ports.target import Chap, Export, Target
from cinder_lite.targets.fake import FakeTarget
from cinder_lite.targets.iscsi_names import new_chap
from cinder_lite.targets.local import LocalTarget
from cinder_lite.targets.tgt import TgtOptions, TgtTarget
from cinder_lite.targets.tgtd import TgtDaemon
from common.base.ids import new_uuid
from common.host.clock import SystemClock
from common.host.command import run
from common.testing.servers import free_port
from tests.simulation.adapters import SimulatedTarget
from tests.simulation.bench import Workbench
from tests.simulation.reality import BackendVolume, Disk, Machine

MIB = 1024**2
GIB = 1024**3
Connector = dict[str, Any]


def new_volume(*, multiattach: bool = False) -> Volume:
    return Volume(id=new_uuid(), size=1, status=VolumeStatus.AVAILABLE, multiattach=multiattach)


def connector(number: int = 1) -> Connector:
    return {"host": f"cmp{number}", "ip": "127.0.0.1", "initiator": f"iqn.1993-08.org.debian:01:cmp{number}", "multipath": False}


class Rig(Protocol):
    """A target, and hosts that try to get in."""

    @property
    def target(self) -> Target: ...

    def backing(self, name: str) -> str:
        """The path of a new, empty disk."""
        ...

    async def gets_in(self, export: Export, connector: Connector) -> bool:
        """Whether that host reaches the disk with the credentials of `export`."""
        ...

    def session(self, export: Export, connector: Connector) -> AbstractAsyncContextManager[None]:
        """That host uses the disk meanwhile, for as long as it is let."""
        ...

    async def sessions(self, export: Export) -> set[str]:
        """The hosts that use it."""
        ...

    def break_exporting(self, export: Export) -> None:
        """Makes the next `create_export` of it fail."""
        ...

    def grow(self, path: str, size: int) -> None:
        """The disk there has `size` bytes from now on, as when its driver has extended it."""
        ...

    async def capacity(self, export: Export, connector: Connector) -> int:
        """The bytes that the host is told when it asks."""
        ...


def new_export(rig: Rig, volume: Volume | None = None) -> Export:
    volume = volume or new_volume()
    return Export(volume, rig.backing(volume.name), new_chap() if rig.target.needs_chap else None)


class FakeRig:
    def __init__(self, *, needs_chap: bool) -> None:
        self.target = FakeTarget(needs_chap=needs_chap)

    def backing(self, name: str) -> str:
        return f"/fake/{name}"

    async def gets_in(self, export: Export, connector: Connector) -> bool:
        iqn = self.target.export_name(export.volume)
        there = self.target.served.get(iqn)
        return self.target.login(iqn, connector["initiator"], export.chap) and there is not None and there.path == export.path

    @asynccontextmanager
    async def session(self, export: Export, connector: Connector) -> AsyncIterator[None]:
        assert await self.gets_in(export, connector)
        yield

    async def sessions(self, export: Export) -> set[str]:
        there = self.target.served.get(self.target.export_name(export.volume))
        return {initiator.rpartition(":")[2] for initiator in there.sessions} if there else set()

    def break_exporting(self, export: Export) -> None:
        self.target.script.fail_next("create_export", ExportFailure(volume_id=export.volume.id, reason="told so"))

    def grow(self, path: str, size: int) -> None:
        """There are no bytes."""

    async def capacity(self, export: Export, connector: Connector) -> int:
        assert await self.gets_in(export, connector)
        return self.target.served[self.target.export_name(export.volume)].size


class SimulatedRig:
    def __init__(self) -> None:
        self._bench = Workbench("cmp1", "cmp2")
        self.target = SimulatedTarget(self._bench.reality, self._bench.process)

    def backing(self, name: str) -> str:
        self._bench.reality.volumes[name] = BackendVolume(1)
        return self._bench.reality.path(name)

    async def gets_in(self, export: Export, connector: Connector) -> bool:
        disk = self._disk(export, connector)
        there = self._bench.reality.served.get(disk.iqn)
        return self._bench.reality.log_in(disk) and there is not None and there.path == export.path

    @asynccontextmanager
    async def session(self, export: Export, connector: Connector) -> AsyncIterator[None]:
        disk = self._disk(export, connector)
        assert self._bench.reality.plug(disk.machine, disk)
        disk.machine.host.machines[disk.machine.uuid] = disk.machine
        yield
        self._bench.reality.kill_machine(disk.machine.uuid)

    async def sessions(self, export: Export) -> set[str]:
        found = self._bench.reality.sessions(self.target.export_name(export.volume))
        return {disk.machine.host.initiator.rpartition(":")[2] for disk in found}

    def break_exporting(self, export: Export) -> None:
        del self._bench.reality.volumes[export.volume.name]

    def grow(self, path: str, size: int) -> None:
        self._bench.reality.volumes[path.rpartition("/")[2]].size_gib = size / GIB

    async def capacity(self, export: Export, connector: Connector) -> int:
        assert await self.gets_in(export, connector)
        return int(self._bench.reality.served[self.target.export_name(export.volume)].size_gib * GIB)

    def _disk(self, export: Export, connector: Connector) -> Disk:
        host = next(host for host in self._bench.reality.hosts.values() if host.initiator == connector["initiator"])
        return Disk(export.volume.id, "/dev/vdb", self.target.export_name(export.volume), export.chap, Machine(new_uuid(), host))


class LocalRig:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.target = LocalTarget(folder, my_ip="127.0.0.1")

    def backing(self, name: str) -> str:
        return _disk(self._folder / name)

    async def gets_in(self, export: Export, connector: Connector) -> bool:
        exported = self.target.export_name(export.volume) in await self.target.exports()
        return exported and connector["host"] in await self.target.hosts(export.volume)

    @asynccontextmanager
    async def session(self, export: Export, connector: Connector) -> AsyncIterator[None]:
        assert await self.gets_in(export, connector)
        yield

    async def sessions(self, export: Export) -> set[str]:
        return await self.target.hosts(export.volume)

    def break_exporting(self, export: Export) -> None:
        Path(export.path).unlink()

    def grow(self, path: str, size: int) -> None:
        os.truncate(path, size)

    async def capacity(self, export: Export, connector: Connector) -> int:
        return await asyncio.to_thread(os.path.getsize, export.path)


class TgtRig:
    """With a tgtd of its own; hosts are libiscsi's programs."""

    def __init__(self, folder: Path, options: TgtOptions, daemon: TgtDaemon) -> None:
        self._folder = folder
        self.options = options
        self.daemon = daemon
        self.tgtadm = options.tgtadm
        self.target = TgtTarget(options, SystemClock())

    def backing(self, name: str) -> str:
        return _disk(self._folder / name)

    async def gets_in(self, export: Export, connector: Connector) -> bool:
        return await self.reads(export, connector["initiator"], export.chap)

    async def reads(self, export: Export, initiator: str, chap: Chap | None) -> bool:
        argv = ("iscsi-readcapacity16", "-s", "-i", initiator, self.url(export))
        output = await run(*argv, timeout_s=20, env=login_environment(chap))
        return output.status == 0 and output.stdout.strip() == str(MIB)

    @asynccontextmanager
    async def session(self, export: Export, connector: Connector) -> AsyncIterator[None]:
        """It reads all the time: the hardest to end."""
        nothing = asyncio.subprocess.DEVNULL
        reader = await asyncio.create_subprocess_exec(
            "iscsi-perf", "-i", connector["initiator"], "-t", "60", "-x", "1", self.url(export),
            stdin=nothing, stdout=nothing, stderr=nothing, env=login_environment(export.chap),
        )  # fmt: skip
        try:
            async with asyncio.timeout(20):
                while connector["host"] not in await self.sessions(export):
                    await SystemClock().sleep(0.02)
            yield
        finally:
            if reader.returncode is None:
                reader.kill()
            await reader.wait()

    async def sessions(self, export: Export) -> set[str]:
        iqn = self.target.export_name(export.volume)
        found = [target for target in await self.tgtadm.targets() if target.iqn == iqn]
        return {initiator.rpartition(":")[2] for target in found for initiator in target.nexuses}

    def break_exporting(self, export: Export) -> None:
        Path(export.path).unlink()

    def grow(self, path: str, size: int) -> None:
        os.truncate(path, size)

    async def capacity(self, export: Export, connector: Connector) -> int:
        argv = ("iscsi-readcapacity16", "-s", "-i", connector["initiator"], self.url(export))
        output = await run(*argv, timeout_s=20, env=login_environment(export.chap))
        return int(output.stdout)

    def url(self, export: Export) -> str:
        return f"iscsi://{self.options.portal}/{self.target.export_name(export.volume)}/1"


def login_environment(chap: Chap | None) -> dict[str, str]:
    names = {"LIBISCSI_CHAP_USERNAME": chap.username, "LIBISCSI_CHAP_PASSWORD": chap.password} if chap else {}
    return {"PATH": os.environ["PATH"], **names}


@asynccontextmanager
async def tgt_rig(folder: Path) -> AsyncIterator[TgtRig]:
    """The socket is in a folder with a short name: its path must not exceed 107 bytes."""
    if shutil.which("iscsi-readcapacity16") is None or shutil.which("iscsi-perf") is None:
        pytest.skip("libiscsi's programs (libiscsi-bin) are missing on this machine")
    async with AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tgt")))
        options = TgtOptions("127.0.0.1", free_port(), ipc_socket=place / "tgtd")
        daemon = await stack.enter_async_context(TgtDaemon(options, SystemClock()))
        yield TgtRig(folder, options, daemon)


def _disk(path: Path) -> str:
    path.touch()
    os.truncate(path, MIB)
    return str(path)
