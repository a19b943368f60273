"""What the flows of cinder act on. `wiring` fills these in."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cinder_lite.contract import ServerEventsAPI, Volume, VolumeManagerAPI
from cinder_lite.domain.snapshot import SNAPSHOT, Event as SnapshotEvent
from cinder_lite.domain.volume import VOLUME, Event
from cinder_lite.errors import SnapshotNotFound, VolumeNotFound
from cinder_lite.ports.driver import VolumeDriver
from cinder_lite.ports.target import Export, Target
from cinder_lite.store.snapshots import Snapshots
from cinder_lite.store.volume_attachment import VolumeAttachments
from cinder_lite.store.volumes import Volumes
from cinder_lite.targets.iscsi_names import parse_provider_auth
from common.app.post import Post, Writing
from common.base.errors import Conflict
from common.host.locks import KeyedLocks


@dataclass(frozen=True, slots=True)
class BackendParts:
    """One backend's. `host` is host@backend; `servers` sends by `post`."""

    host: str
    volumes: Volumes
    attachments: VolumeAttachments
    snapshots: Snapshots
    driver: VolumeDriver
    target: Target
    servers: ServerEventsAPI
    post: Post
    _storage: KeyedLocks = field(default_factory=KeyedLocks)

    @asynccontextmanager
    async def alone_with(self, volume_id: str) -> AsyncIterator[None]:
        """Inside, nobody else asks the driver for anything about that volume, its snapshots and what is made of it.

        The flows of one volume come one after another anyway; the flow of a volume that is made of it does not know that line.
        """
        async with self._storage.hold(volume_id):
            yield

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


async def advance_once(volumes: Volumes, volume_id: str, event: Event, *, also: Writing | None = None) -> None:
    """Advance a volume's status, and write `also`; where that was done by an earlier try of the same step, nothing happens.

    Others may have gone on from there meanwhile, so the status can be another one by now, or the volume gone.
    """
    try:
        await volumes.advance(volume_id, event, also=also)
    except Conflict:
        if await volumes.has_made(volume_id, event):
            return
        if (await volumes.get(volume_id)).status is not VOLUME.target(event):
            raise
    except VolumeNotFound:
        if event is not Event.DESTROYED and not await volumes.has_made(volume_id, event):
            raise


async def advance_snapshot_once(snapshots: Snapshots, snapshot_id: str, event: SnapshotEvent) -> None:
    """`advance_once` for a snapshot."""
    try:
        await snapshots.advance(snapshot_id, event)
    except Conflict:
        if await snapshots.has_made(snapshot_id, event):
            return
        if (await snapshots.get(snapshot_id)).status is not SNAPSHOT.target(event):
            raise
    except SnapshotNotFound:
        if event is not SnapshotEvent.DESTROYED and not await snapshots.has_made(snapshot_id, event):
            raise
