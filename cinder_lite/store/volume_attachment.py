"""The rows of volume_attachment, moved together with their volume.

Each method is one transaction that first locks the volume's row, so that whatever happens to one volume happens in a line.
The attachment's id is the fencing token: a request whose attachment was deleted meanwhile is refused or has no effect.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cinder_lite.contract import AttachStatus, VolumeAttachment, VolumeStatus
from cinder_lite.domain.attachment import ATTACHMENT, Event
from cinder_lite.domain.volume import VOLUME, Event as VolumeEvent
from cinder_lite.errors import InvalidVolume, VolumeAttachmentNotFound, VolumeInUse, VolumeNotFound
from cinder_lite.store.tables import volume_attachment as attachments, volumes
from cinder_lite.store.volumes import advance_volume, attachment_of, lock_volume
from common.base.clock import Clock
from common.base.errors import Conflict, NotFound
from common.db.cas import advance, began
from common.db.engine import Database
from common.db.model import live

_ALL = select(attachments)
_OF_VOLUME = _ALL.where(attachments.c.volume_id == bindparam("of_volume"), live(attachments))
_ONE = _ALL.where(attachments.c.id == bindparam("of_attachment"), live(attachments))
_ONE_OF_VOLUME = _ONE.where(attachments.c.volume_id == bindparam("of_volume"))
_EVER = select(attachments.c.id).where(attachments.c.id == bindparam("of_attachment"))
_CONNECTOR = select(attachments.c.connector).where(attachments.c.id == bindparam("of_attachment"))
_LOCK = select(volumes.c.status).where(volumes.c.id == bindparam("of_volume"), live(volumes)).with_for_update()
_INSERT = insert(attachments)


class VolumeAttachments:
    """Every method is one transaction; all raise what `Database.begin` raises."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def get(self, attachment_id: str) -> VolumeAttachment:
        """The live attachment. Raises VolumeAttachmentNotFound."""
        async with self._db.begin(read_only=True) as conn:
            return _must(await _find(conn, attachment_id), attachment_id)

    async def is_live(self, attachment_id: str) -> bool:
        """True until the attachment is over. What is exported for it may be taken away only while it lives: later it is another's."""
        async with self._db.begin(read_only=True) as conn:
            return await _find(conn, attachment_id) is not None

    async def stored_connector(self, attachment_id: str) -> dict[str, Any] | None:
        """The connector that `connecting` saved, also of a detached attachment; None when there is none."""
        async with self._db.begin(read_only=True) as conn:
            connector: dict[str, Any] | None = (
                await conn.execute(_CONNECTOR, {"of_attachment": attachment_id})
            ).scalar_one_or_none()
        return connector

    async def reserve(self, volume_id: str, attachment_id: str, instance_uuid: str) -> VolumeAttachment:
        """available -> attaching, and the attachment's row. The same attachment again: the same row.

        Raises VolumeNotFound; VolumeInUse when another attachment holds the volume; InvalidVolume when it is not available
        for another reason; VolumeAttachmentNotFound when this attachment was unreserved or detached before.
        """

        async def work(conn: AsyncConnection) -> VolumeAttachment:
            status = await lock_volume(conn, volume_id)
            if await _was_used(conn, attachment_id):
                return _must(await _find(conn, attachment_id, volume_id), attachment_id)
            if not VOLUME.allows(status, VolumeEvent.RESERVE):
                await _refuse_reserve(conn, volume_id, status)
            await advance_volume(conn, volume_id, VolumeEvent.RESERVE, clock=self._clock)
            await conn.execute(_INSERT, self._new(volume_id, attachment_id, instance_uuid=instance_uuid))
            return _must(await _find(conn, attachment_id), attachment_id)

        return await self._db.run(work)

    async def unreserve(self, volume_id: str, attachment_id: str) -> None:
        """attaching -> available, and the attachment's row goes; nothing else when this attachment does not hold the volume.

        One that is not known yet is entered as gone, so that its `reserve`, overtaken on the way, is refused.
        """

        async def work(conn: AsyncConnection) -> None:
            try:
                status = await lock_volume(conn, volume_id)
            except VolumeNotFound:
                return
            if not await _was_used(conn, attachment_id):
                gone = {"attach_status": str(AttachStatus.DETACHED), "deleted": True, "deleted_at": self._clock.utcnow()}
                await conn.execute(_INSERT, {**self._new(volume_id, attachment_id), **gone})
                return
            found = await _find(conn, attachment_id, volume_id)
            if found is not None and VOLUME.allows(status, VolumeEvent.UNRESERVE):
                await self._bury(conn, attachment_id)
                await advance_volume(conn, volume_id, VolumeEvent.UNRESERVE, clock=self._clock)

        await self._db.run(work)

    async def connecting(self, attachment_id: str, connector: Mapping[str, Any]) -> VolumeAttachment:
        """Saves the connector: the intent, before anything is exported. `connector` must be JSON.

        Raises VolumeAttachmentNotFound when the attachment is gone; Conflict when it is attached or detaching.
        """
        values = {"connector": dict(connector), "attached_host": connector.get("host")}

        async def work(conn: AsyncConnection) -> VolumeAttachment:
            known = _must(await _find(conn, attachment_id), attachment_id)
            await lock_volume(conn, known.volume_id)
            await self._advance(conn, attachment_id, Event.CONNECT, **values)
            return _must(await _find(conn, attachment_id), attachment_id)

        return await self._db.run(work)

    async def attached(
        self, volume_id: str, attachment_id: str, *, instance_uuid: str | None, host_name: str | None, mountpoint: str, mode: str
    ) -> VolumeAttachment:
        """attaching -> in-use, and the attachment is attached. Attached already: the same row.

        host_name   None: the host of the connector stays
        Raises VolumeNotFound, VolumeAttachmentNotFound, InvalidVolume, Conflict.
        """
        now = self._clock.utcnow()
        values: dict[str, object] = {"mountpoint": mountpoint, "attach_mode": mode, "attach_time": now}
        values |= {"instance_uuid": instance_uuid} if instance_uuid is not None else {}
        values |= {"attached_host": host_name} if host_name is not None else {}

        async def work(conn: AsyncConnection) -> VolumeAttachment:
            status = await lock_volume(conn, volume_id)
            found = _must(await _find(conn, attachment_id, volume_id), attachment_id)
            if found.attach_status is AttachStatus.ATTACHED and status is VolumeStatus.IN_USE:
                return found
            await self._advance_volume(conn, volume_id, VolumeEvent.ATTACHED, "attach")
            await self._advance(conn, attachment_id, Event.ATTACHED, **values)
            return _must(await _find(conn, attachment_id), attachment_id)

        return await self._db.run(work)

    async def begin_detaching(self, volume_id: str, attachment_id: str) -> None:
        """in-use -> detaching, both rows. The same flow's step again: nothing happens.

        Raises VolumeNotFound; InvalidVolume when the volume is not in-use; VolumeAttachmentNotFound when it is, but not by
        this attachment.
        """

        async def work(conn: AsyncConnection) -> None:
            if await lock_volume(conn, volume_id) is VolumeStatus.DETACHING and await began(
                conn, volume_id, VolumeEvent.BEGIN_DETACHING
            ):
                return
            await self._advance_volume(conn, volume_id, VolumeEvent.BEGIN_DETACHING, "begin detaching")
            _must(await _find(conn, attachment_id, volume_id), attachment_id)
            await self._advance(conn, attachment_id, Event.BEGIN_DETACHING)

        await self._db.run(work)

    async def roll_detaching(self, volume_id: str, attachment_id: str) -> None:
        """detaching -> in-use, both rows. In-use by this attachment already: nothing happens.

        Raises VolumeNotFound, VolumeAttachmentNotFound, InvalidVolume.
        """

        async def work(conn: AsyncConnection) -> None:
            status = await lock_volume(conn, volume_id)
            found = _must(await _find(conn, attachment_id, volume_id), attachment_id)
            if status is VolumeStatus.IN_USE and found.attach_status is AttachStatus.ATTACHED:
                return
            await self._advance_volume(conn, volume_id, VolumeEvent.ROLL_DETACHING, "roll detaching")
            await self._advance(conn, attachment_id, Event.ROLL_DETACHING)

        await self._db.run(work)

    async def detached(self, volume_id: str, attachment_id: str) -> None:
        """The attachment goes, and with the last one the volume is available. Gone already: nothing happens.

        A volume that an operator moved to another state, such as error, keeps it.
        """

        async def work(conn: AsyncConnection) -> None:
            try:
                status = await lock_volume(conn, volume_id)
            except VolumeNotFound:
                return
            if await _find(conn, attachment_id, volume_id) is None:
                return
            await self._bury(conn, attachment_id)
            if VOLUME.allows(status, VolumeEvent.DETACHED) and not await _holders(conn, volume_id):
                await advance_volume(conn, volume_id, VolumeEvent.DETACHED, clock=self._clock)

        await self._db.run(work)

    async def extended(self, volume_id: str, new_size: int) -> None:
        """extending -> in-use where somebody holds it, else available; its size with it. It has that size already: nothing happens.

        Raises VolumeNotFound, InvalidVolume.
        """

        async def work(conn: AsyncConnection) -> None:
            await lock_volume(conn, volume_id)
            size = (await conn.execute(select(volumes.c.size).where(volumes.c.id == volume_id))).scalar_one()
            if size >= new_size:
                return
            event = VolumeEvent.EXTENDED_IN_USE if await _holders(conn, volume_id) else VolumeEvent.EXTENDED
            try:
                await advance_volume(conn, volume_id, event, clock=self._clock, size=new_size, extend_new_size=None)
            except Conflict as exc:
                raise _invalid(exc.expected, "finish extending", exc.found) from exc

        await self._db.run(work)

    async def roll_extending(self, volume_id: str) -> None:
        """extending -> in-use where somebody holds it, else error_extending; its size stays. In another state: nothing happens."""

        async def work(conn: AsyncConnection) -> None:
            if await lock_volume(conn, volume_id) is VolumeStatus.EXTENDING:
                event = VolumeEvent.ROLL_EXTENDING if await _holders(conn, volume_id) else VolumeEvent.EXTEND_FAILED
                await advance_volume(conn, volume_id, event, clock=self._clock, extend_new_size=None)

        await self._db.run(work)

    async def reset(self, volume_id: str, event: VolumeEvent) -> VolumeStatus:
        """An administrator's RESET event; the status after it. There already: nothing happens.

        Raises VolumeNotFound; InvalidVolume when the status, or the attachments, do not bear it out.
        """
        target = VOLUME.target(event)

        async def work(conn: AsyncConnection) -> VolumeStatus:
            status, held = await lock_volume(conn, volume_id), await _holders(conn, volume_id)
            attached = [row for row in held if row.attach_status is AttachStatus.ATTACHED]
            if event is VolumeEvent.RESET_AVAILABLE and held:
                raise InvalidVolume(reason=f"Volume {volume_id} is held by attachment {held[0].id}; force-detach it first.")
            if event is VolumeEvent.RESET_IN_USE and not attached:
                raise InvalidVolume(reason=f"Volume {volume_id} is {status} and has no attachment that is attached.")
            if status is not target:
                await self._advance_volume(conn, volume_id, event, f"be reset to {target}")
            return target

        return await self._db.run(work)

    def _new(self, volume_id: str, attachment_id: str, **values: object) -> dict[str, object]:
        start = str(ATTACHMENT.start)
        return {"id": attachment_id, "volume_id": volume_id, "attach_status": start, "created_at": self._clock.utcnow(), **values}

    async def _bury(self, conn: AsyncConnection, attachment_id: str) -> None:
        now = self._clock.utcnow()
        await self._advance(conn, attachment_id, Event.DETACHED, deleted=True, deleted_at=now, detach_time=now)

    async def _advance(self, conn: AsyncConnection, attachment_id: str, event: Event, **values: object) -> None:
        try:
            await advance(
                conn, attachments, ATTACHMENT, event, kind="Volume attachment", key={"id": attachment_id},
                columns=("attach_status",), values=values, clock=self._clock,
            )  # fmt: skip
        except NotFound as exc:
            raise VolumeAttachmentNotFound(attachment_id=attachment_id) from exc

    async def _advance_volume(self, conn: AsyncConnection, volume_id: str, event: VolumeEvent, verb: str) -> None:
        try:
            await advance_volume(conn, volume_id, event, clock=self._clock)
        except Conflict as exc:
            raise _invalid(exc.expected, verb, exc.found) from exc


