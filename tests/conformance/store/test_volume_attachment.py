"""Attachments and their volume move together, fenced by the attachment's id, on each database."""

import asyncio
from collections import Counter
from collections.abc import Awaitable

import pytest
from sqlalchemy import select, update

from cinder_lite.contract import AttachStatus, Volume, VolumeStatus
from cinder_lite.domain.volume import Event
from cinder_lite.errors import InvalidVolume, VolumeAttachmentNotFound, VolumeInUse, VolumeNotFound
from cinder_lite.store.tables import volume_attachment, volumes
from cinder_lite.store.volume_attachment import VolumeAttachments
from cinder_lite.store.volumes import Volumes
from common.base.errors import Conflict, Fault
from common.db.engine import Database
from common.host.clock import SystemClock

V = "volume-1"
CONNECTOR = {"host": "cmp1", "initiator": "iqn.x", "ip": "10.0.0.2", "multipath": False}


@pytest.fixture
async def store(database: Database) -> VolumeAttachments:
    await Volumes(database, SystemClock()).create(Volume(id=V, size=1, status=VolumeStatus.AVAILABLE))
    return VolumeAttachments(database, SystemClock())


async def state(database: Database) -> tuple[str, str, dict[str, str]]:
    """(status and attach_status of the volume, attach_status of each live attachment)."""
    volume = await Volumes(database, SystemClock()).get(V)
    return volume.status, volume.attach_status, {each.id: each.attach_status for each in volume.volume_attachment}


AVAILABLE: tuple[str, str, dict[str, str]] = ("available", "detached", {})
ATTACHING = ("attaching", "detached", {"a1": "attaching"})
IN_USE = ("in-use", "attached", {"a1": "attached"})
DETACHING = ("detaching", "attached", {"a1": "detaching"})


async def attach(store: VolumeAttachments, attachment: str = "a1") -> None:
    await store.reserve(V, attachment, "vm1")
    await store.connecting(attachment, CONNECTOR)
    await store.attached(V, attachment, instance_uuid="vm1", host_name=None, mountpoint="/dev/vdb", mode="rw")


async def outcome(attempt: Awaitable[object]) -> str:
    try:
        await attempt
    except Fault as refused:
        return type(refused).__name__
    return "done"


async def test_a_volume_is_attached_and_detached(database: Database, store: VolumeAttachments) -> None:
    reserved = await store.reserve(V, "a1", "vm1")
    assert (reserved.id, reserved.volume_id, reserved.instance_uuid) == ("a1", V, "vm1")
    assert await state(database) == ("attaching", "detached", {"a1": "reserved"})
    connected = await store.connecting("a1", CONNECTOR)
    assert (connected.attach_status, connected.attached_host) == (AttachStatus.ATTACHING, "cmp1")
    assert await state(database) == ATTACHING
    made = await store.attached(V, "a1", instance_uuid="vm1", host_name=None, mountpoint="/dev/vdb", mode="rw")
    assert (made.attach_status, made.mountpoint, made.attach_mode, made.attached_host) == ("attached", "/dev/vdb", "rw", "cmp1")
    assert made.attach_time is not None
    assert await state(database) == IN_USE
    assert await store.get("a1") == made
    await store.begin_detaching(V, "a1")
    assert await state(database) == DETACHING
    await store.detached(V, "a1")
    assert await state(database) == AVAILABLE
    async with database.begin() as conn:
        row = (await conn.execute(select(volume_attachment))).one()
    assert (row.deleted, row.attach_status) == (True, "detached")
    assert row.detach_time is not None
    assert row.deleted_at is not None


async def test_of_many_that_reserve_one_volume_at_once_exactly_one_wins(database: Database, store: VolumeAttachments) -> None:
    outcomes = await asyncio.gather(*(outcome(store.reserve(V, f"a{number}", f"vm{number}")) for number in range(20)))
    assert Counter(outcomes) == {"done": 1, "VolumeInUse": 19}
    status, _, live = await state(database)
    assert (status, len(live)) == ("attaching", 1)


async def test_of_many_that_reserve_with_one_id_at_once_all_get_one_row(database: Database, store: VolumeAttachments) -> None:
    rows = await asyncio.gather(*(store.reserve(V, "a1", "vm1") for _ in range(20)))
    assert len(set(rows)) == 1
    assert await state(database) == ("attaching", "detached", {"a1": "reserved"})


