"""nova-api: servers and their volume attachments for clients."""

from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from common.app.deciding import request_id_of
from common.base.context import Context
from common.base.errors import Invalid
from common.base.ids import AttachmentId, same_uuid
from common.db.hosts import Hosts, ServiceRow
from common.flow.runner import Runner
from common.flow.steps import Flow
from nova_lite.contract import BlockDeviceMapping, ComputeAPI, Instance, RebootType, TaskState
from nova_lite.domain.device_name import split_device
from nova_lite.domain.flavor import FLAVORS
from nova_lite.domain.instance import ATTACH_ALLOWED, DETACH_ALLOWED, INSTANCE, Event, State
from nova_lite.errors import (
    ComputeServiceUnavailable,
    FlavorNotFound,
    InstanceInvalidState,
    NoValidHost,
    VolumeAlreadyAttached,
)
from nova_lite.flows.boot import RequestBoot
from nova_lite.flows.delete import RequestDelete
from nova_lite.flows.parts import ApiParts
from nova_lite.flows.power import BEGINS, RequestPower, Verb
from nova_lite.flows.request_attach import RequestAttach, attachment_of
from nova_lite.flows.request_detach import RequestDetach

BINARY = "nova-compute"
NAME_LENGTH_MAX = 255
R = TypeVar("R", bound=Flow[Any, ApiParts] | None)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Which compute hosts there are. Up: the last heartbeat is younger than service_down_time."""

    hosts: Hosts
    service_down_time_s: float

    async def up(self) -> list[ServiceRow]:
        """The compute services that are up and enabled."""
        rows = await self.hosts.list(BINARY)
        return [row for row in rows if not row.disabled and self.hosts.is_up(row, self.service_down_time_s)]

    async def choose(self, wanted: str | None, load: Counter[str]) -> str:
        """The wanted host, or the one with the fewest servers. Raises NoValidHost."""
        names = sorted(row.host for row in await self.up())
        if wanted is not None and wanted not in names:
            raise NoValidHost(reason=f"Host {wanted} has no compute service that is up; up are: {', '.join(names) or 'none'}.")
        if not names:
            raise NoValidHost(reason="No compute service is up: start `nova-lite run compute`.")
        return wanted or min(names, key=lambda name: (load[name], name))

    async def check(self, host: str | None) -> None:
        """Raises ComputeServiceUnavailable (409, bug 1909120) when nobody there would take an order."""
        if host not in {row.host for row in await self.up()}:
            raise ComputeServiceUnavailable(host=host, reason="it has sent no heartbeat lately")


class ComputeApi(ComputeAPI):
    """Implements the contract."""

    def __init__(self, parts: ApiParts, fleet: Fleet, runner: Runner) -> None:
        self._parts = parts
        self._fleet = fleet
        self._runner = runner

    async def create(
        self, ctx: Context, *, name: str, flavor: str, image: str | None = None, host: str | None = None,
        availability_zone: str | None = None,
    ) -> Instance:  # fmt: skip
        booting = self._boot(ctx, name=name, flavor=flavor, image=image, host=host, availability_zone=availability_zone)
        request = await self._run(ctx, RequestBoot, booting)
        # Repeated, it may have been deleted since: "not found" would say that it never was made.
        return await self._parts.instances.remembered(request.arguments.instance.uuid)

    async def _boot(
        self, ctx: Context, *, name: str, flavor: str, image: str | None, host: str | None, availability_zone: str | None
    ) -> RequestBoot:
        sizes = FLAVORS.get(flavor)
        if sizes is None:
            raise FlavorNotFound(flavor=flavor, known=", ".join(FLAVORS))
        if not 1 <= len(name.strip()) <= NAME_LENGTH_MAX:
            raise Invalid(reason=f"a server's name must have 1 to {NAME_LENGTH_MAX} characters")
        if image is not None:
            raise Invalid(
                reason=f"image {image}: there is no image service yet; boot without an image, the machine then has no guest system"
            )
        load = Counter(found.host or "" for found in await self._parts.instances.list())
        state, task = INSTANCE.start
        instance = Instance(
            uuid=same_uuid(ctx.message_id),
            display_name=name,
            vm_state=state,
            task_state=task,
            host=await self._fleet.choose(host, load),
            flavor=sizes.name,
            memory_mb=sizes.memory_mb,
            vcpus=sizes.vcpus,
            root_gb=sizes.root_gb,
            image_ref=image,
            availability_zone=availability_zone,
            user_id=ctx.user_id,
            project_id=ctx.project_id,
        )
        return RequestBoot.of(ctx, self._parts, instance=instance)

    async def get(self, ctx: Context, *, server: str) -> Instance:
        return await self._parts.instances.find(server)

    async def get_all(self, ctx: Context) -> list[Instance]:
        return await self._parts.instances.list()

    async def delete(self, ctx: Context, *, server: str) -> None:
        await self._run(ctx, RequestDelete, self._deletion(ctx, server))

    async def _deletion(self, ctx: Context, server: str) -> RequestDelete | None:
        instance = await self._parts.instances.find(server)
        if instance.task_state is TaskState.DELETING:
            return None
        if not INSTANCE.allows((instance.vm_state, instance.task_state), Event.DELETE):
            raise _wrong_state(instance, "delete", _shown(INSTANCE.sources(Event.DELETE)))
        return RequestDelete.of(ctx, self._parts, instance=instance)

    async def attach_volume(self, ctx: Context, *, server: str, volume: str, device: str | None = None) -> BlockDeviceMapping:
        return (await self._run(ctx, RequestAttach, self._attachment(ctx, server, volume, device))).mapping

    async def detach_volume(self, ctx: Context, *, server: str, volume: str) -> None:
        await self._run(ctx, RequestDetach, self._detachment(ctx, server, volume))

    async def _detachment(self, ctx: Context, server: str, volume: str) -> RequestDetach:
        instance = await self._ready(server, "detach_volume", DETACH_ALLOWED)
        found = await self._parts.volumes.get(ctx, volume_id=volume)
        mapping = await self._parts.mappings.get(instance.uuid, found.id)
        await self._fleet.check(instance.host)
        return RequestDetach.of(ctx, self._parts, instance=instance, bdm=mapping)

    async def volume_attachments(self, ctx: Context, *, server: str) -> list[BlockDeviceMapping]:
        instance = await self._parts.instances.find(server)
        return await self._parts.mappings.list(instance.uuid)

    async def stop(self, ctx: Context, *, server: str) -> None:
        await self._power(ctx, server, Verb.STOP)

    async def start(self, ctx: Context, *, server: str) -> None:
        await self._power(ctx, server, Verb.START)

    async def reboot(self, ctx: Context, *, server: str, reboot_type: RebootType = RebootType.SOFT) -> None:
        await self._power(ctx, server, Verb.REBOOT if reboot_type is RebootType.SOFT else Verb.REBOOT_HARD)

    async def set_delete_on_termination(self, ctx: Context, *, server: str, volume: str, delete_on_termination: bool) -> None:
        instance = await self._parts.instances.find(server)
        found = await self._parts.volumes.get(ctx, volume_id=volume)
        mapping = await self._parts.mappings.get(instance.uuid, found.id)
        await self._parts.mappings.set_delete_on_termination(mapping.uuid, delete_on_termination)

    async def _power(self, ctx: Context, server: str, verb: Verb) -> None:
        await self._run(ctx, RequestPower, self._powering(ctx, server, verb))

    async def _powering(self, ctx: Context, server: str, verb: Verb) -> RequestPower | None:
        """None: it is being done already."""
        instance = await self._parts.instances.find(server)
        here, event = (instance.vm_state, instance.task_state), BEGINS[verb]
        if here == INSTANCE.target(event):
            return None
        if not INSTANCE.allows(here, event):
            raise _wrong_state(instance, verb, _shown(INSTANCE.sources(event)))
        if instance.launched_at is None:
            raise _wrong_state(instance, verb, "one that was active before")
        await self._fleet.check(instance.host)
        return RequestPower.of(ctx, self._parts, instance=instance, verb=verb)

    async def _attachment(self, ctx: Context, server: str, volume: str, device: str | None) -> RequestAttach:
        instance = await self._ready(server, "attach_volume", ATTACH_ALLOWED)
        if device is not None:
            split_device(device)
        found = await self._parts.volumes.get(ctx, volume_id=volume)
        await self._check_not_attached(found.id, but=attachment_of(ctx))
        await self._fleet.check(instance.host)
        return RequestAttach.of(ctx, self._parts, instance=instance, volume=found, device=device)

    async def _run(self, ctx: Context, kind: type[Flow[Any, ApiParts]], making: Awaitable[R]) -> R:
        """The request that was made, once it is completed; None where there is nothing to do.

        A process that died in this very request may have left it running, or even completed it: then it is not refused, whatever has
        changed since. What is refused is written down first: another process, which lost this request with its connection and does
        not know it yet, must not begin it when the state that forbids it is over.
        """
        try:
            request = await making or await self._begun_before(ctx, kind)
        except Invalid as exc:
            if not exc.retryable and await self._parts.decisions.refuse(ctx, kind.saga.name, str(exc)):
                raise
            request = await self._begun_before(ctx, kind)
            if request is None:
                raise
        if request is not None:
            await self._runner.run(request)
        return request

    async def _begun_before(self, ctx: Context, kind: type[Flow[Any, ApiParts]]) -> Any:
        """The flow of the same message, as its row has it, or None."""
        row = await self._parts.journal.flow(request_id_of(kind.saga.name, ctx))
        if row is None or row.is_refusal:
            return None
        request = kind.restored(row, self._parts)
        request.deadline = ctx.deadline
        return request

    async def _ready(self, server: str, method: str, allowed: frozenset[State]) -> Instance:
        instance = await self._parts.instances.find(server)
        if (instance.vm_state, instance.task_state) not in allowed:
            raise _wrong_state(instance, method, _shown(allowed))
        return instance

    async def _check_not_attached(self, volume_id: str, *, but: AttachmentId) -> None:
        """A volume has one server at a time, and the error says which (bug 1908075). `but`: what this very request has made."""
        for mapping in await self._parts.mappings.by_volume(volume_id):
            if mapping.attachment_id == but:
                continue
            holder = await self._parts.instances.get(mapping.instance_uuid)
            raise VolumeAlreadyAttached(
                volume_id=volume_id, instance_uuid=holder.uuid, server=holder.display_name, device=mapping.device_name
            )


def _shown(states: frozenset[State]) -> str:
    """ "active or stopped, with no task": a table lets users begin only from states without a task."""
    return f"{' or '.join(sorted(vm for vm, _ in states))}, with no task"


def _wrong_state(instance: Instance, method: str, expected: str) -> InstanceInvalidState:
    return InstanceInvalidState(
        instance_uuid=instance.uuid,
        vm_state=instance.vm_state,
        task_state=instance.task_state,
        method=method,
        expected=expected,
    )
