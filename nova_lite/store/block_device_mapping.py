"""The rows of block_device_mapping: the disks of servers, and the connection_info that each was connected with."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, Select, bindparam, insert, select, update

from common.base.clock import Clock
from common.base.errors import NotFound
from common.db.engine import Database
from common.db.errors import Duplicate
from common.db.model import live
from common.db.now import NOW
from nova_lite.contract import BlockDeviceMapping
from nova_lite.errors import DevicePathInUse, VolumeAlreadyAttached, VolumeBDMNotFound
from nova_lite.store.tables import block_device_mapping as bdms

_ALL = select(*(bdms.c[name] for name in BlockDeviceMapping.__struct_fields__)).where(live(bdms)).order_by(bdms.c.id)
_OF_SERVER = _ALL.where(bdms.c.instance_uuid == bindparam("of_server"))
_OF_VOLUME = _ALL.where(bdms.c.volume_id == bindparam("of_volume"))
_OF_BOTH = _OF_SERVER.where(bdms.c.volume_id == bindparam("of_volume"))
_OF_ATTACHMENT = _ALL.where(bdms.c.attachment_id == bindparam("of_attachment"))
_ONE = _ALL.where(bdms.c.uuid == bindparam("of_mapping"))
_CONNECTION_INFO = select(bdms.c.connection_info).where(bdms.c.uuid == bindparam("of_mapping"), live(bdms))
_INSERT = insert(bdms)
_INSERT_NOW = _INSERT.values(created_at=NOW)
_ONE_TO_CHANGE = update(bdms).where(bdms.c.uuid == bindparam("of_mapping"), live(bdms))
_CHANGE = _ONE_TO_CHANGE.values(updated_at=NOW)
_DESTROY = _ONE_TO_CHANGE.values(deleted=bdms.c.id, deleted_at=NOW, connection_info=None)


class BlockDeviceMappings:
    """Every method is one transaction; all raise what `Database.begin` raises. Only live rows are seen."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def insert(self, bdm: BlockDeviceMapping) -> BlockDeviceMapping:
        """The mapping as stored, `created_at` filled in. A row of the same attachment is there already: that row.

        Raises VolumeAlreadyAttached, DevicePathInUse when the server has that volume or that device name.
        """
        row = {name: getattr(bdm, name) for name in BlockDeviceMapping.__struct_fields__}
        row |= {"no_device": False}
        statement = _INSERT if row["created_at"] else _INSERT_NOW
        row = {name: value for name, value in row.items() if name != "created_at" or value}
        try:
            await self._db.execute(statement, row)
        except Duplicate as exc:
            return await self._twin(bdm, exc)
        return (await _select(self._db, _ONE, of_mapping=bdm.uuid))[0]

    async def list(self, instance_uuid: str) -> list[BlockDeviceMapping]:
        """The server's disks in the order of their making."""
        return await _select(self._db, _OF_SERVER, of_server=instance_uuid)

    async def get(self, instance_uuid: str, volume_id: str) -> BlockDeviceMapping:
        """Raises VolumeBDMNotFound."""
        found = await _select(self._db, _OF_BOTH, of_server=instance_uuid, of_volume=volume_id)
        if not found:
            raise VolumeBDMNotFound(volume_id=volume_id, instance_uuid=instance_uuid)
        return found[0]

    async def by_volume(self, volume_id: str) -> tuple[BlockDeviceMapping, ...]:
        """Every server's disk that is this volume."""
        return tuple(await _select(self._db, _OF_VOLUME, of_volume=volume_id))

    async def by_attachment(self, attachment_id: str) -> BlockDeviceMapping | None:
        """The disk of this attachment, or None."""
        found = await _select(self._db, _OF_ATTACHMENT, of_attachment=attachment_id)
        return found[0] if found else None

    async def set_attachment(self, uuid: str, attachment_id: str) -> None:
        """Raises NotFound."""
        await self._update(uuid, attachment_id=attachment_id)

    async def set_delete_on_termination(self, uuid: str, is_deleted: bool) -> None:
        """Whether the volume goes with its server. Raises NotFound."""
        await self._update(uuid, delete_on_termination=is_deleted)

    async def set_volume_size(self, uuid: str, size_gib: int) -> None:
        """What the volume's row said when it was reserved. Raises NotFound."""
        await self._update(uuid, volume_size=size_gib)

    async def save_connection_info(self, uuid: str, info: Mapping[str, Any]) -> None:
        """`info` must be JSON; it may hold the CHAP secret. Raises NotFound."""
        await self._update(uuid, connection_info=dict(info))

    async def connection_info(self, uuid: str) -> dict[str, Any] | None:
        """What was saved last, or None. Raises NotFound."""
        async with self._db.begin(read_only=True) as conn:
            row = (await conn.execute(_CONNECTION_INFO, {"of_mapping": uuid})).first()
        if row is None:
            raise NotFound(kind="Block device mapping", name=uuid)
        info: dict[str, Any] | None = row.connection_info
        return info

    async def destroy(self, uuid: str) -> None:
        """Soft-deletes the row and forgets its secrets. Gone already: nothing happens."""
        await self._db.execute(_DESTROY, {"of_mapping": uuid})

    async def _update(self, uuid: str, **values: object) -> None:
        change = {"of_mapping": uuid, **values}
        if not (await self._db.execute(_CHANGE, change)).rowcount:
            raise NotFound(kind="Block device mapping", name=uuid)

    async def _twin(self, bdm: BlockDeviceMapping, refused: Duplicate) -> BlockDeviceMapping:
        """The row that stands where `bdm` was to be, if it is of the same attachment."""
        for other in await _select(self._db, _OF_SERVER, of_server=bdm.instance_uuid):
            if bdm.attachment_id is not None and other.attachment_id == bdm.attachment_id:
                return other
            if bdm.volume_id is not None and other.volume_id == bdm.volume_id:
                facts = {"volume_id": bdm.volume_id, "instance_uuid": bdm.instance_uuid, "device": other.device_name}
                raise VolumeAlreadyAttached(**facts, server=bdm.instance_uuid) from refused
            if bdm.device_name is not None and other.device_name == bdm.device_name:
                raise DevicePathInUse(path=bdm.device_name) from refused
        raise refused


async def _select(db: Database, query: Select[Any], **parameters: str) -> list[BlockDeviceMapping]:
    async with db.begin(read_only=True) as conn:
        return [_mapping(row) for row in await conn.execute(query, parameters)]


def _mapping(row: Row[Any]) -> BlockDeviceMapping:
    return BlockDeviceMapping(**row._mapping)
