"""What the flows of cinder act on. `wiring` fills these in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cinder_lite.contract import Volume, VolumeManagerAPI
from cinder_lite.domain.volume import VOLUME, Event
from cinder_lite.errors import VolumeNotFound
from cinder_lite.ports.driver import VolumeDriver
from cinder_lite.ports.target import Export, Target
from cinder_lite.store.volume_attachment import VolumeAttachments
from cinder_lite.store.volumes import Volumes
from cinder_lite.targets.iscsi_names import parse_provider_auth
from common.base.errors import Conflict


@dataclass(frozen=True, slots=True)
class BackendParts:
    """One backend's. `host` is host@backend."""

    host: str
    volumes: Volumes
    attachments: VolumeAttachments
    driver: VolumeDriver
    target: Target

    async def require(self, attachment_id: str | None) -> None:
        """Returns while something may be exported for the attachment. Raises VolumeAttachmentNotFound once it is over."""
        if attachment_id is not None:
            await self.attachments.get(attachment_id)

    async def is_over(self, attachment_id: str | None) -> bool:
        """True once the attachment is over: what is exported now is another's."""
        return attachment_id is not None and not await self.attachments.is_live(attachment_id)

    async def holders_of(self, volume: Volume) -> Mapping[str, Mapping[str, Any]]:
        """The live attachments that an export is for: attachment id -> stored connector."""
        found = {held.id: await self.attachments.stored_connector(held.id) for held in volume.volume_attachment}
        return {attachment_id: connector for attachment_id, connector in found.items() if connector is not None}

    async def export_of(self, volume: Volume) -> Export:
        """The volume as it is, or is to be, exported: its path and the credentials of its row."""
        chap = parse_provider_auth(await self.volumes.provider_auth(volume.id))
        return Export(volume=volume, path=self.driver.local_path(volume), chap=chap)


def manager_of(client: VolumeManagerAPI, volume: Volume) -> VolumeManagerAPI:
    """The cinder-volume service that keeps a volume: topic cinder-volume.<host>@<backend>, server <host> (oslo-wire 6)."""
    backend = (volume.host or "").split("#", maxsplit=1)[0]
    if not backend:
        raise VolumeNotFound(f"Volume {volume.id} has no backend: it was never placed", volume_id=volume.id)
    return client.on(backend.split("@", maxsplit=1)[0], topic=f"cinder-volume.{backend}")


async def advance_once(volumes: Volumes, volume_id: str, event: Event) -> None:
    """Advance a volume's status; where that was done by an earlier try of the same step, nothing happens.

    Others may have gone on from there meanwhile, so the status can be another one by now.
    """
    try:
        await volumes.advance(volume_id, event)
    except Conflict:
        if await volumes.has_made(volume_id, event):
            return
        if (await volumes.get(volume_id)).status is not VOLUME.target(event):
            raise
    except VolumeNotFound:
        if event is not Event.DESTROYED:
            raise
