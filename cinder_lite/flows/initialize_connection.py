"""Export a volume and let one initiator in (attach-flow A10, 1.5).

Credentials are drawn and saved before the target is made, so that whatever was made can be found and mended from the row alone. The
attachment's id is the fence: once that attachment is over, nothing is exported for it any more.
"""

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from cinder_lite.contract import Volume
from cinder_lite.flows.parts import BackendParts
from cinder_lite.targets.iscsi_names import new_chap
from common.base.context import Context
from common.base.errors import Fault
from common.base.ids import new_uuid
from common.flow.steps import Flow
from common.machine.saga import Saga, Step

INITIALIZE_CONNECTION = Saga(
    "initialize_connection",
    steps=(
        Step("validate_connector", is_pure=True),
        Step("connecting"),
        Step("save_auth"),
        Step("create_export", undo="remove_export", attempts=2),
        Step("save_export", undo="clear_export"),
        Step("initialize_connection", undo="terminate_connection", attempts=2),
    ),
)


class ConnectionArguments(msgspec.Struct, frozen=True, kw_only=True):
    """Which volume, for whom. The connector holds no secret."""

    volume: Volume
    connector: dict[str, Any] | None
    attachment_id: str | None


class InitializeConnection(Flow[ConnectionArguments, BackendParts]):
    """Completed: the export is there and lets exactly this initiator in; `connection_info` tells how to reach it.

    The same request again, such as a message that came twice, is the same flow.
    """

    saga = INITIALIZE_CONNECTION
    info: dict[str, Any] | None = None

    @classmethod
    def of(
        cls, ctx: Context, parts: BackendParts, *, volume: Volume, connector: Mapping[str, Any], attachment_id: str | None
    ) -> Self:
        return cls(
            ctx,
            parts,
            id=f"initialize_connection:{attachment_id or volume.id}:{ctx.message_id or new_uuid()}",
            subject=f"volume:{volume.id}",
            arguments=ConnectionArguments(volume=volume, connector=dict(connector), attachment_id=attachment_id),
        )

    @property
    def volume(self) -> Volume:
        return self.arguments.volume

    @property
    def connector(self) -> Mapping[str, Any]:
        return self.arguments.connector or {}

    async def connection_info(self) -> dict[str, Any]:
        """Of this object's own step, or asked of the target anew: secrets do not go through the journal.

        Raises VolumeAttachmentNotFound when it is to be asked and the attachment is over.
        """
        if self.info is None:
            await self.parts.require(self.arguments.attachment_id)
            export = await self.parts.export_of(self.volume)
            self.info = await self.parts.target.initialize_connection(export, self.connector)
        return self.info

    async def validate_connector(self, ctx: Context) -> None:
        self.parts.target.validate_connector(self.connector)

    async def connecting(self, ctx: Context) -> None:
        if self.arguments.attachment_id is not None:
            await self.parts.attachments.connecting(self.arguments.attachment_id, self.connector)

    async def save_auth(self, ctx: Context) -> None:
        if self.parts.target.needs_chap and await self.parts.volumes.provider_auth(self.volume.id) is None:
            await self.parts.volumes.save_auth(self.volume.id, new_chap().provider_auth)

    async def create_export(self, ctx: Context) -> dict[str, str]:
        await self.parts.require(self.arguments.attachment_id)
        return {"provider_location": await self.parts.target.create_export(await self.parts.export_of(self.volume))}

    async def remove_export(self, ctx: Context) -> None:
        if await self.parts.is_over(self.arguments.attachment_id):
            return
        await self.parts.target.remove_export(await self.parts.export_of(self.volume))

    async def save_export(self, ctx: Context) -> None:
        await self.parts.volumes.save_export(self.volume.id, self.outputs["create_export"]["provider_location"])

    async def clear_export(self, ctx: Context) -> None:
        if await self.parts.is_over(self.arguments.attachment_id):
            return
        await self.parts.volumes.clear_export(self.volume.id)

    async def initialize_connection(self, ctx: Context) -> None:
        await self.connection_info()

    async def terminate_connection(self, ctx: Context) -> None:
        if await self.parts.is_over(self.arguments.attachment_id):
            return
        await self.parts.target.terminate_connection(await self.parts.export_of(self.volume), self.connector)

    async def turned_back(self, fault: Fault) -> None:
        await self.parts.volumes.add_message(
            self.volume.id,
            event_id="VOLUME_EXPORT_FAILED",
            user_message=f"Exporting failed: {fault}",
            request_id=self.ctx.request_id,
        )
