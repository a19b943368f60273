"""The rows that a host's reconciler compares with what is there."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, select

from common.base.settling import Busy
from common.db.busy import busy, time_of
from common.db.engine import Database
from common.db.journal import FlowState
from common.db.model import live
from common.db.tables import flows
from nova_lite.domain.settle import InstanceFact, MappingFact
from nova_lite.store.tables import block_device_mapping as bdms, instances

_HERE = (instances.c.host == bindparam("on_host")) & live(instances)
_SERVERS = select(instances).where(_HERE).order_by(instances.c.id)
_GONE = select(instances.c.uuid, instances.c.deleted_at).where(
    instances.c.uuid.in_(bindparam("seen", expanding=True)), ~live(instances)
)
_MAPPED = (
    select(bdms)
    .join(instances, instances.c.uuid == bdms.c.instance_uuid)
    .where(_HERE, live(bdms), bdms.c.volume_id.is_not(None))
    .order_by(bdms.c.id)
)
_DONE = select(flows.c.id).where(flows.c.id.in_(bindparam("asked", expanding=True)), flows.c.state == FlowState.COMPLETED)


@dataclass(frozen=True, slots=True)
class Rows:
    """One moment: the host's live servers by uuid, when the deleted ones among the machines were, the mappings, and who was at work."""

    now: datetime
    instances: dict[str, InstanceFact]
    deleted: dict[str, datetime | None]
    mappings: tuple[MappingFact, ...]
    busy: Busy


async def settled_rows(db: Database, host: str, seen: Collection[str], *, request: str) -> Rows:
    """`seen`: uuids of the machines that are there. `request`: the saga that hands an attachment over; its flows are "<saga>:<attachment>"."""
    async with db.begin(read_only=True) as conn:
        servers = (await conn.execute(_SERVERS, {"on_host": host})).all()
        deleted = {row.uuid: row.deleted_at for row in await conn.execute(_GONE, {"seen": sorted(seen)})}
        mappings = (await conn.execute(_MAPPED, {"on_host": host})).all()
        ids = [f"{request}:{row.attachment_id}" for row in mappings if row.attachment_id]
        ordered = set((await conn.execute(_DONE, {"asked": ids})).scalars()) if ids else set()
        now, at_work = await time_of(conn), await busy(conn)
    return Rows(
        now,
        {
            row.uuid: InstanceFact(
                uuid=row.uuid,
                vm_state=row.vm_state,
                task_state=row.task_state,
                changed_at=row.updated_at or row.created_at,
            )
            for row in servers
        },
        deleted,
        tuple(
            MappingFact(
                instance_uuid=row.instance_uuid,
                volume_id=row.volume_id,
                attachment_id=row.attachment_id,
                changed_at=row.updated_at or row.created_at,
                is_ordered=f"{request}:{row.attachment_id}" in ordered,
            )
            for row in mappings
        ),
        at_work,
    )
