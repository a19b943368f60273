"""Export a volume again for those who hold it: the target lost its export, or lets in somebody else.

What the reconciler saw may be over by now, so every step looks again at who holds the volume; the flows of one volume run one after
another, so that no detachment falls between a step's look and its act. Nothing is undone: an export that is there for somebody who
holds the volume is right, and what fails is found again.
"""

from collections.abc import Mapping
from typing import Any, Self

from cinder_lite.contract import Volume
from cinder_lite.flows.create_volume import VolumeArguments
from cinder_lite.flows.parts import BackendParts
from common.base.context import Context
from common.base.ids import new_uuid
from common.flow.steps import Flow, Output
from common.machine.saga import Saga, Step

RESTORE_EXPORT = Saga(
    "restore_export",
    steps=(
        Step("create_export", attempts=3),
        Step("save_export", attempts=3),
        Step("initialize_connections", attempts=3),
    ),
)


class RestoreExport(Flow[VolumeArguments, BackendParts]):
    """Completed: the volume is exported to exactly those who hold it, or nobody does."""

    saga = RESTORE_EXPORT

    @classmethod
    def of(cls, ctx: Context, parts: BackendParts, *, volume: Volume) -> Self:
        return cls(
            ctx,
            parts,
            id=f"restore_export:{volume.id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{volume.id}",
            arguments=VolumeArguments(volume=volume),
        )

    async def create_export(self, ctx: Context) -> Output:
        volume, holders = await self._held()
        if not holders:
            return None
        return {"provider_location": await self.parts.target.create_export(await self.parts.export_of(volume))}

    async def save_export(self, ctx: Context) -> None:
        location = self.outputs["create_export"].get("provider_location")
        volume, holders = await self._held()
        if location is not None and holders and location != volume.provider_location:
            await self.parts.volumes.save_export(volume.id, location)

    async def initialize_connections(self, ctx: Context) -> None:
        if "provider_location" not in self.outputs["create_export"]:
            return
        volume, holders = await self._held()
        for attachment_id, connector in holders.items():
            if await self.parts.attachments.is_live(attachment_id):
                await self.parts.target.initialize_connection(await self.parts.export_of(volume), connector)

    async def _held(self) -> tuple[Volume, Mapping[str, Mapping[str, Any]]]:
        """The volume as its row is now, and who holds it while it is to be exported: attachment id -> connector."""
        volume = await self.parts.volumes.remembered(self.arguments.volume.id)
        holders = await self.parts.holders_of(volume)
        return volume, holders if volume.provider_location is not None else {}
