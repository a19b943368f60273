"""The rows of instances, each with its latest fault."""

from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.base.clock import Clock
from common.base.errors import Conflict, NotFound
from common.base.limits import LIST_ROWS_MAX
from common.db.cas import advance, began, has_made
from common.db.engine import Database
from common.db.model import live
from common.db.now import NOW
from nova_lite.contract import Instance, InstanceFault, PowerState, TaskState, VmState
from nova_lite.domain.instance import INSTANCE, Event
from nova_lite.errors import AmbiguousInstance, InstanceNotFound
from nova_lite.store.tables import instance_faults, instances

_STORED = tuple(name for name in Instance.__struct_fields__ if name != "fault")
_FAULT = InstanceFault.__struct_fields__
_NAMES_SHOWN_MAX = 10

_LATEST = select(func.max(instance_faults.c.id)).where(instance_faults.c.instance_uuid == instances.c.uuid)
_ALL = select(
    *(instances.c[name] for name in _STORED), *(instance_faults.c[name].label(f"fault_{name}") for name in _FAULT)
).select_from(instances.outerjoin(instance_faults, instance_faults.c.id == _LATEST.correlate(instances).scalar_subquery()))
_REMEMBERED = _ALL.where(instances.c.uuid == bindparam("of_server"))
_ONE = _REMEMBERED.where(live(instances))
_FOUND = _ALL.where(
    live(instances), or_(instances.c.uuid == bindparam("word"), instances.c.display_name == bindparam("word"))
).limit(_NAMES_SHOWN_MAX)
_NAMED = (
    _ALL.where(or_(instances.c.uuid == bindparam("word"), and_(instances.c.display_name == bindparam("word"), live(instances))))
    .order_by(instances.c.id.desc())
    .limit(_NAMES_SHOWN_MAX)
)
_LIVE = _ALL.where(live(instances)).order_by(instances.c.id.desc())
_NEWEST = _LIVE.limit(LIST_ROWS_MAX)
_OF_HOST = _LIVE.where(instances.c.host == bindparam("on_host"))
_GONE = select(instances.c.uuid).where(instances.c.uuid == bindparam("of_server"), ~live(instances))
_INSERT = insert(instances)
_INSERT_NOW = _INSERT.values(created_at=NOW)
_INSERT_FAULT = insert(instance_faults)


