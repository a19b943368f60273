"""Delete a server: its machine first, then each of its volumes by the detach saga, those that go with it, its row last."""

from contextlib import suppress
from typing import Self

import msgspec

from common.app.deciding import request_id_of
from common.base.context import Context
from common.base.errors import Conflict, Fault, Invalid, NotFound
from common.base.ids import new_uuid
from common.flow.steps import Flow, Output
from common.machine.saga import Saga, Step
from nova_lite.contract import Instance
from nova_lite.domain.instance import Event, takes_back
from nova_lite.flows.parts import ApiParts, ComputeParts, advance_once, begin_once, require_begun
from nova_lite.flows.releasing import release_volumes

REQUEST_DELETE = Saga(
    "request_delete", steps=(Step("begin_delete", undo="fail_delete"), Step("terminate_instance", timeout_s=15, attempts=2))
)

DELETE = Saga(
    "delete",
    pivot="destroy",
    steps=(
        Step("adopt_deletion", undo="fail_delete", is_pure=True),
        Step("note_volumes", attempts=5, is_pure=True),
        Step("destroy", timeout_s=60, attempts=3),
        Step("detach_volumes", timeout_s=300, attempts=6),
        Step("delete_volumes", timeout_s=30, attempts=5),
        Step("destroy_instance", attempts=5),
    ),
)


class DeleteArguments(msgspec.Struct, frozen=True, kw_only=True):
    """The server that is to go."""

    instance: Instance


class RequestDelete(Flow[DeleteArguments, ApiParts]):
    """Completed: the server is `deleting`, and its host's bus has the order."""

    saga = REQUEST_DELETE
    is_lined_up = False

    @classmethod
    def of(cls, ctx: Context, parts: ApiParts, *, instance: Instance) -> Self:
        return cls(
            ctx,
            parts,
            id=request_id_of(REQUEST_DELETE.name, ctx),
            subject=f"server:{instance.uuid}",
            arguments=DeleteArguments(instance=instance),
        )

    async def begin_delete(self, ctx: Context) -> None:
        await begin_once(self.parts.instances, self.arguments.instance.uuid, Event.DELETE)

    async def fail_delete(self, ctx: Context) -> None:
        """Of a deletion that was begun: where the answer was lost, it may not have been. Its host has heard nothing of it."""
        instance = self.arguments.instance
        if await self.parts.instances.has_made(instance.uuid, Event.DELETE):
            with suppress(NotFound):  # another request has deleted it
                await advance_once(self.parts.instances, instance.uuid, takes_back(Event.DELETE, instance.vm_state))

    async def terminate_instance(self, ctx: Context) -> None:
        instance = self.arguments.instance
        with self.parts.ordering(instance) as (compute, letters):
            await compute.terminate_instance(ctx, instance=instance)
        self.letters += letters


class Delete(Flow[DeleteArguments, ComputeParts]):
    """Completed: nothing of the server is left but a soft-deleted row."""

    saga = DELETE

    @classmethod
    def of(cls, ctx: Context, parts: ComputeParts, *, instance: Instance) -> Self:
        return cls(
            ctx,
            parts,
            id=f"delete:{instance.uuid}:{ctx.message_id or new_uuid()}",
            subject=f"server:{instance.uuid}",
            arguments=DeleteArguments(instance=instance),
        )

    @property
    def uuid(self) -> str:
        return self.arguments.instance.uuid

    async def adopt_deletion(self, ctx: Context) -> None:
        """The row says that from here on the server's state is this saga's to settle."""
        await require_begun(self.parts.instances, self.uuid, Event.DESTROYED)

    async def fail_delete(self, ctx: Context) -> None:
        await advance_once(self.parts.instances, self.uuid, Event.DELETE_FAILED)

    async def note_volumes(self, ctx: Context) -> Output:
        """Which volumes go with the server: their mappings will be gone when it is time."""
        mappings = await self.parts.mappings.list(self.uuid)
        return {"deleted_with_it": [row.volume_id for row in mappings if row.delete_on_termination and row.volume_id]}

    async def destroy(self, ctx: Context) -> None:
        await self.parts.hypervisor.destroy(self.uuid)

    async def detach_volumes(self, ctx: Context) -> None:
        """A volume that is just being attached is tried again until its own saga has ended."""
        await release_volumes(ctx, self.parts, self.uuid)

    async def delete_volumes(self, ctx: Context) -> None:
        """Those that were to go with it (delete_on_termination). One that somebody else has taken meanwhile is left to him."""
        for volume_id in self.outputs["note_volumes"]["deleted_with_it"]:
            try:
                await self.parts.volumes.delete(ctx, volume_id=volume_id)
            except NotFound:
                continue
            except (Conflict, Invalid) as exc:
                await self.parts.record_fault(self, self.uuid, exc, f"Volume {volume_id} was not deleted with its server")

    async def destroy_instance(self, ctx: Context) -> None:
        await advance_once(self.parts.instances, self.uuid, Event.DESTROYED)

    async def parked(self, fault: Fault) -> None:
        await self.parts.record_fault(self, self.uuid, fault, "Deleting failed")
        await self.fail_delete(self.ctx)

    async def turned_back(self, fault: Fault) -> None:
        await self.parts.record_fault(self, self.uuid, fault, "Deleting failed")