async def test_many_whole_attachments_at_once_follow_one_another(database: Database, store: VolumeAttachments) -> None:
    async def attach_and_detach(attachment: str) -> str:
        try:
            await attach(store, attachment)
        except VolumeInUse:
            return "refused"
        await store.begin_detaching(V, attachment)
        await store.detached(V, attachment)
        return "done"

    ended = Counter(await asyncio.gather(*(attach_and_detach(f"a{number}") for number in range(10))))
    assert ended["done"] >= 1
    assert ended.total() == 10
    assert await state(database) == AVAILABLE


async def test_reserving_again_gives_the_same_row_however_far_it_has_come(store: VolumeAttachments) -> None:
    first = await store.reserve(V, "a1", "vm1")
    assert await store.reserve(V, "a1", "vm1") == first
    await attach(store)
    assert await store.reserve(V, "a1", "vm1") == await store.get("a1")


async def test_a_volume_that_another_has_is_in_use_and_the_error_tells_where(store: VolumeAttachments) -> None:
    await attach(store)
    with pytest.raises(VolumeInUse, match=f"Volume {V} is attached to server vm1 as /dev/vdb"):
        await store.reserve(V, "a2", "vm2")


async def test_a_volume_that_is_not_available_for_another_reason_is_invalid(database: Database, store: VolumeAttachments) -> None:
    await Volumes(database, SystemClock()).advance(V, Event.DELETE)
    with pytest.raises(InvalidVolume, match=r"Volume status must be available to reserve, but the status is deleting\."):
        await store.reserve(V, "a1", "vm1")
    with pytest.raises(VolumeAttachmentNotFound):
        await store.get("a1")


async def test_a_volume_that_is_not_there_is_not_found(store: VolumeAttachments) -> None:
    with pytest.raises(VolumeNotFound):
        await store.reserve("none", "a1", "vm1")


async def test_unreserving_frees_the_volume_and_again_does_nothing(database: Database, store: VolumeAttachments) -> None:
    await store.reserve(V, "a1", "vm1")
    await store.connecting("a1", CONNECTOR)
    for _ in range(2):
        await store.unreserve(V, "a1")
        assert await state(database) == AVAILABLE
    await store.unreserve("none", "a1")


async def test_unreserving_what_another_holds_does_nothing(database: Database, store: VolumeAttachments) -> None:
    await store.reserve(V, "a1", "vm1")
    await store.unreserve(V, "a2")
    assert await state(database) == ("attaching", "detached", {"a1": "reserved"})


async def test_unreserving_a_volume_that_is_attached_does_nothing(database: Database, store: VolumeAttachments) -> None:
    await attach(store)
    await store.unreserve(V, "a1")
    assert await state(database) == IN_USE


async def test_an_attachment_that_was_unreserved_is_fenced_out(database: Database, store: VolumeAttachments) -> None:
    await store.reserve(V, "a1", "vm1")
    await store.unreserve(V, "a1")
    await store.reserve(V, "a2", "vm2")
    late = (
        store.reserve(V, "a1", "vm1"),
        store.connecting("a1", CONNECTOR),
        store.attached(V, "a1", instance_uuid="vm1", host_name=None, mountpoint="/dev/vdb", mode="rw"),
        store.roll_detaching(V, "a1"),
    )
    assert [await outcome(attempt) for attempt in late] == ["VolumeAttachmentNotFound"] * 4
    await store.detached(V, "a1")
    await store.unreserve(V, "a1")
    assert await state(database) == ("attaching", "detached", {"a2": "reserved"})


async def test_a_reservation_that_its_own_cancellation_overtook_is_refused(database: Database, store: VolumeAttachments) -> None:
    await store.unreserve(V, "a1")
    assert await outcome(store.reserve(V, "a1", "vm1")) == "VolumeAttachmentNotFound"
    assert await state(database) == AVAILABLE


async def test_the_connector_is_stored_and_stays_readable_after_the_detachment(store: VolumeAttachments) -> None:
    await store.reserve(V, "a1", "vm1")
    assert await store.stored_connector("a1") is None
    await store.connecting("a1", CONNECTOR)
    await store.connecting("a1", {**CONNECTOR, "ip": "10.0.0.3"})
    await store.unreserve(V, "a1")
    assert await store.stored_connector("a1") == {**CONNECTOR, "ip": "10.0.0.3"}
    assert await store.stored_connector("none") is None


async def test_connecting_what_is_attached_is_a_conflict(store: VolumeAttachments) -> None:
    await attach(store)
    with pytest.raises(Conflict, match="Volume attachment a1 is in state attached"):
        await store.connecting("a1", CONNECTOR)


