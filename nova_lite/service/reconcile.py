"""nova-compute's reconciler: what is wrong on its host (nova_lite.domain.settle) begins a flow."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, assert_never

from common.app.reconciling import Told
from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Fault, NotFound
from common.base.limits import RECONCILE_LOOK_TIMEOUT_S
from common.db.busy import settling_context
from common.db.engine import Database
from common.db.journal import Journal
from common.flow.steps import Flow
from nova_lite.contract import HostReport, Instance
from nova_lite.domain.settle import Action, Facts, MappingFact, Mend, VolumeFact, settle
from nova_lite.flows.attach_volume import AttachVolume
from nova_lite.flows.boot import REQUEST_BOOT, Boot
from nova_lite.flows.delete import Delete
from nova_lite.flows.detach_volume import DetachVolume
from nova_lite.flows.parts import ComputeParts
from nova_lite.flows.power import Reboot, Start, Stop
from nova_lite.flows.request_attach import REQUEST_ATTACH
from nova_lite.flows.settle_disk import RemoveDisk, RestoreDisk
from nova_lite.flows.settle_machine import ReapMachine, SettleMachine, SettleStopped
from nova_lite.ports.volumes import Volume
from nova_lite.store.settle import settled_rows

_OF_MACHINE: dict[Mend, type[SettleMachine | ReapMachine | SettleStopped]] = {
    Mend.SETTLE_MACHINE: SettleMachine,
    Mend.REAP_MACHINE: ReapMachine,
    Mend.SETTLE_STOPPED: SettleStopped,
}

_ASKED_ONE_BY_ONE_MAX = 16
"""More volumes than that are asked for in one list."""


class HostReconciler:
    """Implements `common.app.reconciling.Reconciler`. `report` tells what is really there, as for the doctor."""

    def __init__(
        self, parts: ComputeParts, database: Database, clock: Clock, *, report: Callable[[], Awaitable[HostReport]]
    ) -> None:
        self._parts = parts
        self._database = database
        self._journal = Journal(database, clock)
        self._clock = clock
        self._report = report
        self._told = Told()

    async def look(self) -> Sequence[Action]:
        """Reality first, then the rows, then cinder: what is seen is never newer than what should explain it."""
        report = await self._reported()
        seen = set() if report is None else {*report.machines, *report.silent, *report.leftovers}
        rows = await settled_rows(self._database, self._parts.host, seen, request=REQUEST_ATTACH.name)
        return settle(
            Facts(
                now=rows.now,
                instances=rows.instances,
                deleted=rows.deleted,
                mappings=rows.mappings,
                volumes=await self._volumes(rows.mappings),
                report=report,
                busy=rows.busy,
            )
        )

    async def mend(self, action: Action) -> bool:
        return await self._parts.runner.start(await self._flow(action))

    async def _flow(self, action: Action) -> Flow[Any, Any]:
        ctx, parts, uuid = settling_context(), self._parts, action.instance_uuid
        match action.mend:
            case Mend.BOOT:
                ctx = await self._asked(f"{REQUEST_BOOT.name}:{uuid}", ctx)
                return Boot.of(ctx, parts, instance=await parts.instances.get(uuid))
            case Mend.SETTLE_MACHINE | Mend.REAP_MACHINE | Mend.SETTLE_STOPPED as mend:
                return _OF_MACHINE[mend].of(ctx, parts, instance_uuid=uuid)
            case Mend.DELETE | Mend.STOP | Mend.START | Mend.REBOOT | Mend.REBOOT_HARD as mend:
                return _ordered(mend, ctx, parts, await parts.instances.get(uuid))
            case Mend.REMOVE_DISK:
                return RemoveDisk.of(ctx, parts, instance_uuid=uuid, volume_id=action.volume_id or "")
            case Mend.ATTACH_VOLUME | Mend.DETACH_VOLUME | Mend.LET_GO | Mend.RESTORE_DISK as mend:
                return await self._flow_of_mapping(mend, action, ctx)
            case unknown:
                assert_never(unknown)

    async def _flow_of_mapping(
        self, mend: Literal[Mend.ATTACH_VOLUME, Mend.DETACH_VOLUME, Mend.LET_GO, Mend.RESTORE_DISK], action: Action, ctx: Context
    ) -> Flow[Any, Any]:
        parts, uuid = self._parts, action.instance_uuid
        bdm = await parts.mappings.get(uuid, action.volume_id or "")
        match mend:
            case Mend.ATTACH_VOLUME:
                ctx = await self._asked(f"{REQUEST_ATTACH.name}:{action.attachment_id}", ctx)
                return AttachVolume.of(ctx, parts, instance=await parts.instances.get(uuid), bdm=bdm)
            case Mend.DETACH_VOLUME | Mend.LET_GO:
                return DetachVolume.of(ctx, parts, bdm=bdm)
            case Mend.RESTORE_DISK:
                return RestoreDisk.of(ctx, parts, bdm=bdm)
            case unknown:
                assert_never(unknown)

    async def _asked(self, flow_id: str, otherwise: Context) -> Context:
        """The context of the request whose order was lost, so that its outcome is told under its id."""
        row = await self._journal.flow(flow_id)
        return otherwise if row is None or row.context is None else Context.from_dict({**row.context, "fence": None})

    async def _reported(self) -> HostReport | None:
        """None: unknown in this round."""
        name = f"hypervisor of {self._parts.host}"
        try:
            async with asyncio.timeout(RECONCILE_LOOK_TIMEOUT_S):
                report = await self._report()
        except Fault as exc:
            self._told.unknown(name, str(exc))
            return None
        except TimeoutError:
            self._told.unknown(name, f"no answer within {RECONCILE_LOOK_TIMEOUT_S:g} s")
            return None
        self._told.known(name)
        return report

    async def _volumes(self, mappings: Sequence[MappingFact]) -> dict[str, VolumeFact] | None:
        """None: unknown in this round. A volume that is not there has no entry."""
        wanted = {mapping.volume_id for mapping in mappings}
        ctx, cinder = settling_context().until(self._clock.monotonic() + RECONCILE_LOOK_TIMEOUT_S), self._parts.volumes
        found: dict[str, VolumeFact] = {}
        try:
            if len(wanted) > _ASKED_ONE_BY_ONE_MAX:
                found = {volume.id: _fact(volume) for volume in await cinder.get_all(ctx) if volume.id in wanted}
            for volume_id in sorted(wanted - found.keys()):
                try:
                    found[volume_id] = _fact(await cinder.get(ctx, volume_id=volume_id))
                except NotFound:
                    continue
        except Fault as exc:
            self._told.unknown("cinder-api", str(exc))
            return None
        self._told.known("cinder-api")
        return found


def _ordered(
    mend: Literal[Mend.DELETE, Mend.STOP, Mend.START, Mend.REBOOT, Mend.REBOOT_HARD],
    ctx: Context,
    parts: ComputeParts,
    instance: Instance,
) -> Flow[Any, Any]:
    match mend:
        case Mend.DELETE:
            return Delete.of(ctx, parts, instance=instance)
        case Mend.STOP:
            return Stop.of(ctx, parts, instance=instance)
        case Mend.START:
            return Start.of(ctx, parts, instance=instance)
        case Mend.REBOOT | Mend.REBOOT_HARD:
            return Reboot.of(ctx, parts, instance=instance, is_clean=mend is Mend.REBOOT)
        case unknown:
            assert_never(unknown)


def _fact(volume: Volume) -> VolumeFact:
    return VolumeFact(
        status=volume.status,
        changed_at=_as_stored(volume.updated_at or volume.created_at),
        attachments={row.id: row.attach_status for row in volume.volume_attachment},
    )


def _as_stored(moment: datetime | None) -> datetime | None:
    """A moment that came over the bus, as rows have it: in UTC, and not saying so."""
    return moment if moment is None or moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
