"""Let an initiator in no longer, and free a volume (attach-flow D9, D11).

Order of the second saga: the export is seen gone before the row says available.
"""

from collections.abc import Mapping
from typing import Any, Self

from cinder_lite.contract import Volume
from cinder_lite.flows.initialize_connection import ConnectionArguments
from cinder_lite.flows.parts import BackendParts
from common.base.context import Context
from common.base.ids import new_uuid
from common.flow.steps import Flow
from common.machine.saga import Saga, Step

TERMINATE_CONNECTION = Saga("terminate_connection", steps=(Step("terminate_connection", attempts=3),))

DETACH = Saga(
    "detach",
    pivot="remove_export",
    steps=(Step("remove_export", attempts=3), Step("clear_export", attempts=5), Step("detached", attempts=5)),
)


class TerminateConnection(Flow[ConnectionArguments, BackendParts]):
    """Completed: the initiator (None: every one) is out, and its sessions are gone."""

    saga = TERMINATE_CONNECTION

    @classmethod
    def of(
        cls, ctx: Context, parts: BackendParts, *, volume: Volume, connector: Mapping[str, Any] | None, attachment_id: str | None
    ) -> Self:
        return cls(
            ctx,
            parts,
            id=f"terminate_connection:{attachment_id or volume.id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{volume.id}",
            arguments=ConnectionArguments(
                volume=volume, connector=dict(connector) if connector else None, attachment_id=attachment_id
            ),
        )

    @property
    def volume(self) -> Volume:
        return self.arguments.volume

    async def terminate_connection(self, ctx: Context) -> None:
        if await self.parts.is_over(self.arguments.attachment_id):
            return
        export = await self.parts.export_of(self.volume)
        await self.parts.target.terminate_connection(export, self.arguments.connector)


class Detach(Flow[ConnectionArguments, BackendParts]):
    """Completed: the attachment is over, its export gone, and the volume available."""

    saga = DETACH

    @classmethod
    def of(cls, ctx: Context, parts: BackendParts, *, volume: Volume, attachment_id: str) -> Self:
        return cls(
            ctx,
            parts,
            id=f"detach:{attachment_id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{volume.id}",
            arguments=ConnectionArguments(volume=volume, connector=None, attachment_id=attachment_id),
        )

    @property
    def volume(self) -> Volume:
        return self.arguments.volume

    async def remove_export(self, ctx: Context) -> None:
        if await self.parts.is_over(self.arguments.attachment_id):
            return
        await self.parts.target.remove_export(await self.parts.export_of(self.volume))

    async def clear_export(self, ctx: Context) -> None:
        if await self.parts.is_over(self.arguments.attachment_id):
            return
        await self.parts.volumes.clear_export(self.volume.id)

    async def detached(self, ctx: Context) -> None:
        await self.parts.attachments.detached(self.volume.id, self.arguments.attachment_id or "")
