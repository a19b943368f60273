"""`--wait`: how each request ends, and what is said when it ends badly."""

from collections.abc import Callable

from common.app.following import follow
from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Broken, NotFound
from nova_lite.contract import BlockDeviceMapping, ComputeAPI, Instance, VmState
from nova_lite.domain.instance import FINAL_STATES
from nova_lite.ports.volumes import Volume, Volumes, VolumeStatus

Tell = Callable[[str], None]

SETTLED = frozenset({VolumeStatus.AVAILABLE, VolumeStatus.IN_USE, VolumeStatus.ERROR, VolumeStatus.ERROR_DELETING})
"""States of a volume that nobody is at work on."""


class RequestFailed(Broken):
    """{what}: {reason}"""


async def booted(nova: ComputeAPI, ctx: Context, server: Instance, *, tell: Tell, clock: Clock) -> Instance:
    """The server once it is active. Raises RequestFailed with its fault."""
    found = await follow(
        lambda: nova.get(ctx, server=server.uuid),
        is_final=lambda now: (now.vm_state, now.task_state) in FINAL_STATES,
        shown=lambda now: f"server {now.display_name}: {now.vm_state}{f' ({now.task_state})' if now.task_state else ''}",
        tell=tell,
        clock=clock,
        what=f"server {server.display_name}",
    )
    if found.vm_state is not VmState.ACTIVE:
        raise RequestFailed(what=f"Server {found.display_name} is {found.vm_state}", reason=why(found))
    return found


async def deleted(nova: ComputeAPI, ctx: Context, server: Instance, *, tell: Tell, clock: Clock) -> None:
    """Returns once the server is gone. Raises RequestFailed when deleting it failed."""

    async def look() -> Instance | None:
        try:
            return await nova.get(ctx, server=server.uuid)
        except NotFound:
            return None

    found = await follow(
        look,
        is_final=lambda now: now is None or (now.vm_state is VmState.ERROR and now.task_state is None),
        shown=lambda now: f"server {server.display_name}: {(now.task_state or now.vm_state) if now else 'deleted'}",
        tell=tell,
        clock=clock,
        what=f"deleting server {server.display_name}",
    )
    if found is not None:
        raise RequestFailed(what=f"Server {found.display_name} is {found.vm_state}", reason=why(found))


async def powered(
    nova: ComputeAPI, ctx: Context, server: Instance, *, verb: str, wanted: VmState, tell: Tell, clock: Clock
) -> Instance:
    """The server once it is `wanted`, after a stop, a start or a reboot. Raises RequestFailed with its fault."""
    found = await follow(
        lambda: nova.get(ctx, server=server.uuid),
        is_final=lambda now: (now.vm_state, now.task_state) in FINAL_STATES,
        shown=lambda now: f"server {now.display_name}: {now.task_state or now.vm_state}",
        tell=tell,
        clock=clock,
        what=f"server {server.display_name} to {verb}",
    )
    if found.vm_state is not wanted:
        raise RequestFailed(what=f"Server {found.display_name} is {found.vm_state}, not {wanted}", reason=why(found))
    return found


async def attached(
    nova: ComputeAPI, cinder: Volumes, ctx: Context, mapping: BlockDeviceMapping, *, tell: Tell, clock: Clock
) -> Volume:
    """The volume once it is in-use. Raises RequestFailed with the server's fault."""
    found = await _settled(cinder, ctx, mapping.volume_id or "", tell=tell, clock=clock)
    if found.status is not VolumeStatus.IN_USE:
        reason = why(await nova.get(ctx, server=mapping.instance_uuid))
        raise RequestFailed(what=f"Volume {found.label} is {found.status}, not in-use", reason=reason)
    return found


async def detached(
    nova: ComputeAPI, cinder: Volumes, ctx: Context, *, server: str, volume: str, tell: Tell, clock: Clock
) -> Volume:
    """The volume once it is available. Raises RequestFailed with the server's fault."""
    found = await _settled(cinder, ctx, volume, tell=tell, clock=clock)
    if found.status is not VolumeStatus.AVAILABLE:
        reason = why(await nova.get(ctx, server=server))
        raise RequestFailed(what=f"Volume {found.label} is {found.status}, not available", reason=reason)
    return found


def why(server: Instance) -> str:
    """What failed last on a server."""
    return server.fault.message if server.fault else "no fault is recorded"


async def _settled(cinder: Volumes, ctx: Context, volume_id: str, *, tell: Tell, clock: Clock) -> Volume:
    return await follow(
        lambda: cinder.get(ctx, volume_id=volume_id),
        is_final=lambda now: now.status in SETTLED,
        shown=lambda now: f"volume {now.label}: {now.status}",
        tell=tell,
        clock=clock,
        what=f"volume {volume_id}",
    )
