"""The rows of snapshots, each with its latest messages.

A snapshot is entered, and a volume deleted, in a transaction that first locks the volume's row: neither comes between the other's look
and its act.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cinder_lite.contract import Message, Snapshot, SnapshotStatus
from cinder_lite.domain.snapshot import SNAPSHOT, Event
from cinder_lite.domain.volume import EXTENDABLE
from cinder_lite.errors import AmbiguousSnapshot, InvalidVolume, SnapshotNotFound
from cinder_lite.store.tables import snapshots
from cinder_lite.store.volumes import lock_volume, messages_of, stored_message
from common.app.post import Writing
from common.base.clock import Clock
from common.base.errors import NotFound
from common.base.limits import LIST_ROWS_MAX
from common.db.cas import advance, has_made
from common.db.engine import Database
from common.db.errors import Duplicate
from common.db.model import live

_COLUMNS = [name for name in Snapshot.__struct_fields__ if name != "messages"]
_NAMES_SHOWN_MAX = 10
_WHOLE = "100%"


class Snapshots:
    """Every method is one transaction; all raise what `Database.begin` raises. Only live rows are seen, but by `remembered`."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def create(self, snapshot: Snapshot, *, also: Writing) -> Snapshot:
        """The snapshot as stored, `created_at` filled in; `also` is written with it. There already: as it is now, and nothing is.

        Raises VolumeNotFound; InvalidVolume when the volume is neither available nor in use.
        """
        row = {name: getattr(snapshot, name) for name in _COLUMNS}
        row |= {"status": str(snapshot.status), "created_at": snapshot.created_at or self._clock.utcnow()}

        async def work(conn: AsyncConnection) -> Snapshot:
            status = await lock_volume(conn, snapshot.volume_id)
            if status not in EXTENDABLE:
                wanted = " or ".join(sorted(EXTENDABLE))
                raise InvalidVolume(reason=f"Volume status must be {wanted} to snapshot, but the status is {status}.")
            await conn.execute(insert(snapshots).values(row))
            await also(conn)
            return await _read(conn, snapshot.id)

        try:
            return await self._db.run(work)
        except (Duplicate, InvalidVolume):
            async with self._db.begin(read_only=True) as conn:
                found = await _snapshots(conn, snapshots.c.id == snapshot.id)
            if not found:
                raise
            return found[0]

    async def get(self, snapshot_id: str) -> Snapshot:
        """Raises SnapshotNotFound."""
        async with self._db.begin(read_only=True) as conn:
            return await _read(conn, snapshot_id, live(snapshots))

    async def remembered(self, snapshot_id: str) -> Snapshot:
        """The snapshot, also when it is deleted; its status says so. Raises SnapshotNotFound when there never was one."""
        async with self._db.begin(read_only=True) as conn:
            return await _read(conn, snapshot_id)

    async def find(self, name_or_id: str) -> Snapshot:
        """The snapshot of that id, or else of that name. Raises SnapshotNotFound, AmbiguousSnapshot."""
        named = or_(snapshots.c.id == name_or_id, snapshots.c.display_name == name_or_id)
        async with self._db.begin(read_only=True) as conn:
            found = await _snapshots(conn, and_(live(snapshots), named), limit=_NAMES_SHOWN_MAX)
        for snapshot in found:
            if snapshot.id == name_or_id:
                return snapshot
        if not found:
            raise SnapshotNotFound(snapshot_id=name_or_id)
        if len(found) > 1:
            raise AmbiguousSnapshot(name=name_or_id, candidates=", ".join(snapshot.id for snapshot in found))
        return found[0]

    async def list(self) -> list[Snapshot]:
        """The newest LIST_ROWS_MAX, newest first."""
        async with self._db.begin(read_only=True) as conn:
            return await _snapshots(conn, live(snapshots), limit=LIST_ROWS_MAX)

    async def advance(self, snapshot_id: str, event: Event, *, also: Writing | None = None) -> None:
        """`also` is written too. CREATED makes its progress whole, DESTROYED soft-deletes the row. Raises SnapshotNotFound, Conflict."""
        values: dict[str, object] = {}
        if event is Event.CREATED:
            values = {"progress": _WHOLE}
        elif event is Event.DESTROYED:
            values = {"deleted": True, "deleted_at": self._clock.utcnow()}

        async def work(conn: AsyncConnection) -> None:
            try:
                await advance(
                    conn, snapshots, SNAPSHOT, event, kind="Snapshot", key={"id": snapshot_id}, values=values, clock=self._clock
                )  # fmt: skip
            except NotFound as exc:
                raise SnapshotNotFound(snapshot_id=snapshot_id) from exc
            if also is not None:
                await also(conn)

        await self._db.run(work)

    async def has_made(self, snapshot_id: str, event: Event) -> bool:
        """True when the running flow has made this event already, whatever came after it."""
        return await self._db.run(lambda conn: has_made(conn, snapshot_id, event), read_only=True)

    async def add_message(self, snapshot_id: str, event_id: str, user_message: str, request_id: str | None = None) -> None:
        """Remembers why something failed, for `get`, `find` and `list` to show."""
        said = {"event_id": event_id, "user_message": user_message, "request_id": request_id}
        await self._db.run(stored_message("VOLUME_SNAPSHOT", snapshot_id, clock=self._clock, **said))


async def _read(conn: AsyncConnection, snapshot_id: str, *where: ColumnElement[bool]) -> Snapshot:
    found = await _snapshots(conn, snapshots.c.id == snapshot_id, *where)
    if not found:
        raise SnapshotNotFound(snapshot_id=snapshot_id)
    return found[0]


async def _snapshots(conn: AsyncConnection, *where: ColumnElement[bool], limit: int | None = None) -> list[Snapshot]:
    query = select(*(snapshots.c[name] for name in _COLUMNS)).where(*where)
    rows = (await conn.execute(query.order_by(snapshots.c.created_at.desc(), snapshots.c.id.desc()).limit(limit))).all()
    said = await messages_of(conn, [row.id for row in rows])
    return [_snapshot(row, said.get(row.id, ())) for row in rows]


def _snapshot(row: Row[Any], said: Sequence[Message]) -> Snapshot:
    stored = dict(row._mapping)
    return Snapshot(**{**stored, "status": SnapshotStatus(stored["status"])}, messages=tuple(said))
