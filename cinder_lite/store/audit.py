"""The rows that cinder's audit looks at, as they stand: a word that no table of states knows is read as well."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from cinder_lite.domain.audit import AttachmentFact, SnapshotFact, VolumeFact
from cinder_lite.store.tables import snapshots, volume_attachment as attachments, volumes
from common.db.engine import Database
from common.db.model import live

IsOld = Callable[[datetime | None], bool]
_CONNECTOR_NAMES = ("initiator", "host")
"""What a target may know a connector by. Nothing else of it is read here."""


async def audited_rows(db: Database, is_old: IsOld) -> tuple[tuple[VolumeFact, ...], tuple[AttachmentFact, ...], tuple[str, ...]]:
    """Every live volume with its live attachments; live attachments without a live volume; deleted volumes that keep credentials."""
    kept = select(volumes.c.id).where(~live(volumes), volumes.c.provider_auth.is_not(None))
    async with db.begin(read_only=True) as conn:
        rows = (await conn.execute(select(volumes).where(live(volumes)).order_by(volumes.c.id))).all()
        held = (await conn.execute(select(attachments).where(live(attachments)).order_by(attachments.c.id))).all()
        secrets = (await conn.execute(kept.order_by(volumes.c.id))).scalars().all()
    of_volume: dict[str, tuple[AttachmentFact, ...]] = {}
    for row in held:
        of_volume[row.volume_id] = (*of_volume.get(row.volume_id, ()), _attachment(row))
    found = tuple(_volume(row, of_volume.pop(row.id, ()), is_old) for row in rows)
    return found, tuple(attachment for left in of_volume.values() for attachment in left), tuple(secrets)


async def audited_snapshots(db: Database, is_old: IsOld) -> tuple[SnapshotFact, ...]:
    """Every live snapshot, with the place of its volume, which may be deleted."""
    query = select(snapshots, volumes.c.host).join(volumes, volumes.c.id == snapshots.c.volume_id).where(live(snapshots))
    async with db.begin(read_only=True) as conn:
        rows = (await conn.execute(query.order_by(snapshots.c.id))).all()
    return tuple(
        SnapshotFact(
            id=row.id,
            volume_id=row.volume_id,
            status=row.status,
            backend=row.host.partition("#")[0] if row.host else None,
            is_old=is_old(row.updated_at or row.created_at),
        )
        for row in rows
    )


def _volume(row: Row[Any], held: tuple[AttachmentFact, ...], is_old: IsOld) -> VolumeFact:
    return VolumeFact(
        id=row.id,
        status=row.status,
        attach_status=row.attach_status,
        size=row.size,
        host=row.host,
        is_old=is_old(row.updated_at or row.created_at),
        multiattach=bool(row.multiattach),
        provider_location=row.provider_location,
        has_auth=row.provider_auth is not None,
        attachments=held,
    )


def _attachment(row: Row[Any]) -> AttachmentFact:
    connector = row.connector if isinstance(row.connector, dict) else {}
    return AttachmentFact(
        id=row.id,
        volume_id=row.volume_id,
        status=row.attach_status,
        instance_uuid=row.instance_uuid,
        attached_host=row.attached_host,
        who=frozenset(str(connector[name]) for name in _CONNECTOR_NAMES if connector.get(name)),
    )
