"""The rows of volumes, each with its live attachments; what is read to be shown has its latest messages too."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cinder_lite.contract import AttachStatus, Message, Volume, VolumeAttachment, VolumeStatus
from cinder_lite.domain.volume import VOLUME, Event, attach_status_of
from cinder_lite.errors import AmbiguousVolume, InvalidVolume, VolumeNotFound
from cinder_lite.store.tables import messages, snapshots, volume_attachment, volumes
from common.app.post import Writing
from common.base.clock import Clock
from common.base.errors import NotFound
from common.base.limits import LIST_ROWS_MAX
from common.db.cas import advance, has_made
from common.db.engine import Database
from common.db.errors import Duplicate
from common.db.model import live
from common.db.now import NOW

MESSAGES_SHOWN_MAX = 5
"""The latest messages of a volume that are shown with it."""

_RENAMED = {"volume_type": "volume_type_id"}
_JOINED = {"volume_attachment", "messages"}
_COLUMNS = {name: _RENAMED.get(name, name) for name in Volume.__struct_fields__ if name not in _JOINED}
"""Field of the struct: column of the table."""
_NAMES_SHOWN_MAX = 10
_OF_ATTACHMENT = "attachment_"

_VOLUMES = select(*(volumes.c[column] for column in _COLUMNS.values())).order_by(volumes.c.created_at.desc(), volumes.c.id.desc())
_LIVE = _VOLUMES.where(live(volumes))
_FOUND = _LIVE.where(or_(volumes.c.id == bindparam("word"), volumes.c.display_name == bindparam("word"))).limit(_NAMES_SHOWN_MAX)
_NAMED = _VOLUMES.where(
    or_(volumes.c.id == bindparam("word"), and_(volumes.c.display_name == bindparam("word"), live(volumes)))
).limit(_NAMES_SHOWN_MAX)
_ATTACHED = volumes.outerjoin(volume_attachment, and_(volume_attachment.c.volume_id == volumes.c.id, live(volume_attachment)))
_WITH_ATTACHMENTS = (
    select(
        *(volumes.c[column] for column in _COLUMNS.values()),
        *(volume_attachment.c[name].label(f"{_OF_ATTACHMENT}{name}") for name in VolumeAttachment.__struct_fields__),
    )
    .select_from(_ATTACHED)
    .where(volumes.c.id == bindparam("of_volume"))
    .order_by(volume_attachment.c.created_at, volume_attachment.c.id)
)
_LIVE_WITH_ATTACHMENTS = _WITH_ATTACHMENTS.where(live(volumes))
_ATTACHMENTS = (
    select(volume_attachment)
    .where(volume_attachment.c.volume_id.in_(bindparam("of_volumes", expanding=True)), live(volume_attachment))
    .order_by(volume_attachment.c.created_at, volume_attachment.c.id)
)
_RANK = func.row_number().over(partition_by=messages.c.resource_uuid, order_by=messages.c.id.desc()).label("rank_of_it")
_RANKED = (
    select(messages, _RANK).where(messages.c.resource_uuid.in_(bindparam("of_them", expanding=True)), live(messages)).subquery()
)
_MESSAGES = select(_RANKED).where(_RANKED.c.rank_of_it <= MESSAGES_SHOWN_MAX).order_by(_RANKED.c.id.desc())
_AUTH = select(volumes.c.provider_auth).where(volumes.c.id == bindparam("of_volume"), live(volumes))
_CHANGE = update(volumes).where(volumes.c.id == bindparam("of_volume"), live(volumes)).values(updated_at=NOW)
_PLACE = _CHANGE.where(volumes.c.host.is_(None)).values(scheduled_at=NOW)
_SAVE_AUTH = _CHANGE.where(volumes.c.provider_auth.is_(None))
_INSERT = insert(volumes)
_INSERT_NOW = _INSERT.values(created_at=NOW)


class Volumes:
    """Every method is one transaction; all raise what `Database.begin` raises. Only live rows are seen, but by `remembered`."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def create(self, volume: Volume, *, also: Writing | None = None) -> Volume:
        """The volume as stored, `created_at` filled in; `also` is written with it. There already: as it is now, and nothing is."""
        row = {column: getattr(volume, name) for name, column in _COLUMNS.items()}
        row |= {"status": str(volume.status), "attach_status": str(attach_status_of(volume.status) or volume.attach_status)}
        statement = _INSERT if row["created_at"] else _INSERT_NOW
        row = {name: value for name, value in row.items() if name != "created_at" or value}

        async def work(conn: AsyncConnection) -> Volume:
            await conn.execute(statement, row)
            if also is not None:
                await also(conn)
            return await _read(conn, volume.id)

        try:
            return await self._db.run(work)
        except Duplicate:
            async with self._db.begin(read_only=True) as conn:
                return await _read(conn, volume.id)

    async def get(self, volume_id: str) -> Volume:
        """Without its messages. Raises VolumeNotFound."""
        async with self._db.begin(read_only=True) as conn:
            return await _read(conn, volume_id, _LIVE_WITH_ATTACHMENTS)

    async def remembered(self, volume_id: str) -> Volume:
        """The volume, also when it is deleted; its status says so. Raises VolumeNotFound when there never was one."""
        async with self._db.begin(read_only=True) as conn:
            return await _read(conn, volume_id)

    async def find(self, name_or_id: str) -> Volume:
        """The volume of that id, or else of that name. Raises VolumeNotFound, AmbiguousVolume."""
        async with self._db.begin(read_only=True) as conn:
            found = await _volumes(conn, _FOUND, {"word": name_or_id})
        for volume in found:
            if volume.id == name_or_id:
                return volume
        if not found:
            raise VolumeNotFound(volume_id=name_or_id)
        if len(found) > 1:
            raise AmbiguousVolume(name=name_or_id, candidates=", ".join(volume.id for volume in found))
        return found[0]

    async def named(self, name_or_id: str) -> "list[Volume]":
        """Every live volume of that name, and the one of that id, which may be deleted; the newest first."""
        async with self._db.begin(read_only=True) as conn:
            return await _volumes(conn, _NAMED, {"word": name_or_id})

    async def list(self, host: str | None = None) -> list[Volume]:
        """Newest first. With `host` every volume of that host@backend, whatever its pool; else the newest LIST_ROWS_MAX."""
        async with self._db.begin(read_only=True) as conn:
            if host is None:
                return await _volumes(conn, _LIVE.limit(LIST_ROWS_MAX))
            here = or_(volumes.c.host == host, volumes.c.host.startswith(f"{host}#", autoescape=True))
            return await _volumes(conn, _LIVE.where(here))

    async def advance(self, volume_id: str, event: Event, *, also: Writing | None = None, **values: Any) -> Volume:
        """The volume after `event`, its attach_status with it; other columns are set in the same statement, `also` is written too.

        Sets `launched_at` at CREATED; DESTROYED soft-deletes the row. Raises VolumeNotFound, Conflict.
        """

        async def work(conn: AsyncConnection) -> Volume:
            await advance_volume(conn, volume_id, event, clock=self._clock, **values)
            if also is not None:
                await also(conn)
            return await _read(conn, volume_id)

        return await self._db.run(work)

    async def delete(self, volume_id: str, *, also: Writing) -> None:
        """deleting, and `also` is written. Raises VolumeNotFound, Conflict; InvalidVolume for a volume that has snapshots."""

        async def work(conn: AsyncConnection) -> None:
            await lock_volume(conn, volume_id)
            kept = select(snapshots.c.id).where(snapshots.c.volume_id == volume_id, live(snapshots)).order_by(snapshots.c.id)
            found = (await conn.execute(kept)).scalars().all()
            if found:
                raise InvalidVolume(
                    reason=f"Volume {volume_id} has snapshots: {', '.join(found[:_NAMES_SHOWN_MAX])}; delete them first."
                )
            await advance_volume(conn, volume_id, Event.DELETE, clock=self._clock)
            await also(conn)

        await self._db.run(work)

    async def extending_to(self, volume_id: str) -> int | None:
        """GiB that an extending volume is to have. Raises VolumeNotFound."""
        query = select(volumes.c.extend_new_size).where(volumes.c.id == volume_id, live(volumes))
        async with self._db.begin(read_only=True) as conn:
            row = (await conn.execute(query)).first()
        if row is None:
            raise VolumeNotFound(volume_id=volume_id)
        wanted: int | None = row.extend_new_size
        return wanted

    async def has_made(self, volume_id: str, event: Event) -> bool:
        """True when the running flow has made this event already, whatever came after it."""
        return await self._db.run(lambda conn: has_made(conn, volume_id, event), read_only=True)

    async def set_host(self, volume_id: str, host: str, *, also: Writing | None = None) -> bool:
        """True: from now on it is placed there, at host@backend#pool, and `also` is written. False: it had its place, or is gone."""
        place = {"of_volume": volume_id, "host": host}

        async def work(conn: AsyncConnection) -> bool:
            is_placed = bool((await conn.execute(_PLACE, place)).rowcount)
            if is_placed and also is not None:
                await also(conn)
            return is_placed

        return await self._db.run(work)

    async def save_export(self, volume_id: str, provider_location: str) -> None:
        """Raises VolumeNotFound."""
        await self._update(volume_id, provider_location=provider_location)

    async def clear_export(self, volume_id: str) -> None:
        """Forgets provider_location and provider_auth; the next export gets new credentials. Raises VolumeNotFound."""
        await self._update(volume_id, provider_location=None, provider_auth=None)

    async def provider_auth(self, volume_id: str) -> str | None:
        """ "CHAP <username> <password>", or None. Raises VolumeNotFound."""
        async with self._db.begin(read_only=True) as conn:
            return await _provider_auth(conn, volume_id)

    async def save_auth(self, volume_id: str, provider_auth: str) -> str:
        """The credentials that count: these, unless there were others before. Raises VolumeNotFound."""
        change = {"of_volume": volume_id, "provider_auth": provider_auth}

        async def work(conn: AsyncConnection) -> str:
            await conn.execute(_SAVE_AUTH, change)
            stored = await _provider_auth(conn, volume_id)
            assert stored is not None
            return stored

        return await self._db.run(work)

    async def add_message(self, volume_id: str, event_id: str, user_message: str, request_id: str | None = None) -> None:
        """Remembers why something failed, for `find`, `named` and `list` to show."""
        await self._db.run(self.saying(volume_id, event_id, user_message, request_id))

    def saying(self, volume_id: str, event_id: str, user_message: str, request_id: str | None = None) -> Writing:
        """`add_message` within a transaction of another's: whoever sees the status then finds the reason with it."""
        said = {"event_id": event_id, "user_message": user_message, "request_id": request_id}
        return stored_message("VOLUME", volume_id, clock=self._clock, **said)

    async def _update(self, volume_id: str, **values: object) -> None:
        change = {"of_volume": volume_id, **values}
        if not (await self._db.execute(_CHANGE, change)).rowcount:
            raise VolumeNotFound(volume_id=volume_id)


