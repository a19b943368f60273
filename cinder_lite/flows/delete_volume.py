"""Delete a volume: its export, its bytes, its row."""

from contextlib import suppress
from typing import Self

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.domain.volume import Event
from cinder_lite.errors import VolumeIsBusy, VolumeNotFound
from cinder_lite.flows.create_volume import VolumeArguments
from cinder_lite.flows.parts import BackendParts, advance_once
from common.base.context import Context
from common.base.errors import Fault
from common.base.ids import new_uuid
from common.flow.steps import Flow, TooLate
from common.machine.saga import Saga, Step

DELETE_VOLUME = Saga(
    "delete_volume",
    pivot="delete_volume",
    steps=(
        Step("adopt_deletion", undo="fail_delete", is_pure=True),
        Step("remove_export", attempts=3),
        Step("delete_volume", timeout_s=600, attempts=3),
        Step("destroy_volume", attempts=5),
    ),
)


class DeleteVolume(Flow[VolumeArguments, BackendParts]):
    """Completed: nothing of the volume is left but a soft-deleted row."""

    saga = DELETE_VOLUME

    @classmethod
    def of(cls, ctx: Context, parts: BackendParts, *, volume: Volume) -> Self:
        return cls(
            ctx,
            parts,
            id=f"delete_volume:{volume.id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{volume.id}",
            arguments=VolumeArguments(volume=volume),
        )

    @property
    def volume(self) -> Volume:
        return self.arguments.volume

    async def adopt_deletion(self, ctx: Context) -> None:
        """The row says that from here on the volume's status is this saga's to settle.

        Behind an order that came late another one has done the work, and its failure gave the volume back to whoever uses it by now.
        """
        found = (await self.parts.volumes.remembered(self.volume.id)).status
        if found is not VolumeStatus.DELETING:
            raise TooLate(kind="volume", name=self.volume.id, found=found, expected=VolumeStatus.DELETING)

    async def remove_export(self, ctx: Context) -> None:
        await self.parts.target.remove_export(await self.parts.export_of(self.volume))

    async def delete_volume(self, ctx: Context) -> None:
        async with self.parts.alone_with(self.volume.id):
            await self.parts.driver.delete_volume(self.volume)

    async def destroy_volume(self, ctx: Context) -> None:
        await advance_once(self.parts.volumes, self.volume.id, Event.DESTROYED)

    async def fail_delete(self, ctx: Context) -> None:
        """A busy volume becomes available again, as in cinder; any other failure shows in its status.

        One that is gone stays so: an order that came late finds what an earlier one has done.
        """
        event = Event.DELETE_BUSY if isinstance(self.fault, VolumeIsBusy) else Event.DELETE_FAILED
        with suppress(VolumeNotFound):
            await advance_once(self.parts.volumes, self.volume.id, event)

    async def turned_back(self, fault: Fault) -> None:
        await self.parts.volumes.add_message(
            self.volume.id,
            event_id="VOLUME_DELETE_FAILED",
            user_message=f"Deleting failed: {fault}",
            request_id=self.ctx.request_id,
        )

    async def parked(self, fault: Fault) -> None:
        """The bytes are gone and the row could not be: the message says so, the status stays `deleting`."""
        await self.parts.volumes.add_message(
            self.volume.id,
            event_id="VOLUME_DELETE_FAILED",
            user_message=f"Deleting stopped: {fault}",
            request_id=self.ctx.request_id,
        )