class Instances:
    """Every method is one transaction; all raise what `Database.begin` raises."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def create(self, instance: Instance) -> Instance:
        """The instance as stored, `created_at` filled in. Raises Duplicate for a uuid that is there."""
        row = {name: getattr(instance, name) for name in _STORED}
        row |= {
            "vm_state": str(instance.vm_state),
            "task_state": _text(instance.task_state),
            "power_state": int(instance.power_state),
        }
        statement = _INSERT if row["created_at"] else _INSERT_NOW
        row = {name: value for name, value in row.items() if name != "created_at" or value}

        async def work(conn: AsyncConnection) -> Instance:
            await conn.execute(statement, row)
            return await _read(conn, instance.uuid)

        return await self._db.run(work)

    async def get(self, uuid: str) -> Instance:
        """The live instance. Raises InstanceNotFound."""
        async with self._db.begin(read_only=True) as conn:
            return await _read(conn, uuid, _ONE)

    async def remembered(self, uuid: str) -> Instance:
        """The instance, also when it is deleted; its state says so. Raises InstanceNotFound when there never was one."""
        async with self._db.begin(read_only=True) as conn:
            return await _read(conn, uuid)

    async def find(self, name_or_id: str) -> Instance:
        """The live instance of that uuid, or else of that name. Raises InstanceNotFound, AmbiguousInstance."""
        async with self._db.begin(read_only=True) as conn:
            rows = (await conn.execute(_FOUND, {"word": name_or_id})).all()
        found = [_instance(row) for row in rows]
        for instance in found:
            if instance.uuid == name_or_id:
                return instance
        if not found:
            raise InstanceNotFound(instance_id=name_or_id)
        if len(found) > 1:
            raise AmbiguousInstance(kind="server", name=name_or_id, candidates=", ".join(each.uuid for each in found))
        return found[0]

    async def named(self, name_or_id: str) -> "list[Instance]":
        """Every live instance of that name, and the one of that uuid, which may be deleted; the newest first."""
        async with self._db.begin(read_only=True) as conn:
            return [_instance(row) for row in await conn.execute(_NAMED, {"word": name_or_id})]

    async def list(self, host: str | None = None) -> list[Instance]:
        """Newest first. With `host` every live instance of that host; else the newest LIST_ROWS_MAX."""
        query, parameters = (_NEWEST, None) if host is None else (_OF_HOST, {"on_host": host})
        async with self._db.begin(read_only=True) as conn:
            return [_instance(row) for row in await conn.execute(query, parameters)]

    async def advance(self, uuid: str, event: Event, **values: Any) -> Instance:
        """The instance after `event`; other columns are set with it. DESTROYED soft-deletes the row.

        Sets `launched_at` at SPAWNED and `terminated_at` at DESTROYED. Raises InstanceNotFound, Conflict.
        """
        extra: dict[str, object] = {}
        if event is Event.SPAWNED:
            extra = {"launched_at": NOW}
        elif event is Event.DESTROYED:
            extra = {"terminated_at": NOW, "deleted_at": NOW, "deleted": instances.c.id}

        async def work(conn: AsyncConnection) -> Instance:
            try:
                await advance(
                    conn, instances, INSTANCE, event, kind="server", key={"uuid": uuid}, columns=("vm_state", "task_state"),
                    values={**extra, **values}, clock=self._clock,
                )  # fmt: skip
            except NotFound as exc:
                raise InstanceNotFound(instance_id=uuid) from exc
            return await _read(conn, uuid)

        return await self._db.run(work)

    async def has_made(self, uuid: str, event: Event) -> bool:
        """True when the running flow has made this event already, whatever came after it."""
        return await self._db.run(lambda conn: has_made(conn, uuid, event), read_only=True)

    async def lose(self, uuid: str) -> bool:
        """active -> error, for its machine is gone: True, also when this very flow has done it before. False: it is not active.

        Raises InstanceNotFound.
        """
        event = Event.MACHINE_LOST

        async def work(conn: AsyncConnection) -> bool:
            try:
                await advance(
                    conn, instances, INSTANCE, event, kind="server", key={"uuid": uuid}, columns=("vm_state", "task_state"),
                    values={"power_state": int(PowerState.CRASHED)}, clock=self._clock,
                )  # fmt: skip
            except NotFound as exc:
                raise InstanceNotFound(instance_id=uuid) from exc
            except Conflict:
                return await began(conn, uuid, event)
            return True

        return await self._db.run(work)

    async def is_deleted(self, uuid: str) -> bool:
        """True for a server that there was, and is no more."""
        async with self._db.begin(read_only=True) as conn:
            return (await conn.execute(_GONE, {"of_server": uuid})).first() is not None

    async def add_fault(self, uuid: str, code: int, message: str, host: str | None = None, request_id: str | None = None) -> None:
        """Remembers why something failed; the latest is shown with the instance."""
        row = {"instance_uuid": uuid, "code": code, "message": message, "host": host, "request_id": request_id}
        row |= {"created_at": self._clock.utcnow()}
        await self._db.execute(_INSERT_FAULT, row)


async def _read(conn: AsyncConnection, uuid: str, query: Select[Any] = _REMEMBERED) -> Instance:
    row = (await conn.execute(query, {"of_server": uuid})).first()
    if row is None:
        raise InstanceNotFound(instance_id=uuid)
    return _instance(row)


def _instance(row: Row[Any]) -> Instance:
    stored = {name: row._mapping[name] for name in _STORED}
    stored["vm_state"] = VmState(stored["vm_state"])
    stored["task_state"] = None if stored["task_state"] is None else TaskState(stored["task_state"])
    stored["power_state"] = PowerState(stored["power_state"])
    fault = {name: row._mapping[f"fault_{name}"] for name in _FAULT}
    return Instance(**stored, fault=None if fault["code"] is None else InstanceFault(**fault))


def _text(value: object) -> str | None:
    return None if value is None else str(value)
