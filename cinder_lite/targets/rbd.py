"""Ceph's images need nobody to export them: hosts open them by librbd (attach-flow 1.4, 6.2).

So an export is a record, as `local` keeps it: what was let in where. Nothing in Ceph keeps a host with the cluster's key out; what can be
seen is who watches an image, and a connection is not over before nobody does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cinder_lite.contract import Volume
from cinder_lite.errors import ExportFailure, InvalidConnectorException, TargetUnavailable
from cinder_lite.ports.target import Export, ExportState
from cinder_lite.targets.local import Record, names_in, prepare, read_record, replace_record, states_in, told
from common.base.clock import Clock
from common.host.locks import KeyedLocks
from common.host.to_its_end import in_thread

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class RbdAccess:
    """How hosts reach the images.

    user            rbd_user
    secret_uuid     rbd_secret_uuid: libvirt's secret that has the user's key on every host
    monitors        gives (host, port) of each
    watchers        gives who has an image open, by the image's name
    last_watch_s    how long a client that has let go may still be seen
    """

    pool: str
    user: str
    cluster: str
    secret_uuid: str
    monitors: Callable[[], Awaitable[Sequence[tuple[str, str]]]]
    watchers: Callable[[str], Awaitable[Sequence[str]]]
    last_watch_s: float = 5.0


class RbdTarget:
    """Implements `cinder_lite.ports.target.Target`; one process has the records to itself.

    volumes_dir   records go to its folder `exports`
    """

    kind = "rbd"
    needs_chap = False

    def __init__(self, volumes_dir: Path, access: RbdAccess, clock: Clock) -> None:
        self._folder = volumes_dir.absolute() / "exports"
        self._access = access
        self._clock = clock
        self._locks = KeyedLocks()

    async def check_for_setup_error(self) -> None:
        """Makes the folder, mode 0700, when it is not there."""
        try:
            await asyncio.to_thread(prepare, self._folder)
        except OSError as exc:
            raise TargetUnavailable(name=self.kind, reason=f"{self._folder} cannot be used: {exc.strerror}") from exc

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        if not isinstance(connector.get("host"), str) or not connector["host"]:
            raise InvalidConnectorException(missing="host")

    def export_name(self, volume: Volume) -> str:
        return volume.name

    async def exports(self) -> set[str]:
        with told("the exports", self._folder):
            return await asyncio.to_thread(names_in, self._folder)

    async def connections(self) -> dict[str, ExportState]:
        with told("the exports", self._folder):
            return await asyncio.to_thread(states_in, self._folder)

    async def create_export(self, export: Export) -> str:
        if export.path != self._path(export.volume):
            reason = f"{export.path} is not {self._path(export.volume)}: another driver's volume"
            raise ExportFailure(volume_id=export.volume.id, reason=reason)
        async with self._locks.hold(export.volume.name):
            with told(export.volume.id, self._folder):
                found = await self._read(export.volume)
                if found is None or found.path != export.path:
                    await self._write(export.volume, Record(export.path))
        return export.path

    async def extend_target(self, export: Export, new_size: int) -> None:
        """A client that has the image open is told by Ceph itself."""

    async def remove_export(self, export: Export) -> None:
        async with self._locks.hold(export.volume.name):
            with told(export.volume.id, self._folder):
                await in_thread(partial(self._file(export.volume).unlink, missing_ok=True))

    async def initialize_connection(self, export: Export, connector: Mapping[str, Any]) -> dict[str, Any]:
        self.validate_connector(connector)
        volume, host = export.volume, str(connector["host"])
        async with self._locks.hold(volume.name):
            with told(volume.id, self._folder):
                found = await self._read(volume)
                if found is None or found.path != export.path:
                    raise ExportFailure(volume_id=volume.id, reason=f"{export.path} is not exported; create_export comes first")
                hosts = (*found.hosts, host) if volume.multiattach else (host,)
                await self._write(volume, Record(found.path, tuple(dict.fromkeys(hosts))))
        return rbd_connection_info(export, self._access, await self._access.monitors())

    async def terminate_connection(self, export: Export, connector: Mapping[str, Any] | None) -> None:
        if connector is not None:
            self.validate_connector(connector)
        async with self._locks.hold(export.volume.name):
            with told(export.volume.id, self._folder):
                found = await self._read(export.volume)
                if found is None or not found.hosts:
                    return
                left = () if connector is None else tuple(host for host in found.hosts if host != connector["host"])
                if not left and found.hosts:
                    await self._see_closed(export.volume)
                await self._write(export.volume, Record(found.path, left))

    async def hosts(self, volume: Volume) -> set[str]:
        """The hosts that are let in; none for a volume that is not exported."""
        found = await self._read(volume)
        return set(found.hosts) if found else set()

    async def _see_closed(self, volume: Volume) -> None:
        """Raises ExportFailure while somebody has the image open."""
        deadline = self._clock.monotonic() + self._access.last_watch_s
        while watchers := await self._access.watchers(volume.name):
            if self._clock.monotonic() >= deadline:
                where = ", ".join(watchers)
                reason = f"{self._path(volume)} is open still at {where}; if that client is dead: ceph osd blocklist add ADDRESS"
                raise ExportFailure(volume_id=volume.id, reason=reason)
            await self._clock.sleep(_POLL_S)

    def _path(self, volume: Volume) -> str:
        return f"rbd:{self._access.pool}/{volume.name}"

    def _file(self, volume: Volume) -> Path:
        return self._folder / f"{volume.name}.json"

    async def _read(self, volume: Volume) -> Record | None:
        return await asyncio.to_thread(read_record, self._file(volume))

    async def _write(self, volume: Volume, record: Record) -> None:
        await in_thread(replace_record, self._file(volume), record)


def rbd_connection_info(export: Export, access: RbdAccess, monitors: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """connection_info of attach-flow 6.2."""
    data = {
        "name": f"{access.pool}/{export.volume.name}",
        "hosts": [host for host, _ in monitors],
        "ports": [port for _, port in monitors],
        "cluster_name": access.cluster,
        "auth_enabled": bool(access.user),
        "auth_username": access.user,
        "secret_type": "ceph",
        "secret_uuid": access.secret_uuid or None,
        "volume_id": export.volume.id,
        "discard": True,
        "access_mode": "rw",
        "encrypted": False,
        "qos_specs": None,
    }
    return {"driver_volume_type": "rbd", "data": data}
