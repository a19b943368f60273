"""Detach a volume, nova-api's half (attach-flow D3, D4)."""

from typing import Self

import msgspec

from common.app.deciding import request_id_of
from common.base.context import Context
from common.base.errors import Invalid
from common.flow.steps import Flow
from common.machine.saga import Saga, Step
from nova_lite.contract import BlockDeviceMapping, Instance
from nova_lite.flows.parts import ApiParts

REQUEST_DETACH = Saga(
    "request_detach",
    pivot="detach_volume",
    steps=(
        Step("begin_detaching", undo="roll_detaching", timeout_s=30),
        Step("detach_volume", timeout_s=15, attempts=2),
    ),
)


class RequestDetachArguments(msgspec.Struct, frozen=True, kw_only=True):
    """Which attachment goes."""

    instance: Instance
    volume_id: str
    attachment_id: str


class RequestDetach(Flow[RequestDetachArguments, ApiParts]):
    """Completed: the volume is `detaching`, and the compute host's bus has the order."""

    saga = REQUEST_DETACH
    is_lined_up = False

    @classmethod
    def of(cls, ctx: Context, parts: ApiParts, *, instance: Instance, bdm: BlockDeviceMapping) -> Self:
        return cls(
            ctx,
            parts,
            id=request_id_of(REQUEST_DETACH.name, ctx),
            subject=f"volume:{bdm.volume_id}",
            arguments=RequestDetachArguments(
                instance=instance, volume_id=bdm.volume_id or "", attachment_id=bdm.attachment_id or ""
            ),
        )

    async def begin_detaching(self, ctx: Context) -> None:
        args = self.arguments
        await self.parts.volumes.begin_detaching(ctx, volume_id=args.volume_id, attachment_id=args.attachment_id)

    async def roll_detaching(self, ctx: Context) -> None:
        """Where the answer was lost, nothing may have begun: then the volume is in another state, or the attachment is over by now."""
        args = self.arguments
        try:
            await self.parts.volumes.roll_detaching(ctx, volume_id=args.volume_id, attachment_id=args.attachment_id)
        except Invalid as exc:
            if exc.retryable:  # nobody was there to ask
                raise

    async def detach_volume(self, ctx: Context) -> None:
        args = self.arguments
        with self.parts.ordering(args.instance) as (compute, letters):
            await compute.detach_volume(ctx, instance=args.instance, volume_id=args.volume_id, attachment_id=args.attachment_id)
        self.letters += letters
