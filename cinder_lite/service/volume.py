"""cinder-volume: one backend's manager. An endpoint checks and starts a flow; the flow is a file in cinder_lite/flows."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import structlog

from cinder_lite.contract import (
    BackendInventory,
    BackendReport,
    BackingStoreProbe,
    SchedulerAPI,
    Snapshot,
    Volume,
    VolumeAttachment,
    VolumeManagerAPI,
)
from cinder_lite.domain.settle import Action
from cinder_lite.errors import InvalidInput
from cinder_lite.flows.create_volume import CreateVolume
from cinder_lite.flows.delete_volume import DeleteVolume
from cinder_lite.flows.extend_volume import ExtendVolume
from cinder_lite.flows.initialize_connection import InitializeConnection
from cinder_lite.flows.parts import BackendParts
from cinder_lite.flows.snapshot import CreateSnapshot, DeleteSnapshot
from cinder_lite.flows.terminate_connection import Detach, TerminateConnection
from cinder_lite.service.reconcile import export_report
from common.app.reconciling import Rounds
from common.base.context import Context
from common.base.errors import Fault
from common.flow.runner import Runner
from common.wire.values import to_primitive

PROBE_BYTES_MAX = 64 * 1024

_log = structlog.get_logger(__name__)


class VolumeManager(VolumeManagerAPI):
    """Implements the contract. One volume's flows run one after another; they make no RPC."""

    def __init__(self, parts: BackendParts, runner: Runner, scheduler: SchedulerAPI) -> None:
        self._parts = parts
        self._runner = runner
        self._scheduler = scheduler

    async def init_host(self) -> None:
        """Driver and target are ready. What a target has lost is exported again by the reconciler's first round.

        Raises DriverNotInitialized, TargetUnavailable, PortalNotBound.
        """
        await self._parts.driver.check_for_setup_error()
        await self._parts.target.check_for_setup_error()

    async def create_volume(
        self, ctx: Context, *, volume: Volume, request_spec: Mapping[str, Any] | None = None,
        filter_properties: Mapping[str, Any] | None = None, allow_reschedule: bool = True,
    ) -> None:  # fmt: skip
        await self._runner.start(CreateVolume.of(ctx, self._parts, volume=volume))

    async def delete_volume(self, ctx: Context, *, volume: Volume, unmanage_only: bool = False, cascade: bool = False) -> None:
        await self._runner.start(DeleteVolume.of(ctx, self._parts, volume=volume))

    async def extend_volume(
        self, ctx: Context, *, volume: Volume, new_size: int, reservations: list[str] | None = None
    ) -> None:  # fmt: skip
        await self._runner.start(ExtendVolume.of(ctx, self._parts, volume=volume, new_size=new_size))

    async def create_snapshot(self, ctx: Context, *, snapshot: Snapshot) -> None:
        await self._runner.start(CreateSnapshot.of(ctx, self._parts, snapshot=snapshot))

    async def delete_snapshot(self, ctx: Context, *, snapshot: Snapshot, unmanage_only: bool = False) -> None:
        await self._runner.start(DeleteSnapshot.of(ctx, self._parts, snapshot=snapshot))

    async def initialize_connection(
        self, ctx: Context, *, volume: Volume, connector: Mapping[str, Any], attachment_id: str | None = None
    ) -> dict[str, Any]:
        attachment = attachment_id or await self._only_attachment(volume.id)
        flow = InitializeConnection.of(ctx, self._parts, volume=volume, connector=connector, attachment_id=attachment)
        await self._runner.run(flow)
        if flow.info is not None:
            return flow.info
        # Another run of it has let the initiator in. To ask the target again is an act on the volume like any other.
        async with self._runner.turn(flow.subject):
            return await flow.connection_info()

    async def terminate_connection(
        self, ctx: Context, *, volume_id: str, connector: Mapping[str, Any] | None, force: bool = False,
        volume: Volume | None = None, attachment_id: str | None = None,
    ) -> None:  # fmt: skip
        if await self._parts.is_over(attachment_id):
            _log.info("connection of an attachment that is over", volume_id=volume_id, attachment_id=attachment_id)
            return
        current = await self._parts.volumes.get(volume_id)
        flow = TerminateConnection.of(
            ctx, self._parts, volume=current, connector=None if force else connector, attachment_id=attachment_id
        )
        await self._runner.run(flow)

    async def attach_volume(
        self, ctx: Context, *, volume_id: str, instance_uuid: str | None, host_name: str | None, mountpoint: str, mode: str,
        volume: Volume | None = None, attachment_id: str | None = None,
    ) -> VolumeAttachment:  # fmt: skip
        attachment = attachment_id or await self._only_attachment(volume_id, instance_uuid)
        if attachment is None:
            raise InvalidInput(reason=f"attach_volume of volume {volume_id} needs the attachment_id that reserve_volume gave.")
        return await self._parts.attachments.attached(
            volume_id, attachment, instance_uuid=instance_uuid, host_name=host_name, mountpoint=mountpoint, mode=mode
        )

    async def detach_volume(
        self, ctx: Context, *, volume_id: str, attachment_id: str | None = None, volume: Volume | None = None
    ) -> None:
        current = await self._parts.volumes.get(volume_id)
        live = attachment_id or next((row.id for row in current.volume_attachment), None)
        if live is None or await self._parts.is_over(live):
            _log.info("volume detach called, but volume not attached", volume_id=volume_id, attachment_id=attachment_id)
            return
        await self._runner.run(Detach.of(ctx, self._parts, volume=current, attachment_id=live))

    async def _only_attachment(self, volume_id: str, instance_uuid: str | None = None) -> str | None:
        """The attachment that a caller means who knows of none, as cinder's own rpcapi: the one that holds the volume."""
        held = (await self._parts.volumes.get(volume_id)).volume_attachment
        found = [row.id for row in held if instance_uuid in (None, row.instance_uuid)]
        return found[0] if len(found) == 1 else None

    async def publish_service_capabilities(self, ctx: Context) -> None:
        await self.report_capabilities(ctx)

    async def report_capabilities(self, ctx: Context) -> None:
        """Tell every scheduler what this backend has; nobody there is no error, the next report comes soon."""
        try:
            stats = await self._parts.driver.get_volume_stats()
            await self._scheduler.everywhere().update_service_capabilities(
                ctx, service_name="volume", host=self._parts.host, capabilities=to_primitive(stats)
            )
        except Fault as exc:
            _log.info("capabilities not reported", host=self._parts.host, reason=str(exc))


