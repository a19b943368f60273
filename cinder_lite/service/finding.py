"""What an operator means by a word, as far as it is cinder's: a volume."""

from cinder_lite.contract import SchedulerAPI, Volume, VolumeAPI, VolumeAttachment, VolumeManagerAPI
from cinder_lite.store.volumes import Volumes
from common.app.service import Found
from common.base.clock import Clock
from common.db.engine import Database
from common.wire.address import routing_key

_KIND = "volume:"


async def find(database: Database, clock: Clock, word: str) -> list[Found]:
    """The volumes of that name, id, or subject "volume:<id>"."""
    return [_found(volume) for volume in await Volumes(database, clock).named(word.removeprefix(_KIND))]


def _found(volume: Volume) -> Found:
    latest = volume.messages[0] if volume.messages else None
    return Found(
        subject=f"{_KIND}{volume.id}",
        name=volume.display_name or "",
        state={
            "status": volume.status,
            "host": volume.host,
            "attachments": [_attachment(row) for row in volume.volume_attachment],
            "last_fault": None if latest is None else f"{latest.user_message} ({latest.created_at}, {latest.request_id})",
        },
        related=tuple(f"server:{row.instance_uuid}" for row in volume.volume_attachment if row.instance_uuid),
        queues=(*_of_backend(volume), routing_key(VolumeAPI.__rpc_route__.topic, None)),
    )


def _attachment(row: VolumeAttachment) -> str:
    return f"{row.attach_status} to server {row.instance_uuid} on {row.attached_host or 'no host yet'} as {row.mountpoint or 'a disk to be'}"


def _of_backend(volume: Volume) -> tuple[str, ...]:
    """Those of the cinder-volume that keeps it; before it is placed, the scheduler's."""
    backend = (volume.host or "").partition("#")[0]
    if not backend:
        return (routing_key(SchedulerAPI.__rpc_route__.topic, None),)
    topic = VolumeManagerAPI.__rpc_route__.topic
    return routing_key(topic, backend), routing_key(f"{topic}.{backend}", backend.partition("@")[0])
