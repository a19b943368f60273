"""Ceph's images need nobody to export them: hosts open them by librbd (attach-flow 1.4, 6.2).

So an export is a record, as `local` keeps it: what was let in where. Nothing in Ceph keeps a host with the cluster's key out; what can be
seen is who watches an image, and a connection is not over before nobody does.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cinder_lite.contract import Volume
from cinder_lite.errors import ExportFailure
from cinder_lite.ports.target import Export
from cinder_lite.targets.recorded import RecordedTarget
from common.base.clock import Clock

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


class RbdTarget(RecordedTarget):
    """Implements `cinder_lite.ports.target.Target`; one process has the records to itself.

    volumes_dir   records go to its folder `exports`
    """

    kind = "rbd"
    needs = ("host",)

    def __init__(self, volumes_dir: Path, access: RbdAccess, clock: Clock) -> None:
        super().__init__(volumes_dir)
        self._access = access
        self._clock = clock

    async def extend_target(self, export: Export, new_size: int) -> None:
        """A client that has the image open is told by Ceph itself."""

    async def _check_path(self, export: Export) -> None:
        if export.path != self._path(export.volume):
            reason = f"{export.path} is not {self._path(export.volume)}: another driver's volume"
            raise ExportFailure(volume_id=export.volume.id, reason=reason)

    def _check_reach(self, export: Export, connector: Mapping[str, Any]) -> None:
        """Every host of the cluster's network can."""

    async def _connection_info(self, export: Export) -> dict[str, Any]:
        return rbd_connection_info(export, self._access, await self._access.monitors())

    async def _see_closed(self, volume: Volume) -> None:
        deadline = self._clock.monotonic() + self._access.last_watch_s
        while watchers := await self._access.watchers(volume.name):
            if self._clock.monotonic() >= deadline:
                where = ", ".join(watchers)
                reason = f"{self._path(volume)} is open still at {where}; if that client is dead: ceph osd blocklist add ADDRESS"
                raise ExportFailure(volume_id=volume.id, reason=reason)
            await self._clock.sleep(_POLL_S)

    def _path(self, volume: Volume) -> str:
        return f"rbd:{self._access.pool}/{volume.name}"


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
