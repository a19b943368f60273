"""The bench of any target with any driver: its disks are the driver's volumes, its hosts libiscsi's programs."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from cinder_lite.certify.benches.local import clean, names_of
from cinder_lite.certify.specification import NotAsSpecified, NotStaged
from cinder_lite.certify.target_bench import GIB, Connector
from cinder_lite.contract import Volume
from cinder_lite.ports.driver import VolumeDriver
from cinder_lite.ports.target import Chap, Export, Target
from cinder_lite.targets.iscsi_names import ProviderLocation
from common.base.clock import Clock
from common.base.errors import Fault
from common.host.command import run

_LOGIN_TIMEOUT_S = 20.0
_PROGRAMS = ("iscsi-readcapacity16", "iscsi-perf")


class BackendBench:
    """Implements `cinder_lite.certify.target_bench.TargetBench`. What was exported before is neither named nor touched."""

    def __init__(self, target: Target, driver: VolumeDriver, clock: Clock, *, before: set[str], volumes: set[str]) -> None:
        self._heard = Overheard(target)
        self._driver = driver
        self._clock = clock
        self._before = before
        self._volumes = volumes
        self._disks: dict[str, Volume] = {}

    @classmethod
    async def over(cls, target: Target, driver: VolumeDriver, clock: Clock) -> Self:
        await driver.check_for_setup_error()
        await target.check_for_setup_error()
        return cls(target, driver, clock, before=await target.exports(), volumes=await names_of(driver))

    @property
    def target(self) -> Target:
        return self._heard

    async def exports(self) -> set[str]:
        return await self.target.exports() - self._before

    async def disk(self, volume: Volume) -> str:
        await self._driver.create_volume(volume)
        path = self._driver.local_path(volume)
        self._disks[path] = volume
        return path

    async def gets_in(self, export: Export, connector: Connector) -> bool:
        if not self._is_iscsi(export):
            found = (await self.target.connections()).get(self.target.export_name(export.volume))
            return found is not None and connector["host"] in found.let_in
        return await self._asked(export, connector) is not None

    @asynccontextmanager
    async def session(self, export: Export, connector: Connector) -> AsyncIterator[None]:
        """It reads all the time: the hardest to end."""
        if not self._is_iscsi(export):
            yield
            return
        nothing = asyncio.subprocess.DEVNULL
        reader = await asyncio.create_subprocess_exec(
            "iscsi-perf", "-i", connector["initiator"], "-t", "60", "-x", "1", self._url(export),
            stdin=nothing, stdout=nothing, stderr=nothing, env=_login(export.chap),
        )  # fmt: skip
        try:
            async with asyncio.timeout(_LOGIN_TIMEOUT_S):
                while connector["host"] not in await self.sessions(export):
                    await self._clock.sleep(0.02)
            yield
        finally:
            if reader.returncode is None:
                reader.kill()
            await reader.wait()

    async def sessions(self, export: Export) -> set[str]:
        found = (await self.target.connections()).get(self.target.export_name(export.volume))
        if found is None:
            return set()
        if not self._is_iscsi(export):
            return set(found.let_in)
        return {initiator.rpartition(":")[2] for initiator in found.sessions}

    async def take_away(self, export: Export) -> None:
        if export.path.startswith("rbd:"):
            raise NotStaged("nobody asks Ceph for the image when it is exported")
        await self._driver.delete_volume(self._disks[export.path])

    async def grow(self, export: Export, size: int) -> None:
        await self._driver.extend_volume(self._disks[export.path], size // GIB)

    async def capacity(self, export: Export, connector: Connector) -> int:
        if self._is_iscsi(export):
            found = await self._asked(export, connector)
            if found is None:
                raise NotAsSpecified(f"{connector['host']} is not let in to {self.target.export_name(export.volume)}")
            return found
        if not export.path.startswith("/"):
            raise NotStaged(f"{export.path} is no path on this machine")
        return await asyncio.to_thread(_size, export.path)

    async def close(self) -> None:
        for export in self._heard.exported.values():
            with suppress(Fault):
                await self.target.remove_export(export)
        await clean(self._driver, self._volumes)

    def _is_iscsi(self, export: Export) -> bool:
        location = self._heard.locations.get(export.volume.name, "")
        return " " in location if location else self.target.kind not in {"local", "rbd"}

    async def _asked(self, export: Export, connector: Connector) -> int | None:
        """The bytes that the target tells this host; None: it does not let it in."""
        if export.volume.name not in self._heard.locations:
            return None
        if lacking := [name for name in _PROGRAMS if shutil.which(name) is None]:
            raise NotStaged(f"{', '.join(lacking)} (package libiscsi-bin) are missing on this machine")
        argv = ("iscsi-readcapacity16", "-s", "-i", connector["initiator"], self._url(export))
        output = await run(*argv, timeout_s=_LOGIN_TIMEOUT_S, env=_login(export.chap))
        return int(output.stdout) if output.status == 0 else None

    def _url(self, export: Export) -> str:
        location = ProviderLocation.parse(self._heard.locations[export.volume.name])
        return f"iscsi://{location.portals[0]}/{location.iqn}/{location.lun}"


class Overheard:
    """Implements `cinder_lite.ports.target.Target` by another: it keeps what was exported, and where that one said that it is."""

    def __init__(self, real: Target) -> None:
        self._real = real
        self.exported: dict[str, Export] = {}
        self.locations: dict[str, str] = {}

    @property
    def kind(self) -> str:
        return self._real.kind

    @property
    def needs_chap(self) -> bool:
        return self._real.needs_chap

    async def check_for_setup_error(self) -> None:
        await self._real.check_for_setup_error()

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        self._real.validate_connector(connector)

    async def create_export(self, export: Export) -> str:
        self.exported[export.volume.name] = export
        location = self.locations[export.volume.name] = await self._real.create_export(export)
        return location

    async def extend_target(self, export: Export, new_size: int) -> None:
        await self._real.extend_target(export, new_size)

    async def remove_export(self, export: Export) -> None:
        await self._real.remove_export(export)

    async def initialize_connection(self, export: Export, connector: Mapping[str, Any]) -> dict[str, Any]:
        return await self._real.initialize_connection(export, connector)

    async def terminate_connection(self, export: Export, connector: Mapping[str, Any] | None) -> None:
        await self._real.terminate_connection(export, connector)

    async def exports(self) -> set[str]:
        return await self._real.exports()

    async def connections(self) -> Mapping[str, Any]:
        return await self._real.connections()

    def export_name(self, volume: Volume) -> str:
        return self._real.export_name(volume)


def _login(chap: Chap | None) -> dict[str, str]:
    """For libiscsi's programs: the password in the environment, never in an argument."""
    names = {"LIBISCSI_CHAP_USERNAME": chap.username, "LIBISCSI_CHAP_PASSWORD": chap.password} if chap else {}
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **names}


def _size(path: str) -> int:
    with open(path, "rb") as file:  # noqa: PTH123  # a device as well as a file
        return file.seek(0, os.SEEK_END)