def stored_message(kind: str, resource_id: str, *, clock: Clock, **said: object) -> Writing:
    """Writes a row of messages. `said`: event_id, user_message, request_id."""
    row = {"resource_type": kind, "resource_uuid": resource_id, "message_level": "ERROR", **said}
    stored = insert(messages).values(**row, created_at=clock.utcnow())

    async def write(conn: AsyncConnection) -> None:
        await conn.execute(stored)

    return write


async def lock_volume(conn: AsyncConnection, volume_id: str) -> VolumeStatus:
    """The volume's status, which nobody else changes until the transaction ends. Raises VolumeNotFound."""
    query = select(volumes.c.status).where(volumes.c.id == volume_id, live(volumes)).with_for_update()
    row = (await conn.execute(query)).first()
    if row is None:
        raise VolumeNotFound(volume_id=volume_id)
    return VolumeStatus(row.status)


async def advance_volume(conn: AsyncConnection, volume_id: str, event: Event, *, clock: Clock, **values: object) -> None:
    """`Volumes.advance` within a transaction of the caller's. Raises VolumeNotFound, Conflict."""
    attach_status = attach_status_of(VOLUME.target(event))
    extra: dict[str, object] = {} if attach_status is None else {"attach_status": str(attach_status)}
    if event is Event.CREATED:
        extra |= {"launched_at": NOW}
    elif event is Event.DESTROYED:
        extra |= {"terminated_at": NOW, "deleted_at": NOW, "deleted": True, "provider_auth": None}
    try:
        await advance(
            conn, volumes, VOLUME, event, kind="Volume", key={"id": volume_id}, values={**extra, **values}, clock=clock
        )  # fmt: skip
    except NotFound as exc:
        raise VolumeNotFound(volume_id=volume_id) from exc


