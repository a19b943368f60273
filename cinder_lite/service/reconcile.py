"""cinder-volume's and cinder-scheduler's reconcilers: what is wrong (cinder_lite.domain.settle) begins a flow."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, assert_never

from cinder_lite.contract import ExportReport, SchedulerAPI, Snapshot, Volume
from cinder_lite.domain.settle import Action, Facts, Mend, settle
from cinder_lite.domain.snapshot import snapshot_id_of
from cinder_lite.domain.volume import volume_id_of
from cinder_lite.flows.create_volume import CreateVolume
from cinder_lite.flows.delete_volume import DeleteVolume
from cinder_lite.flows.extend_volume import ExtendVolume
from cinder_lite.flows.parts import BackendParts
from cinder_lite.flows.remove_stale import RemoveStaleExport, RemoveStaleSnapshot, RemoveStaleVolume
from cinder_lite.flows.restore_export import RestoreExport
from cinder_lite.flows.snapshot import CreateSnapshot, DeleteSnapshot
from cinder_lite.ports.target import ExportState
from cinder_lite.store.settle import settled_rows, unplaced
from cinder_lite.store.volumes import Volumes
from common.app.reconciling import Told
from common.base.errors import Fault
from common.base.limits import RECONCILE_LOOK_TIMEOUT_S
from common.db.busy import settling_context
from common.db.engine import Database
from common.flow.runner import Runner
from common.flow.steps import Flow

T = TypeVar("T")


class BackendReconciler:
    """Implements `common.app.reconciling.Reconciler`; one backend's."""

    def __init__(self, parts: BackendParts, runner: Runner, database: Database) -> None:
        self._parts = parts
        self._runner = runner
        self._database = database
        self._told = Told()

    async def look(self) -> Sequence[Action]:
        """Reality first: what changes it writes its row before, so rows that are read behind it are never older than it."""
        states = await self._answer("target", self._parts.target.connections())
        kept = await self._answer("driver", self._kept())
        exports = None if states is None else {name: export_report(name, state) for name, state in states.items()}
        seen = {export.volume_id for export in (exports or {}).values()} | {volume_id_of(name) for name in kept or ()}
        taken = {snapshot_id_of(name) for name in kept or ()}
        rows = await settled_rows(self._database, self._parts.host, _known(seen), _known(taken))
        return settle(
            Facts(
                now=rows.now,
                volumes=rows.volumes,
                exports=exports,
                kept=kept,
                snapshots=rows.snapshots,
                busy=rows.busy,
                own=frozenset(subject.partition(":")[2] for subject in self._runner.subjects),
            )
        )

    async def _kept(self) -> frozenset[str]:
        """Names of volumes and snapshots."""
        return frozenset(await self._parts.driver.list_volumes()) | frozenset(await self._parts.driver.list_snapshots())

    async def mend(self, action: Action) -> bool:
        if action.snapshot_id is not None:
            snapshot = await self._parts.snapshots.remembered(action.snapshot_id)
            return await self._runner.start(self._snapshot_flow(action, snapshot))
        volume = await self._parts.volumes.remembered(action.volume_id)
        extending_to = await self._parts.volumes.extending_to(volume.id) if action.mend is Mend.EXTEND_VOLUME else None
        return await self._runner.start(self._flow(action, volume, extending_to))

    def _flow(self, action: Action, volume: Volume, extending_to: int | None) -> Flow[Any, Any]:
        ctx = settling_context()
        match action.mend:
            case Mend.CREATE_VOLUME:
                return CreateVolume.of(ctx, self._parts, volume=volume)
            case Mend.DELETE_VOLUME:
                return DeleteVolume.of(ctx, self._parts, volume=volume)
            case Mend.EXTEND_VOLUME:
                return ExtendVolume.of(ctx, self._parts, volume=volume, new_size=extending_to or volume.size)
            case Mend.RESTORE_EXPORT:
                return RestoreExport.of(ctx, self._parts, volume=volume)
            case Mend.REMOVE_STALE_EXPORT:
                return RemoveStaleExport.of(ctx, self._parts, volume=volume)
            case Mend.REMOVE_STALE_VOLUME:
                return RemoveStaleVolume.of(ctx, self._parts, volume=volume)
            case Mend.CREATE_SNAPSHOT | Mend.DELETE_SNAPSHOT | Mend.REMOVE_STALE_SNAPSHOT:
                raise AssertionError(action)
            case mend:
                assert_never(mend)

    def _snapshot_flow(self, action: Action, snapshot: Snapshot) -> Flow[Any, Any]:
        ctx = settling_context()
        match action.mend:
            case Mend.CREATE_SNAPSHOT:
                return CreateSnapshot.of(ctx, self._parts, snapshot=snapshot)
            case Mend.DELETE_SNAPSHOT:
                return DeleteSnapshot.of(ctx, self._parts, snapshot=snapshot)
            case _:
                return RemoveStaleSnapshot.of(ctx, self._parts, snapshot=snapshot)

    async def _answer(self, part: str, look: Awaitable[T]) -> T | None:
        """None: that part is unknown in this round."""
        name = f"{part} of {self._parts.host}"
        try:
            async with asyncio.timeout(RECONCILE_LOOK_TIMEOUT_S):
                found = await look
        except Fault as exc:
            self._told.unknown(name, str(exc))
            return None
        except TimeoutError:
            self._told.unknown(name, f"no answer within {RECONCILE_LOOK_TIMEOUT_S:g} s")
            return None
        self._told.known(name)
        return found


def _known(ids: Iterable[str | None]) -> set[str]:
    return {each for each in ids if each is not None}


def export_report(name: str, state: ExportState) -> ExportReport:
    """An export as it is told of on the bus."""
    return ExportReport(volume_id=volume_id_of(name), path=state.path, let_in=sorted(state.let_in), sessions=sorted(state.sessions))


@dataclass(frozen=True, slots=True)
class Placing:
    """A volume that is to be placed once more."""

    volume_id: str
    destroys: bool = False

    @property
    def subject(self) -> str:
        return f"volume:{self.volume_id}"

    def __str__(self) -> str:
        return "place it: it is creating, has no place, and no order is on its way"


class SchedulerReconciler:
    """Implements `common.app.reconciling.Reconciler`. Placing is a compare-and-swap on the volume's host, so it needs no flow."""

    def __init__(self, volumes: Volumes, scheduler: SchedulerAPI, database: Database) -> None:
        self._volumes = volumes
        self._scheduler = scheduler
        self._database = database

    async def look(self) -> Sequence[Placing]:
        return [Placing(volume_id) for volume_id in await unplaced(self._database)]

    async def mend(self, action: Placing) -> bool:
        volume = await self._volumes.get(action.volume_id)
        await self._scheduler.create_volume(settling_context(), volume=volume, request_spec={"volume_id": volume.id})
        return True
