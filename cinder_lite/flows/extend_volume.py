"""Make a volume larger, attached or not (attach-flow 3.3).

The pivot is the storage: it does not give room back. Before it a failure leaves the volume as it was; behind it, size and status are
written whatever happens. A target that cannot serve the new size yet is told of, and does so when the volume is attached anew.
"""

from typing import Self

import msgspec

from cinder_lite.contract import AttachStatus, ServerExternalEvent, Volume, VolumeStatus
from cinder_lite.errors import ExportFailure, VolumeBackendAPIException
from cinder_lite.flows.parts import BackendParts
from common.base.context import Context
from common.base.errors import Fault, Unavailable
from common.base.ids import new_uuid
from common.flow.steps import Flow, Output, TooLate
from common.machine.saga import Saga, Step

EXTENDED_EVENT = "volume-extended"
_GIB = 1024**3

EXTEND_VOLUME = Saga(
    "extend_volume",
    pivot="extend_volume",
    steps=(
        Step("adopt_extension", undo="roll_extending", is_pure=True),
        Step("extend_volume", timeout_s=600, attempts=3),
        Step("extend_target", timeout_s=60, attempts=3),
        Step("finish_extend", attempts=5),
        Step("tell_servers", attempts=5),
    ),
)


class ExtendArguments(msgspec.Struct, frozen=True, kw_only=True):
    """The volume as its row was when the flow began; `new_size` in GiB."""

    volume: Volume
    new_size: int


class ExtendVolume(Flow[ExtendArguments, BackendParts]):
    """Completed: storage, target and row have the new size, and whoever runs the server that has the disk was told."""

    saga = EXTEND_VOLUME

    @classmethod
    def of(cls, ctx: Context, parts: BackendParts, *, volume: Volume, new_size: int) -> Self:
        return cls(
            ctx,
            parts,
            id=f"extend_volume:{volume.id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{volume.id}",
            arguments=ExtendArguments(volume=volume, new_size=new_size),
        )

    @property
    def volume(self) -> Volume:
        return self.arguments.volume

    async def adopt_extension(self, ctx: Context) -> None:
        """The row says that from here on the volume's status is this saga's to settle.

        An order that came late finds what an earlier one has done, or that it has failed.
        """
        found = await self.parts.volumes.remembered(self.volume.id)
        if found.status is not VolumeStatus.EXTENDING and found.size < self.arguments.new_size:
            raise TooLate(kind="volume", name=self.volume.id, found=found.status, expected=VolumeStatus.EXTENDING)

    async def roll_extending(self, ctx: Context) -> None:
        await self.parts.attachments.roll_extending(self.volume.id)

    async def extend_volume(self, ctx: Context) -> None:
        async with self.parts.alone_with(self.volume.id):
            try:
                await self.parts.driver.extend_volume(self.volume, self.arguments.new_size)
            except VolumeBackendAPIException as exc:
                # It cannot be taken back, so whether it has happened all the same is found out by asking again.
                raise Unavailable(what=f"the backend of volume {self.volume.id}", reason=str(exc)) from exc

    async def extend_target(self, ctx: Context) -> Output:
        export = await self.parts.export_of(self.volume)
        try:
            await self.parts.target.extend_target(export, self.arguments.new_size * _GIB)
        except ExportFailure as exc:
            return {"not_served": str(exc)}
        return None

    async def finish_extend(self, ctx: Context) -> None:
        why = self.outputs["extend_target"].get("not_served")
        if why is not None:
            words = f"The volume has {self.arguments.new_size} GiB, and its server sees them when it is attached anew: {why}"
            await self._say("VOLUME_EXTEND_NOT_SERVED", words)
        await self.parts.attachments.extended(self.volume.id, self.arguments.new_size)

    async def tell_servers(self, ctx: Context) -> None:
        """As os-server-external-events; what a server's host makes of it is not told here."""
        volume = await self.parts.volumes.remembered(self.volume.id)
        events = [
            ServerExternalEvent(name=EXTENDED_EVENT, server_uuid=held.instance_uuid, tag=volume.id)
            for held in volume.volume_attachment
            if held.instance_uuid is not None and held.attach_status is AttachStatus.ATTACHED
        ]
        if events and "not_served" not in self.outputs["extend_target"]:
            with self.parts.post.letters() as letters:
                await self.parts.servers.external_instance_event(ctx, events=events)
            self.letters += letters

    async def turned_back(self, fault: Fault) -> None:
        await self._say("VOLUME_EXTEND_FAILED", f"Extending to {self.arguments.new_size} GiB failed: {fault}")

    async def parked(self, fault: Fault) -> None:
        await self._say("VOLUME_EXTEND_FAILED", f"Extending to {self.arguments.new_size} GiB stopped: {fault}")

    async def _say(self, event_id: str, words: str) -> None:
        await self.parts.volumes.add_message(
            self.volume.id, event_id=event_id, user_message=words, request_id=self.ctx.request_id
        )  # fmt: skip