def attachment_of(row: Row[Any], prefix: str = "") -> VolumeAttachment:
    """A row that holds at least the struct's columns, their names behind `prefix`."""
    stored = {name: row._mapping[f"{prefix}{name}"] for name in VolumeAttachment.__struct_fields__}
    return VolumeAttachment(**{**stored, "attach_status": AttachStatus(stored["attach_status"])})


async def _read(conn: AsyncConnection, volume_id: str, query: Select[Any] = _WITH_ATTACHMENTS) -> Volume:
    """In one statement, since most of what is read is read to act on it: without messages."""
    rows = (await conn.execute(query, {"of_volume": volume_id})).all()
    if not rows:
        raise VolumeNotFound(volume_id=volume_id)
    held = (attachment_of(row, _OF_ATTACHMENT) for row in rows if row._mapping[f"{_OF_ATTACHMENT}id"] is not None)
    return _volume(rows[0], tuple(held), ())


async def _volumes(conn: AsyncConnection, query: Select[Any], parameters: Mapping[str, Any] | None = None) -> list[Volume]:
    """Newest first."""
    rows = (await conn.execute(query, parameters)).all()
    ids = [row.id for row in rows]
    attachments, said = await _attachments(conn, ids), await messages_of(conn, ids)
    return [_volume(row, attachments.get(row.id, ()), said.get(row.id, ())) for row in rows]


