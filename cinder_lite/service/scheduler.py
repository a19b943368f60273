"""cinder-scheduler: knows what every backend last reported, and places new volumes."""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from cinder_lite.contract import SchedulerAPI, Volume, VolumeManagerAPI
from cinder_lite.domain.placement import Backend, place
from cinder_lite.domain.volume import Event
from cinder_lite.errors import NoValidBackend
from cinder_lite.flows.parts import advance_once, manager_of
from cinder_lite.ports.driver import VolumeStats
from cinder_lite.store.volumes import Volumes
from common.app.post import Post
from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Fault, Unavailable
from common.db.hosts import Hosts
from common.wire.values import from_primitive

REPORTS_WITHIN_S = 20.0
"""So long a scheduler waits for a backend that is up and has not reported to it, from the first order that found it silent."""
ASKS_EVERY_S = 1.0
"""Silent backends are asked no more often, however many orders wait for them: a request or a report can be lost."""

_log = structlog.get_logger(__name__)


class SchedulerManager(SchedulerAPI):
    """Implements the contract. `consumed` is what was placed on a backend since its last report."""

    def __init__(
        self, volumes: Volumes, hosts: Hosts, manager: VolumeManagerAPI, *, orders: VolumeManagerAPI, post: Post,
        service_down_time_s: float, clock: Clock,
    ) -> None:  # fmt: skip
        self._volumes = volumes
        self._hosts = hosts
        self._manager = manager
        self._orders = orders
        self._post = post
        self._service_down_time_s = service_down_time_s
        self._clock = clock
        self._asked_s = -ASKS_EVERY_S
        self._silent_since: dict[str, float] = {}
        self._stats: dict[str, VolumeStats] = {}
        self._consumed: dict[str, float] = {}

    async def create_volume(
        self, ctx: Context, *, volume: Volume, snapshot_id: str | None = None, image_id: str | None = None,
        request_spec: Mapping[str, Any] | None = None, filter_properties: Mapping[str, Any] | None = None,
        backup_id: str | None = None,
    ) -> None:  # fmt: skip
        try:
            if (await self._volumes.get(volume.id)).host is not None:
                return
            backends = await self._backends()
            placement = place(volume, backends)
            if placement.host is None:
                await self._wait_for_reports(ctx, backends)
                raise NoValidBackend(reason=placement.reason)
            await self._hand_over(ctx, volume, placement.host)
        except Fault as exc:
            if exc.retryable:
                raise
            _log.warning("volume not placed", volume_id=volume.id, reason=str(exc))
            why = self._volumes.saying(volume.id, "SCHEDULE_ALLOCATE_VOLUME", str(exc), ctx.request_id)
            await advance_once(self._volumes, volume.id, Event.CREATE_FAILED, also=why)

    async def update_service_capabilities(
        self, ctx: Context, *, service_name: str, host: str, capabilities: Mapping[str, Any], cluster_name: str | None = None,
        timestamp: str | None = None,
    ) -> None:  # fmt: skip
        self._stats[host] = from_primitive(dict(capabilities), VolumeStats)
        self._consumed[host] = 0.0

    async def ask_for_reports(self, ctx: Context) -> None:
        """Every backend reports soon; nobody there is no error, since each reports when it starts."""
        self._asked_s = self._clock.monotonic()
        try:
            await self._manager.everywhere().publish_service_capabilities(ctx)
        except Fault as exc:
            _log.debug("no backend to ask for capabilities", reason=str(exc))

    async def _wait_for_reports(self, ctx: Context, backends: list[Backend]) -> None:
        """Raises Unavailable, so that the order comes again, while a backend that is up may still report, and has been asked to."""
        now = self._clock.monotonic()
        silent = [backend.host for backend in backends if backend.is_up and backend.stats is None]
        self._silent_since = {host: self._silent_since.get(host, now) for host in silent}
        awaited = [host for host in silent if now - self._silent_since[host] < REPORTS_WITHIN_S]
        if silent and now - self._asked_s >= ASKS_EVERY_S:
            await self.ask_for_reports(ctx)
        if awaited:
            raise Unavailable(what=f"the report of {', '.join(awaited)}", reason="it has not come yet, and was asked for")

    async def _hand_over(self, ctx: Context, volume: Volume, host: str) -> None:
        """Its place and the order to make it there are one write: a request that comes again finds it placed."""
        placed = msgspec.structs.replace(await self._volumes.get(volume.id), host=host)
        with self._post.letters() as letters:
            await manager_of(self._orders, placed).create_volume(ctx, volume=placed)
        if await self._volumes.set_host(volume.id, host, also=self._post.entering(letters)):
            backend = host.split("#", maxsplit=1)[0]
            self._consumed[backend] = self._consumed.get(backend, 0.0) + volume.size

    async def _backends(self) -> list[Backend]:
        """Every backend that has a row in services; one that never reported has no statistics."""
        return [
            Backend(
                host=row.host,
                is_up=not row.disabled and self._hosts.is_up(row, self._service_down_time_s),
                availability_zone=row.availability_zone,
                stats=self._stats.get(row.host),
                consumed_gb=self._consumed.get(row.host, 0.0),
            )
            for row in await self._hosts.list("cinder-volume")
        ]
