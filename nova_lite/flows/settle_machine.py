"""A machine that died by itself, one that outlived its server, and one whose server is stopped.

The reconciler saw it twice; the first step asks once more, and what it finds is in the journal: the later steps go by that.
"""

from typing import Self

import msgspec

from common.base.context import Context
from common.base.errors import Fault
from common.base.ids import new_uuid
from common.flow.steps import Flow, Output
from common.machine.saga import Saga, Step
from nova_lite.contract import VmState
from nova_lite.errors import MachineLost
from nova_lite.flows.parts import ComputeParts
from nova_lite.flows.releasing import release_volumes

SETTLE_MACHINE = Saga(
    "settle_machine",
    pivot="lose_machine",
    steps=(
        # Tried again, for what it writes first nobody would find again: the server is in error then, and no reconciler looks at it.
        Step("lose_machine", attempts=5),
        Step("destroy", timeout_s=60, attempts=3),
        Step("detach_volumes", timeout_s=300, attempts=6),
    ),
)
SETTLE_STOPPED = Saga("settle_stopped", steps=(Step("power_off", timeout_s=60, attempts=3),))
REAP_MACHINE = Saga("reap_machine", steps=(Step("destroy", timeout_s=60, attempts=3),))


class MachineArguments(msgspec.Struct, frozen=True, kw_only=True):
    """Whose machine."""

    instance_uuid: str


class SettleMachine(Flow[MachineArguments, ComputeParts]):
    """Completed: the server is in error, nothing of its machine is left, and its volumes are available; or its machine is alive."""

    saga = SETTLE_MACHINE

    @classmethod
    def of(cls, ctx: Context, parts: ComputeParts, *, instance_uuid: str) -> Self:
        return cls(
            ctx,
            parts,
            id=f"settle_machine:{instance_uuid}:{ctx.message_id or new_uuid()}",
            subject=f"server:{instance_uuid}",
            arguments=MachineArguments(instance_uuid=instance_uuid),
        )

    @property
    def uuid(self) -> str:
        return self.arguments.instance_uuid

    @property
    def is_lost(self) -> bool:
        return bool(self.outputs["lose_machine"].get("is_lost"))

    async def lose_machine(self, ctx: Context) -> Output:
        """active -> error, unless the machine is there, or somebody else has moved the server by now."""
        if self.uuid in await self.parts.hypervisor.list_instances() or not await self.parts.instances.lose(self.uuid):
            return {"is_lost": False}
        await self.parts.record_fault(self, self.uuid, MachineLost(instance_uuid=self.uuid, host=self.parts.host), "Machine lost")
        return {"is_lost": True}

    async def destroy(self, ctx: Context) -> None:
        if self.is_lost:
            await self.parts.hypervisor.destroy(self.uuid)

    async def detach_volumes(self, ctx: Context) -> None:
        if self.is_lost:
            await release_volumes(ctx, self.parts, self.uuid)

    async def parked(self, fault: Fault) -> None:
        await self.parts.record_fault(self, self.uuid, fault, "Clearing up after its machine failed")


class SettleStopped(Flow[MachineArguments, ComputeParts]):
    """Completed: a server that is stopped has no machine."""

    saga = SETTLE_STOPPED

    @classmethod
    def of(cls, ctx: Context, parts: ComputeParts, *, instance_uuid: str) -> Self:
        return cls(
            ctx,
            parts,
            id=f"settle_stopped:{instance_uuid}:{ctx.message_id or new_uuid()}",
            subject=f"server:{instance_uuid}",
            arguments=MachineArguments(instance_uuid=instance_uuid),
        )

    async def power_off(self, ctx: Context) -> None:
        found = await self.parts.instances.get(self.arguments.instance_uuid)
        if (found.vm_state, found.task_state) == (VmState.STOPPED, None):
            await self.parts.hypervisor.destroy(found.uuid)


class ReapMachine(Flow[MachineArguments, ComputeParts]):
    """Completed: nothing is left of the machine of a server that is deleted."""

    saga = REAP_MACHINE

    @classmethod
    def of(cls, ctx: Context, parts: ComputeParts, *, instance_uuid: str) -> Self:
        return cls(
            ctx,
            parts,
            id=f"reap_machine:{instance_uuid}:{ctx.message_id or new_uuid()}",
            subject=f"server:{instance_uuid}",
            arguments=MachineArguments(instance_uuid=instance_uuid),
        )

    async def destroy(self, ctx: Context) -> None:
        if await self.parts.instances.is_deleted(self.arguments.instance_uuid):
            await self.parts.hypervisor.destroy(self.arguments.instance_uuid)