async def _attachments(conn: AsyncConnection, volume_ids: Sequence[str]) -> dict[str, tuple[VolumeAttachment, ...]]:
    """The live ones, oldest first."""
    found: dict[str, tuple[VolumeAttachment, ...]] = {}
    for row in await conn.execute(_ATTACHMENTS, {"of_volumes": volume_ids}):
        found[row.volume_id] = (*found.get(row.volume_id, ()), attachment_of(row))
    return found


async def messages_of(conn: AsyncConnection, ids: Sequence[str]) -> dict[str, tuple[Message, ...]]:
    """The latest MESSAGES_SHOWN_MAX of each volume or snapshot, newest first."""
    found: dict[str, tuple[Message, ...]] = {}
    for row in await conn.execute(_MESSAGES, {"of_them": ids}):
        message = Message(**{name: row._mapping[name] for name in Message.__struct_fields__})
        found[row.resource_uuid] = (*found.get(row.resource_uuid, ()), message)
    return found


async def _provider_auth(conn: AsyncConnection, volume_id: str) -> str | None:
    row = (await conn.execute(_AUTH, {"of_volume": volume_id})).first()
    if row is None:
        raise VolumeNotFound(volume_id=volume_id)
    stored: str | None = row.provider_auth
    return stored


def _volume(row: Row[Any], attachments: tuple[VolumeAttachment, ...], said: tuple[Message, ...]) -> Volume:
    stored = {name: row._mapping[column] for name, column in _COLUMNS.items()}
    stored["status"] = VolumeStatus(stored["status"])
    stored["attach_status"] = AttachStatus(stored["attach_status"])
    return Volume(**stored, volume_attachment=attachments, messages=said)
