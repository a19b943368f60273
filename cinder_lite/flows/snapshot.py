"""Take a snapshot of a volume, and delete one (attach-flow 3.3). Both stand in the line of their volume."""

from contextlib import suppress
from typing import Self

import msgspec

from cinder_lite.contract import Snapshot, SnapshotStatus
from cinder_lite.domain.snapshot import Event
from cinder_lite.errors import SnapshotIsBusy, SnapshotNotFound
from cinder_lite.flows.parts import BackendParts, advance_snapshot_once
from common.base.context import Context
from common.base.errors import Fault
from common.base.ids import new_uuid
from common.flow.steps import Flow, TooLate
from common.machine.saga import Saga, Step

CREATE_SNAPSHOT = Saga(
    "create_snapshot",
    steps=(
        Step("adopt_snapshot", undo="fail_create", is_pure=True),
        Step("create_snapshot", undo="delete_snapshot", timeout_s=600),
        Step("finish_create", attempts=5),
    ),
)

DELETE_SNAPSHOT = Saga(
    "delete_snapshot",
    pivot="delete_snapshot",
    steps=(
        Step("adopt_deletion", undo="fail_delete", is_pure=True),
        Step("delete_snapshot", timeout_s=600, attempts=3),
        Step("destroy_snapshot", attempts=5),
    ),
)


class SnapshotArguments(msgspec.Struct, frozen=True, kw_only=True):
    """The snapshot as its row was when the flow began."""

    snapshot: Snapshot


class CreateSnapshot(Flow[SnapshotArguments, BackendParts]):
    """Completed: the backend keeps the snapshot, and it is available."""

    saga = CREATE_SNAPSHOT

    @classmethod
    def of(cls, ctx: Context, parts: BackendParts, *, snapshot: Snapshot) -> Self:
        return cls(
            ctx,
            parts,
            id=f"create_snapshot:{snapshot.id}",
            subject=f"volume:{snapshot.volume_id}",
            arguments=SnapshotArguments(snapshot=snapshot),
        )

    @property
    def snapshot(self) -> Snapshot:
        return self.arguments.snapshot

    async def adopt_snapshot(self, ctx: Context) -> None:
        """The row says that from here on the snapshot's status is this saga's to settle."""

    async def fail_create(self, ctx: Context) -> None:
        await advance_snapshot_once(self.parts.snapshots, self.snapshot.id, Event.CREATE_FAILED)

    async def create_snapshot(self, ctx: Context) -> None:
        async with self.parts.alone_with(self.snapshot.volume_id):
            await self.parts.driver.create_snapshot(self.snapshot)

    async def delete_snapshot(self, ctx: Context) -> None:
        async with self.parts.alone_with(self.snapshot.volume_id):
            await self.parts.driver.delete_snapshot(self.snapshot)

    async def finish_create(self, ctx: Context) -> None:
        await advance_snapshot_once(self.parts.snapshots, self.snapshot.id, Event.CREATED)

    async def turned_back(self, fault: Fault) -> None:
        await self.parts.snapshots.add_message(
            self.snapshot.id,
            event_id="SNAPSHOT_CREATE_FAILED",
            user_message=f"Taking the snapshot failed: {fault}",
            request_id=self.ctx.request_id,
        )

    async def parked(self, fault: Fault) -> None:
        await self.turned_back(fault)


class DeleteSnapshot(Flow[SnapshotArguments, BackendParts]):
    """Completed: nothing of the snapshot is left but a soft-deleted row."""

    saga = DELETE_SNAPSHOT

    @classmethod
    def of(cls, ctx: Context, parts: BackendParts, *, snapshot: Snapshot) -> Self:
        return cls(
            ctx,
            parts,
            id=f"delete_snapshot:{snapshot.id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{snapshot.volume_id}",
            arguments=SnapshotArguments(snapshot=snapshot),
        )

    @property
    def snapshot(self) -> Snapshot:
        return self.arguments.snapshot

    async def adopt_deletion(self, ctx: Context) -> None:
        """The row says that from here on the snapshot's status is this saga's to settle; as with a volume's deletion."""
        found = (await self.parts.snapshots.remembered(self.snapshot.id)).status
        if found is not SnapshotStatus.DELETING:
            raise TooLate(kind="snapshot", name=self.snapshot.id, found=found, expected=SnapshotStatus.DELETING)

    async def fail_delete(self, ctx: Context) -> None:
        """A busy snapshot becomes available again, as in cinder; one that is gone stays so."""
        event = Event.DELETE_BUSY if isinstance(self.fault, SnapshotIsBusy) else Event.DELETE_FAILED
        with suppress(SnapshotNotFound):
            await advance_snapshot_once(self.parts.snapshots, self.snapshot.id, event)

    async def delete_snapshot(self, ctx: Context) -> None:
        async with self.parts.alone_with(self.snapshot.volume_id):
            await self.parts.driver.delete_snapshot(self.snapshot)

    async def destroy_snapshot(self, ctx: Context) -> None:
        await advance_snapshot_once(self.parts.snapshots, self.snapshot.id, Event.DESTROYED)

    async def turned_back(self, fault: Fault) -> None:
        await self.parts.snapshots.add_message(
            self.snapshot.id,
            event_id="SNAPSHOT_DELETE_FAILED",
            user_message=f"Deleting failed: {fault}",
            request_id=self.ctx.request_id,
        )

    async def parked(self, fault: Fault) -> None:
        await self.turned_back(fault)
