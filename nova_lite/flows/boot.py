"""Boot a server on the compute host that nova-api chose."""

from contextlib import suppress
from typing import Self

import msgspec

from common.app.deciding import request_id_of
from common.base.context import Context
from common.base.errors import Fault
from common.db.errors import Duplicate
from common.flow.steps import Flow
from common.machine.saga import Saga, Step
from nova_lite.contract import Instance, PowerState
from nova_lite.domain.instance import Event
from nova_lite.errors import InstanceNotFound
from nova_lite.flows.parts import ApiParts, ComputeParts, advance_once

REQUEST_BOOT = Saga(
    "request_boot", steps=(Step("create_instance", undo="fail_instance"), Step("build_and_run_instance", timeout_s=15, attempts=2))
)

BOOT = Saga(
    "boot",
    steps=(Step("begin_spawn", undo="fail_build"), Step("spawn", undo="destroy", timeout_s=60), Step("activate", attempts=5)),
)


class InstanceArguments(msgspec.Struct, frozen=True, kw_only=True):
    """The server as nova-api entered it."""

    instance: Instance


class RequestBoot(Flow[InstanceArguments, ApiParts]):
    """Completed: the server's row is there, and its host's bus has the order."""

    saga = REQUEST_BOOT
    is_lined_up = False

    @classmethod
    def of(cls, ctx: Context, parts: ApiParts, *, instance: Instance) -> Self:
        return cls(
            ctx,
            parts,
            id=request_id_of(REQUEST_BOOT.name, ctx),
            subject=f"server:{instance.uuid}",
            arguments=InstanceArguments(instance=instance),
        )

    async def create_instance(self, ctx: Context) -> None:
        """A row of that id is an earlier try's: the id is the request's."""
        with suppress(Duplicate):
            await self.parts.instances.create(self.arguments.instance)

    async def fail_instance(self, ctx: Context) -> None:
        """Where the answer was lost, the row may never have been entered."""
        with suppress(InstanceNotFound):
            await advance_once(self.parts.instances, self.arguments.instance.uuid, Event.BUILD_FAILED)

    async def build_and_run_instance(self, ctx: Context) -> None:
        instance = self.arguments.instance
        with self.parts.ordering(instance) as (compute, letters):
            await compute.build_and_run_instance(ctx, instance=instance)
        self.letters += letters


class Boot(Flow[InstanceArguments, ComputeParts]):
    """Completed: the machine runs, and the server is active."""

    saga = BOOT

    @classmethod
    def of(cls, ctx: Context, parts: ComputeParts, *, instance: Instance) -> Self:
        return cls(
            ctx,
            parts,
            id=f"boot:{instance.uuid}",
            subject=f"server:{instance.uuid}",
            arguments=InstanceArguments(instance=instance),
        )

    @property
    def uuid(self) -> str:
        return self.arguments.instance.uuid

    async def begin_spawn(self, ctx: Context) -> None:
        await advance_once(self.parts.instances, self.uuid, Event.SPAWN)

    async def fail_build(self, ctx: Context) -> None:
        await advance_once(self.parts.instances, self.uuid, Event.BUILD_FAILED)

    async def spawn(self, ctx: Context) -> None:
        await self.parts.hypervisor.spawn(self.arguments.instance)

    async def destroy(self, ctx: Context) -> None:
        await self.parts.hypervisor.destroy(self.uuid)

    async def activate(self, ctx: Context) -> None:
        await advance_once(self.parts.instances, self.uuid, Event.SPAWNED, power_state=PowerState.RUNNING)

    async def turned_back(self, fault: Fault) -> None:
        await self.parts.record_fault(self, self.uuid, fault, "Booting failed")

    async def parked(self, fault: Fault) -> None:
        await self.turned_back(fault)
