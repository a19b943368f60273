"""What becomes of the volumes of a server whose machine is gone: each is detached by its own saga."""

from common.base.context import Context
from common.base.errors import NotFound, Unavailable
from nova_lite.contract import BlockDeviceMapping
from nova_lite.flows.detach_volume import DetachVolume
from nova_lite.flows.parts import ComputeParts
from nova_lite.ports.volumes import VolumeStatus


class StillBusy(Unavailable):
    """Volume {volume_id} is {status} at this moment; it is released once that has ended."""


async def release_volumes(ctx: Context, parts: ComputeParts, instance_uuid: str) -> None:
    """Returns when the server has no mapping any more. Raises StillBusy, to be tried again, and the fault of a detachment."""
    # A detachment that failed is begun anew at the next try: the same id would only tell of the first one's end.
    anew = ctx.anew()
    for mapping in await parts.mappings.list(instance_uuid):
        if mapping.volume_id is not None:
            await _release(anew, parts, mapping)


async def _release(ctx: Context, parts: ComputeParts, mapping: BlockDeviceMapping) -> None:
    volume_id, attachment_id = mapping.volume_id or "", mapping.attachment_id or ""
    try:
        volume = await parts.volumes.get(ctx, volume_id=volume_id)
    except NotFound:
        volume = None
    if volume is not None and attachment_id in {held.id for held in volume.volume_attachment}:
        if volume.status in {VolumeStatus.ATTACHING, VolumeStatus.EXTENDING}:
            raise StillBusy(volume_id=volume_id, status=volume.status)
        if volume.status is VolumeStatus.IN_USE:
            await parts.volumes.begin_detaching(ctx, volume_id=volume_id, attachment_id=attachment_id)
    await parts.runner.run(DetachVolume.of(ctx, parts, bdm=mapping))
