"""An administrator's verbs: force-detach and reset-state (os-force_detach, os-reset_status).

Neither writes a status and hopes. Whoever may write to the volume is put out first, by the flows of cinder-volume, and seen to be out;
the status follows from the attachments that are left and from what the backend keeps. The machine's disk and nova's mapping are taken
away by the compute host's reconciler, for which an attachment that is over is a disk too many.
"""

from typing import TYPE_CHECKING

from cinder_lite.contract import AttachStatus, BackendReport, Volume, VolumeAttachment, VolumeStatus as Status
from cinder_lite.domain.volume import Event
from cinder_lite.errors import InvalidInput, InvalidVolume
from cinder_lite.flows.parts import manager_of
from common.base.context import Context
from common.db.fence import RUNNING
from common.db.tables import flows

if TYPE_CHECKING:
    from cinder_lite.service.api import ApiParts

_WHERE = "`lite where {volume}` tells who is at work on it, `lite flow show <id>` how far it is."
_LOOKS = 10
_LOOK_AGAIN_S = 0.1


class Resetting:
    """cinder-api's; `parts` are its own."""

    def __init__(self, parts: "ApiParts") -> None:
        self._parts = parts

    async def force_detach(self, ctx: Context, volume: Volume, attachment_id: str | None) -> Volume:
        """Raises InvalidVolume when it has no such attachment, and what the backend says when it cannot put somebody out."""
        held = _chosen(volume, attachment_id)
        manager = manager_of(self._parts.manager, volume)
        await manager.terminate_connection(
            ctx, volume_id=volume.id, connector=None, force=True, volume=volume, attachment_id=held.id
        )
        await manager.detach_volume(ctx, volume_id=volume.id, attachment_id=held.id, volume=volume)
        where = f"server {held.instance_uuid} on {held.attached_host or 'no host yet'}"
        await self._said(ctx, volume, "VOLUME_FORCE_DETACHED", f"Force-detached from {where} while it was {volume.status}")
        return await self._parts.volumes.find(volume.id)

    async def reset_status(self, ctx: Context, volume: Volume, status: str) -> Volume:
        """Raises InvalidInput for a status that nobody can ask for; InvalidVolume when the rows or the backend do not bear it out."""
        if status not in {Status.AVAILABLE, Status.ERROR, Status.IN_USE}:
            raise InvalidInput(reason=f"status {status!r}; wanted: available, error or in-use")
        wanted = Status(status)
        await self._check_nobody_at_work(volume, wanted)
        match wanted:
            case Status.AVAILABLE:
                for held in volume.volume_attachment:
                    await self.force_detach(ctx, volume, held.id)
                await self._check_kept(ctx, volume)
                await self._parts.attachments.reset(volume.id, Event.RESET_AVAILABLE)
            case Status.ERROR:
                await self._parts.attachments.reset(volume.id, Event.RESET_ERROR)
            case Status.IN_USE if volume.status is Status.DETACHING and volume.volume_attachment:
                await self._parts.attachments.roll_detaching(volume.id, volume.volume_attachment[0].id)
            case Status.IN_USE:
                await self._parts.attachments.reset(volume.id, Event.RESET_IN_USE)
            case unknown:
                raise AssertionError(unknown)
        if volume.status is not wanted:
            await self._said(ctx, volume, "VOLUME_RESET", f"Reset from {volume.status} to {wanted}")
        return await self._parts.volumes.find(volume.id)

    async def _check_nobody_at_work(self, volume: Volume, wanted: Status) -> None:
        """A flow shows its outcome in the volume's status a moment before it ends; one that goes on is at work."""
        for _ in range(_LOOKS):
            running = await self._parts.journal.list(flows.c.subject == f"volume:{volume.id}", flows.c.state == RUNNING)
            if not running:
                return
            await self._parts.clock.sleep(_LOOK_AGAIN_S)
        raise InvalidVolume(
            reason=f"Volume {volume.label} is {volume.status} and was to be reset to {wanted}, but flow {running[0].id} "
            f"is at work on it. {_WHERE.format(volume=volume.id)}"
        )

    async def _check_kept(self, ctx: Context, volume: Volume) -> None:
        """The backend has its bytes, and exports them to nobody."""
        if volume.host is None:
            raise InvalidVolume(reason=f"Volume {volume.label} is {volume.status} and was never placed on a backend; delete it.")
        backend = volume.host.partition("#")[0]
        report: BackendReport = await self._parts.inventory.on(backend).inventory(ctx)
        if volume.name not in report.volumes:
            raise InvalidVolume(
                reason=f"Volume {volume.label} is {volume.status}, and {backend} does not keep {volume.name}; restore it, or delete the volume."
            )
        if any(export.volume_id == volume.id for export in report.exports.values()):
            raise InvalidVolume(
                reason=f"Volume {volume.label} is {volume.status} and {backend} still exports it; its cinder-volume removes that export "
                f"by itself, or at once by `lite doctor --fix`. {_WHERE.format(volume=volume.id)}"
            )

    async def _said(self, ctx: Context, volume: Volume, event_id: str, words: str) -> None:
        by = f" (by {ctx.user_id})" if ctx.user_id else ""
        await self._parts.volumes.add_message(volume.id, event_id=event_id, user_message=words + by, request_id=ctx.request_id)


def _chosen(volume: Volume, attachment_id: str | None) -> VolumeAttachment:
    held = [row for row in volume.volume_attachment if row.attach_status is not AttachStatus.DETACHED]
    found = [row for row in held if attachment_id in (None, row.id)]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(row.id for row in held) or "none"
    wanted = "one attachment" if attachment_id is None else f"attachment {attachment_id}"
    raise InvalidVolume(
        reason=f"Volume {volume.label} is {volume.status} and its attachments are: {shown}; wanted: {wanted}. "
        f"{_WHERE.format(volume=volume.id)}"
    )
