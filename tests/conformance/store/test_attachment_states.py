"""Every state that two attachments of one volume can reach by any calls in any order, walked through once."""

from collections.abc import Awaitable, Callable

from sqlalchemy import delete, insert, select, update

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.domain.volume import attach_status_of
from cinder_lite.store.tables import volume_attachment, volumes
from cinder_lite.store.volume_attachment import VolumeAttachments
from cinder_lite.store.volumes import Volumes
from common.base.errors import Invalid
from common.db.engine import Database
from common.host.clock import SystemClock

V = "v"
State = tuple[str, tuple[tuple[str, str, bool], ...]]
"""(volume's status, (attachment, its status, whether it is deleted) of each row)."""

HOLDS = {"reserved": "attaching", "attaching": "attaching", "attached": "in-use", "detaching": "detaching"}
"""What a live attachment in a state says of its volume."""

Call = Callable[[VolumeAttachments, str], Awaitable[object]]
CALLS: dict[str, Call] = {
    "reserve": lambda store, a: store.reserve(V, a, "vm"),
    "unreserve": lambda store, a: store.unreserve(V, a),
    "connecting": lambda store, a: store.connecting(a, {"host": "h"}),
    "attached": lambda store, a: store.attached(V, a, instance_uuid="vm", host_name=None, mountpoint="/dev/vdb", mode="rw"),
    "begin_detaching": lambda store, a: store.begin_detaching(V, a),
    "roll_detaching": lambda store, a: store.roll_detaching(V, a),
    "detached": lambda store, a: store.detached(V, a),
}
TWICE_IS_ONCE = set(CALLS) - {"begin_detaching"}


async def look(db: Database) -> State:
    async with db.begin(read_only=True) as conn:
        status, attach_status = (await conn.execute(select(volumes.c.status, volumes.c.attach_status))).one()
        columns = (volume_attachment.c.id, volume_attachment.c.attach_status, volume_attachment.c.deleted)
        rows = (await conn.execute(select(*columns).order_by(volume_attachment.c.id))).all()
    assert attach_status == attach_status_of(VolumeStatus(status))
    return status, tuple((row[0], row[1], row[2]) for row in rows)


async def set_up(db: Database, state: State) -> None:
    status, rows = state
    async with db.begin() as conn:
        await conn.execute(delete(volume_attachment))
        await conn.execute(update(volumes).values(status=status, attach_status=attach_status_of(VolumeStatus(status))))
        for name, attach_status, deleted in rows:
            await conn.execute(insert(volume_attachment).values(id=name, volume_id=V, attach_status=attach_status, deleted=deleted))


async def ends_well(call: Call, store: VolumeAttachments, attachment: str) -> bool:
    try:
        await call(store, attachment)
    except Invalid:
        return False
    return True


def whole(state: State) -> bool:
    """A volume is held by at most one live attachment, and both rows tell the same story."""
    status, rows = state
    live = [attach_status for _, attach_status, deleted in rows if not deleted]
    gone = [attach_status for _, attach_status, deleted in rows if deleted]
    told = [HOLDS[attach_status] for attach_status in live] or ["available"]
    return [status] == told and set(gone) <= {"detached"}


async def test_no_calls_in_any_order_bring_the_rows_apart(sqlite_database: Database) -> None:
    db = sqlite_database
    await Volumes(db, SystemClock()).create(Volume(id=V, size=1, status=VolumeStatus.AVAILABLE))
    store = VolumeAttachments(db, SystemClock())
    seen, todo = set[State](), [await look(db)]
    while todo:
        state = todo.pop()
        if state in seen:
            continue
        seen.add(state)
        assert whole(state), state
        for name, call in CALLS.items():
            for attachment in ("a1", "a2"):
                await set_up(db, state)
                done = await ends_well(call, store, attachment)
                after = await look(db)
                assert done or after == state, (state, name, attachment)
                if name in TWICE_IS_ONCE:
                    assert await ends_well(call, store, attachment) == done, (state, name, attachment)
                    assert await look(db) == after, (state, name, attachment)
                todo.append(after)
    assert {status for status, _ in seen} == {"available", "attaching", "in-use", "detaching"}
    # Both unknown or gone; or one in each of four live states, the other unknown or gone.
    assert len(seen) == 2 * 2 + 2 * 4 * 2