async def test_attached_again_is_the_same(database: Database, store: VolumeAttachments) -> None:
    await attach(store)
    first = await store.get("a1")
    assert await store.attached(V, "a1", instance_uuid="vm1", host_name=None, mountpoint="/dev/vdb", mode="rw") == first
    assert await state(database) == IN_USE


async def test_attached_without_a_connection_changes_neither_row(database: Database, store: VolumeAttachments) -> None:
    await store.reserve(V, "a1", "vm1")
    with pytest.raises(Conflict):
        await store.attached(V, "a1", instance_uuid="vm1", host_name=None, mountpoint="/dev/vdb", mode="rw")
    assert await state(database) == ("attaching", "detached", {"a1": "reserved"})


async def test_an_attachment_of_another_volume_is_not_found(database: Database, store: VolumeAttachments) -> None:
    await Volumes(database, SystemClock()).create(Volume(id="other", size=1, status=VolumeStatus.AVAILABLE))
    await attach(store)
    for attempt in (store.reserve("other", "a1", "vm1"), store.roll_detaching("other", "a1")):
        with pytest.raises(VolumeAttachmentNotFound):
            await attempt
    await store.detached("other", "a1")
    await store.unreserve("other", "a1")
    assert await state(database) == IN_USE


async def test_a_volume_that_is_not_in_use_cannot_begin_detaching(database: Database, store: VolumeAttachments) -> None:
    with pytest.raises(InvalidVolume, match=r"Volume status must be in-use to begin detaching, but the status is available\."):
        await store.begin_detaching(V, "a1")
    await attach(store)
    with pytest.raises(VolumeAttachmentNotFound):
        await store.begin_detaching(V, "a2")
    assert await state(database) == IN_USE
    await store.begin_detaching(V, "a1")
    with pytest.raises(InvalidVolume, match="detaching"):
        await store.begin_detaching(V, "a1")


async def test_of_many_that_detach_at_once_one_does(database: Database, store: VolumeAttachments) -> None:
    await attach(store)
    outcomes = await asyncio.gather(*(outcome(store.begin_detaching(V, "a1")) for _ in range(10)))
    assert Counter(outcomes) == {"done": 1, "InvalidVolume": 9}
    assert await state(database) == DETACHING


async def test_a_detachment_that_fails_is_rolled_back_and_again_does_nothing(database: Database, store: VolumeAttachments) -> None:
    await attach(store)
    await store.begin_detaching(V, "a1")
    for _ in range(2):
        await store.roll_detaching(V, "a1")
        assert await state(database) == IN_USE


async def test_a_volume_that_is_not_detaching_cannot_be_rolled_back(store: VolumeAttachments) -> None:
    await store.reserve(V, "a1", "vm1")
    with pytest.raises(InvalidVolume, match="attaching"):
        await store.roll_detaching(V, "a1")


@pytest.mark.parametrize("before", ["reserved", "attaching", "attached", "detaching"])
async def test_detached_frees_the_volume_from_every_state_and_again_does_nothing(
    database: Database, store: VolumeAttachments, before: str
) -> None:
    await store.reserve(V, "a1", "vm1")
    if before != "reserved":
        await store.connecting("a1", CONNECTOR)
    if before in {"attached", "detaching"}:
        await store.attached(V, "a1", instance_uuid="vm1", host_name="cmp9", mountpoint="/dev/vdb", mode="rw")
    if before == "detaching":
        await store.begin_detaching(V, "a1")
    for _ in range(2):
        await store.detached(V, "a1")
        assert await state(database) == AVAILABLE
    await store.detached("none", "a1")
    await store.detached(V, "never")


async def test_a_volume_that_an_operator_reset_keeps_its_status_when_its_attachment_goes(
    database: Database, store: VolumeAttachments
) -> None:
    await attach(store)
    async with database.begin() as conn:
        await conn.execute(update(volumes).values(status="error"))
    await store.detached(V, "a1")
    assert (await state(database))[::2] == ("error", {})


async def test_a_volume_stays_while_another_attachment_lives(database: Database, store: VolumeAttachments) -> None:
    await attach(store)
    async with database.begin() as conn:
        await conn.execute(volume_attachment.insert().values(id="a2", volume_id=V, attach_status="attached"))
    await store.detached(V, "a1")
    assert await state(database) == ("in-use", "attached", {"a2": "attached"})
