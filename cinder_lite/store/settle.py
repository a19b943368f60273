"""The rows that a backend's reconciler compares with what is there, and those that the scheduler has not placed."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Double, Row, and_, bindparam, func, or_, select

from cinder_lite.domain.settle import AttachmentFact, SnapshotFact, VolumeFact
from cinder_lite.store.tables import snapshots, volume_attachment as attachments, volumes
from common.base.limits import RECONCILE_ACTIONS_MAX, RECONCILE_GRACE_S
from common.base.settling import Busy
from common.db.busy import busy, time_of
from common.db.engine import Database
from common.db.model import live
from common.db.now import database_time

_CONNECTOR_NAMES = ("initiator", "host")
"""What a target may know a connector by. Nothing else of it is read here."""
_CREATING = "creating"
_LOST = (
    select(volumes.c.id)
    .where(
        live(volumes),
        volumes.c.status == _CREATING,
        volumes.c.host.is_(None),
        func.coalesce(volumes.c.updated_at, volumes.c.created_at) < database_time(bindparam("plus_s", type_=Double())),
    )
    .order_by(volumes.c.created_at)
    .limit(RECONCILE_ACTIONS_MAX)
)


@dataclass(frozen=True, slots=True)
class Rows:
    """One moment: `volumes` by id, and who was at work on what."""

    now: datetime
    volumes: dict[str, VolumeFact]
    snapshots: tuple[SnapshotFact, ...]
    busy: Busy


async def settled_rows(db: Database, host: str, seen: Collection[str], seen_snapshots: Collection[str] = ()) -> Rows:
    """The live rows of host@backend, and of the ids `seen` there also the deleted ones."""
    here = or_(volumes.c.host == host, volumes.c.host.startswith(f"{host}#", autoescape=True))
    wanted = and_(here, or_(live(volumes), volumes.c.id.in_(sorted(seen))))
    held = select(attachments).join(volumes, volumes.c.id == attachments.c.volume_id).where(here, live(attachments))
    known = or_(live(snapshots), snapshots.c.id.in_(sorted(seen_snapshots)))
    taken = select(snapshots).join(volumes, volumes.c.id == snapshots.c.volume_id).where(here, known)
    async with db.begin(read_only=True) as conn:
        found = (await conn.execute(select(volumes).where(wanted).order_by(volumes.c.id))).all()
        rows = (await conn.execute(held.order_by(attachments.c.id))).all()
        kept = (await conn.execute(taken.order_by(snapshots.c.id))).all()
        now, at_work = await time_of(conn), await busy(conn)
    of_volume: dict[str, tuple[AttachmentFact, ...]] = {}
    for row in rows:
        of_volume[row.volume_id] = (*of_volume.get(row.volume_id, ()), _attachment(row))
    return Rows(
        now, {row.id: _volume(row, of_volume.get(row.id, ())) for row in found}, tuple(map(_snapshot, kept)), at_work
    )  # fmt: skip


async def unplaced(db: Database) -> list[str]:
    """Ids of volumes that are creating for longer than RECONCILE_GRACE_S, have no place, and nobody is at work on; oldest first."""
    async with db.begin(read_only=True) as conn:
        ids = (await conn.execute(_LOST, {"plus_s": -RECONCILE_GRACE_S})).scalars().all()
        at_work = await busy(conn) if ids else Busy()
    return [volume_id for volume_id in ids if volume_id not in at_work]


def _volume(row: Row[tuple[object, ...]], held: tuple[AttachmentFact, ...]) -> VolumeFact:
    return VolumeFact(
        id=row.id,
        status=row.status,
        changed_at=row.deleted_at or row.updated_at or row.created_at,
        is_deleted=bool(row.deleted),
        multiattach=bool(row.multiattach),
        provider_location=row.provider_location,
        has_auth=row.provider_auth is not None,
        attachments=held,
    )


def _snapshot(row: Row[tuple[object, ...]]) -> SnapshotFact:
    return SnapshotFact(
        id=row.id,
        volume_id=row.volume_id,
        status=row.status,
        changed_at=row.deleted_at or row.updated_at or row.created_at,
        is_deleted=bool(row.deleted),
    )


def _attachment(row: Row[tuple[object, ...]]) -> AttachmentFact:
    connector = row.connector if isinstance(row.connector, dict) else {}
    return AttachmentFact(id=row.id, who=frozenset(str(connector[name]) for name in _CONNECTOR_NAMES if connector.get(name)))