async def _find(conn: AsyncConnection, attachment_id: str, volume_id: str | None = None) -> VolumeAttachment | None:
    query, parameters = _ONE, {"of_attachment": attachment_id}
    if volume_id is not None:
        query, parameters = _ONE_OF_VOLUME, {**parameters, "of_volume": volume_id}
    row = (await conn.execute(query, parameters)).first()
    return None if row is None else attachment_of(row)


async def _was_used(conn: AsyncConnection, attachment_id: str) -> bool:
    """True when there is or was an attachment of that id."""
    return (await conn.execute(_EVER, {"of_attachment": attachment_id})).first() is not None


async def _holders(conn: AsyncConnection, volume_id: str) -> list[VolumeAttachment]:
    return [attachment_of(row) for row in await conn.execute(_OF_VOLUME, {"of_volume": volume_id})]


async def _refuse_reserve(conn: AsyncConnection, volume_id: str, status: VolumeStatus) -> None:
    for holder in await _holders(conn, volume_id):
        device = holder.mountpoint or "a device that has no name yet"
        raise VolumeInUse(volume_id=volume_id, instance_uuid=holder.instance_uuid, mountpoint=device)
    raise _invalid(str(VolumeStatus.AVAILABLE), "reserve", str(status))


def _must(found: VolumeAttachment | None, attachment_id: str) -> VolumeAttachment:
    if found is None:
        raise VolumeAttachmentNotFound(attachment_id=attachment_id)
    return found


def _invalid(expected: str, verb: str, found: str) -> InvalidVolume:
    """In the words of cinder's volume API (attach-flow 1.1, A5)."""
    return InvalidVolume(reason=f"Volume status must be {expected} to {verb}, but the status is {found}.")
