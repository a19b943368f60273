"""The rows that nova's audit looks at, as they stand: a word that no table of states knows is read as well."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import select

from common.db.engine import Database
from common.db.model import live
from nova_lite.domain.audit import InstanceFact, MappingFact
from nova_lite.store.tables import block_device_mapping as bdms, instances

IsOld = Callable[[datetime | None], bool]


async def audited_rows(db: Database, is_old: IsOld) -> tuple[tuple[InstanceFact, ...], tuple[MappingFact, ...], tuple[str, ...]]:
    """Every live server; every live mapping of a volume; the uuids of deleted mappings that keep a connection_info."""
    kept = select(bdms.c.uuid).where(~live(bdms), bdms.c.connection_info.is_not(None)).order_by(bdms.c.id)
    mapped = select(bdms).where(live(bdms), bdms.c.volume_id.is_not(None)).order_by(bdms.c.id)
    async with db.begin(read_only=True) as conn:
        servers = (await conn.execute(select(instances).where(live(instances)).order_by(instances.c.id))).all()
        mappings = (await conn.execute(mapped)).all()
        secrets = (await conn.execute(kept)).scalars().all()
    return (
        tuple(
            InstanceFact(
                uuid=row.uuid,
                name=row.display_name,
                vm_state=row.vm_state,
                task_state=row.task_state,
                host=row.host,
                is_old=is_old(row.updated_at or row.created_at),
            )
            for row in servers
        ),
        tuple(
            MappingFact(
                uuid=row.uuid,
                instance_uuid=row.instance_uuid,
                volume_id=row.volume_id,
                attachment_id=row.attachment_id,
                device_name=row.device_name,
            )
            for row in mappings
        ),
        tuple(secrets),
    )
