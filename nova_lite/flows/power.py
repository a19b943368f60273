"""Stop, start and reboot a server.

A machine that is off is gone, and what it had is in the rows: its volumes stay attached in cinder, and are plugged again when it comes
back, each by its own saga in its volume's line, so that a detachment that was begun meanwhile is not overtaken.

Before `power_off` a stop can be taken back; after it the server is off, and only its row is left to say so. A start or a reboot that
fails leaves no machine: the server is stopped, or in error, with its volumes as attached as before, and can be started or rebooted again.
"""

from contextlib import suppress
from enum import StrEnum
from typing import Self, TypeVar

import msgspec

from common.app.deciding import request_id_of
from common.base.context import Context
from common.base.errors import Fault, NotFound
from common.base.ids import new_uuid
from common.flow.steps import Flow
from common.machine.saga import Saga, Step
from nova_lite.contract import Instance, PowerState, RebootType
from nova_lite.domain.instance import Event, takes_back
from nova_lite.flows.parts import ApiParts, ComputeParts, advance_once, begin_once, require_begun
from nova_lite.flows.settle_disk import RestoreDisk

REQUEST_POWER = Saga("request_power", steps=(Step("begin", undo="take_back"), Step("order", timeout_s=15, attempts=2)))

POWER_OFF_TIMEOUT_S = 30.0
"""For the machine to end, beside what its guest is given."""

STOP = Saga(
    "stop",
    pivot="power_off",
    steps=(Step("adopt", undo="fail", is_pure=True), Step("power_off", timeout_s=600, attempts=3), Step("settle", attempts=5)),
)
START = Saga(
    "start",
    steps=(
        Step("adopt", undo="fail", is_pure=True),
        Step("spawn", undo="destroy", timeout_s=60, attempts=2),
        Step("attach_volumes", timeout_s=300, attempts=3),
        Step("settle", attempts=5),
    ),
)
REBOOT = Saga(
    "reboot",
    steps=(
        Step("adopt", undo="fail", is_pure=True),
        Step("power_off", timeout_s=600, attempts=3),
        Step("spawn", undo="destroy", timeout_s=60, attempts=2),
        Step("attach_volumes", timeout_s=300, attempts=3),
        Step("settle", attempts=5),
    ),
)


class Verb(StrEnum):
    """What a user asks for."""

    STOP = "stop"
    START = "start"
    REBOOT = "reboot"
    REBOOT_HARD = "reboot_hard"


BEGINS = {Verb.STOP: Event.STOP, Verb.START: Event.START, Verb.REBOOT: Event.REBOOT, Verb.REBOOT_HARD: Event.REBOOT_HARD}
"""What happens to a server when it is asked for."""


class RequestPowerArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of which server."""

    instance: Instance
    verb: Verb


class RequestPower(Flow[RequestPowerArguments, ApiParts]):
    """Completed: the server's row says what is being done, and its host's bus has the order."""

    saga = REQUEST_POWER
    is_lined_up = False

    @classmethod
    def of(cls, ctx: Context, parts: ApiParts, *, instance: Instance, verb: Verb) -> Self:
        return cls(
            ctx,
            parts,
            id=request_id_of(REQUEST_POWER.name, ctx),
            subject=f"server:{instance.uuid}",
            arguments=RequestPowerArguments(instance=instance, verb=verb),
        )

    async def begin(self, ctx: Context) -> None:
        await begin_once(self.parts.instances, self.arguments.instance.uuid, BEGINS[self.arguments.verb])

    async def take_back(self, ctx: Context) -> None:
        """Of what was begun: where the answer was lost, it may not have been. Its host has heard nothing of it.

        A server that was deleted meanwhile has nothing to go back to.
        """
        instance, event = self.arguments.instance, BEGINS[self.arguments.verb]
        if await self.parts.instances.has_made(instance.uuid, event):
            with suppress(NotFound):
                await advance_once(self.parts.instances, instance.uuid, takes_back(event, instance.vm_state))

    async def order(self, ctx: Context) -> None:
        instance, verb = self.arguments.instance, self.arguments.verb
        with self.parts.ordering(instance) as (compute, letters):
            match verb:
                case Verb.STOP:
                    await compute.stop_instance(ctx, instance=instance)
                case Verb.START:
                    await compute.start_instance(ctx, instance=instance)
                case Verb.REBOOT | Verb.REBOOT_HARD:
                    kind = RebootType.SOFT if verb is Verb.REBOOT else RebootType.HARD
                    await compute.reboot_instance(ctx, instance=instance, reboot_type=kind)
        self.letters += letters


class PowerArguments(msgspec.Struct, frozen=True, kw_only=True):
    """Whose machine. `is_clean`: the guest is asked to shut down first."""

    instance: Instance
    is_clean: bool = True


F = TypeVar("F", bound="_Power")


class _Power(Flow[PowerArguments, ComputeParts]):
    """The steps that the sagas share."""

    saga = REBOOT
    fails: Event
    settles: Event
    power_state = PowerState.RUNNING

    @classmethod
    def of(cls, ctx: Context, parts: ComputeParts, *, instance: Instance, is_clean: bool = True) -> Self:
        return cls(
            ctx,
            parts,
            id=f"{cls.saga.name}:{instance.uuid}:{ctx.message_id or new_uuid()}",
            subject=f"server:{instance.uuid}",
            arguments=PowerArguments(instance=instance, is_clean=is_clean),
        )

    @property
    def uuid(self) -> str:
        return self.arguments.instance.uuid

    async def adopt(self, ctx: Context) -> None:
        """The row says that from here on the server's state is this saga's to settle."""
        await require_begun(self.parts.instances, self.uuid, self.settles)

    async def fail(self, ctx: Context) -> None:
        await advance_once(self.parts.instances, self.uuid, self.fails)

    async def power_off(self, ctx: Context) -> None:
        timeout_s = self.parts.shutdown_timeout_s if self.arguments.is_clean else 0.0
        await self.parts.hypervisor.power_off(self.uuid, timeout_s=timeout_s)

    async def spawn(self, ctx: Context) -> None:
        await self.parts.hypervisor.spawn(self.arguments.instance)

    async def destroy(self, ctx: Context) -> None:
        await self.parts.hypervisor.destroy(self.uuid)

    async def attach_volumes(self, ctx: Context) -> None:
        # One that failed is begun anew at the next try: the same id would only tell of the first one's end.
        anew = ctx.anew()
        for mapping in await self.parts.mappings.list(self.uuid):
            if mapping.volume_id is not None:
                await self.parts.runner.run(RestoreDisk.of(anew, self.parts, bdm=mapping))

    async def settle(self, ctx: Context) -> None:
        await advance_once(self.parts.instances, self.uuid, self.settles, power_state=self.power_state)

    async def turned_back(self, fault: Fault) -> None:
        await self.parts.record_fault(self, self.uuid, fault, f"The server could not {self.saga.name}")

    async def parked(self, fault: Fault) -> None:
        await self.turned_back(fault)


class Stop(_Power):
    """Completed: the machine is off, and the server is stopped."""

    saga = STOP
    fails = Event.STOP_FAILED
    settles = Event.STOPPED
    power_state = PowerState.SHUTDOWN


class Start(_Power):
    """Completed: the machine runs with its volumes, and the server is active."""

    saga = START
    fails = Event.START_FAILED
    settles = Event.STARTED


class Reboot(_Power):
    """Completed: the machine was off and runs again with its volumes, and the server is active."""

    saga = REBOOT
    fails = Event.REBOOT_FAILED
    settles = Event.REBOOTED