class Inventory(BackendInventory):
    """Implements the contract."""

    def __init__(self, parts: BackendParts, rounds: Rounds[Action]) -> None:
        self._parts = parts
        self._rounds = rounds

    async def inventory(self, ctx: Context) -> BackendReport:
        target, driver = self._parts.target, self._parts.driver
        exports, stats = await target.connections(), await driver.get_volume_stats()
        return BackendReport(
            backend=self._parts.host,
            kind=target.kind,
            exports={name: export_report(name, state) for name, state in sorted(exports.items())},
            volumes=sorted(await driver.list_volumes()),
            snapshots=dict(sorted((await driver.list_snapshots()).items())),
            provisioned_gb=stats.provisioned_capacity_gb,
            capacity_gb=stats.total_capacity_gb * max(stats.max_over_subscription_ratio, 1.0),
        )

    async def reconcile(self, ctx: Context) -> list[str]:
        return await self._rounds.ask()


class BackingStore(BackingStoreProbe):
    """Implements the contract."""

    def __init__(self, parts: BackendParts) -> None:
        self._parts = parts

    async def about(self, ctx: Context) -> dict[str, str]:
        return {"backend": self._parts.host, "target": self._parts.target.kind}

    async def read_backing(self, ctx: Context, *, volume: Volume, offset: int, length: int) -> dict[str, str]:
        if not 0 < length <= PROBE_BYTES_MAX or offset < 0:
            raise InvalidInput(reason=f"offset {offset} and length {length} must lie in 0.. and 1..{PROBE_BYTES_MAX}.")
        path = self._parts.driver.local_path(await self._parts.volumes.get(volume.id))
        if not path.startswith("/"):
            raise InvalidInput(reason=f"{path} is no file or device of this host; only hosts that attach it can read it.")
        return {"path": path, "hex": (await asyncio.to_thread(_read, path, offset, length)).hex()}


def _read(path: str, offset: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
