"""The rows of volumes, on each database."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from cinder_lite.contract import AttachStatus, Volume, VolumeStatus
from cinder_lite.domain.volume import Event
from cinder_lite.errors import AmbiguousVolume, VolumeNotFound
from cinder_lite.store.tables import volumes
from cinder_lite.store.volume_attachment import VolumeAttachments
from cinder_lite.store.volumes import MESSAGES_SHOWN_MAX, Volumes
from common.app.post import Writing
from common.base.errors import Conflict
from common.base.ids import new_uuid
from common.db.engine import Database
from common.host.clock import SystemClock


@pytest.fixture
def store(database: Database) -> Volumes:
    return Volumes(database, SystemClock())


def volume(name: str | None = "vol", **values: Any) -> Volume:
    return Volume(id=new_uuid(), size=1, status=VolumeStatus.CREATING, display_name=name, **values)


async def test_what_was_created_comes_back_with_its_time(store: Volumes) -> None:
    wanted = volume(
        display_description="d", host="h@lvm#pool", volume_type="ssd", availability_zone="nova", user_id="u", bootable=True
    )
    made = await store.create(wanted)
    assert replace(made, created_at=None) == wanted
    assert made.created_at is not None
    assert await store.get(wanted.id) == made


async def test_an_id_is_there_once_and_who_creates_it_again_gets_it_as_it_is(store: Volumes) -> None:
    made = await store.create(volume())
    now = await store.advance(made.id, Event.CREATED)
    assert await store.create(replace(made, display_name="other")) == now
    assert await store.list() == [now]


async def test_a_volume_is_found_by_id_and_by_name(store: Volumes) -> None:
    made = await store.create(volume("data"))
    await store.create(volume(None))
    assert await store.find(made.id) == made
    assert await store.find("data") == made


async def test_a_name_that_two_have_is_ambiguous_and_names_both(store: Volumes) -> None:
    both = [await store.create(volume("data")) for _ in range(2)]
    with pytest.raises(AmbiguousVolume) as caught:
        await store.find("data")
    assert all(each.id in str(caught.value) for each in both)


async def test_what_is_not_there_is_not_found(store: Volumes) -> None:
    attempts = (
        store.get("none"), store.find("none"), store.advance("none", Event.CREATED),
        store.save_export("none", "l"), store.clear_export("none"), store.provider_auth("none"), store.save_auth("none", "a"),
    )  # fmt: skip
    for attempt in attempts:
        with pytest.raises(VolumeNotFound, match="none"):
            await attempt


async def test_volumes_are_listed_newest_first_and_by_backend_whatever_the_pool(store: Volumes) -> None:
    hosts = ["h@lvm#one", "h@lvm", "h@lvm2#one", "hx@lvm", None]
    made = [await store.create(volume(host=host)) for host in hosts]
    assert await store.list() == made[::-1]
    assert await store.list(host="h@lvm") == [made[1], made[0]]
    assert await store.list(host="h%") == []


async def test_an_event_moves_the_status_and_the_attach_status_with_it(store: Volumes) -> None:
    made = await store.create(volume())
    events = (Event.CREATED, Event.RESERVE, Event.ATTACHED, Event.BEGIN_DETACHING, Event.DETACHED, Event.DELETE)
    seen = [made, *[await store.advance(made.id, event) for event in events]]
    assert [(each.status, each.attach_status) for each in seen] == [
        (VolumeStatus.CREATING, AttachStatus.DETACHED),
        (VolumeStatus.AVAILABLE, AttachStatus.DETACHED),
        (VolumeStatus.ATTACHING, AttachStatus.DETACHED),
        (VolumeStatus.IN_USE, AttachStatus.ATTACHED),
        (VolumeStatus.DETACHING, AttachStatus.ATTACHED),
        (VolumeStatus.AVAILABLE, AttachStatus.DETACHED),
        (VolumeStatus.DELETING, AttachStatus.DETACHED),
    ]
    assert seen[1].launched_at is not None
    assert seen[-1] == await store.get(made.id)


async def test_other_columns_change_with_an_event(store: Volumes) -> None:
    made = await store.create(volume())
    assert (await store.advance(made.id, Event.CREATED, size=7, host="h@lvm#p")).size == 7


async def test_of_many_that_delete_at_once_one_does(store: Volumes) -> None:
    made = await store.create(volume())
    await store.advance(made.id, Event.CREATED)
    outcomes = await asyncio.gather(*(outcome(store.advance(made.id, Event.DELETE)) for _ in range(10)))
    assert sorted(outcomes) == ["Conflict"] * 9 + ["Volume"]


async def test_a_destroyed_volume_is_gone_and_its_row_has_no_secret(database: Database, store: Volumes) -> None:
    made = await store.create(volume())
    await store.advance(made.id, Event.CREATED)
    await store.save_auth(made.id, "CHAP user hunter2")
    await store.advance(made.id, Event.DELETE)
    last = await store.advance(made.id, Event.DESTROYED)
    assert (last.status, last.attach_status) == (VolumeStatus.DELETED, AttachStatus.DELETED)
    for attempt in (store.get(made.id), store.find("vol"), store.advance(made.id, Event.DELETE)):
        with pytest.raises(VolumeNotFound):
            await attempt
    assert await store.list() == []
    async with database.begin() as conn:
        row = (await conn.execute(select(volumes))).one()
    assert (row.deleted, row.provider_auth, row.status) == (True, None, "deleted")
    assert row.deleted_at is not None


async def test_the_scheduler_places_a_volume(database: Database, store: Volumes) -> None:
    made = await store.create(volume())
    assert await store.set_host(made.id, "h@lvm#p") is True
    assert (await store.get(made.id)).host == "h@lvm#p"
    async with database.begin() as conn:
        assert (await conn.execute(select(volumes.c.scheduled_at))).scalar_one() is not None


async def test_of_many_that_place_a_volume_one_does_and_writes_what_goes_with_it(store: Volumes) -> None:
    made = await store.create(volume())
    written: list[str] = []

    def writing(place: str) -> Writing:
        async def write(conn: AsyncConnection) -> None:
            written.append(place)

        return write

    places = [f"h@lvm#p{number}" for number in range(10)]
    placed = await asyncio.gather(*(store.set_host(made.id, place, also=writing(place)) for place in places))
    assert sorted(placed) == [False] * 9 + [True]
    assert [(await store.get(made.id)).host] == written == [places[placed.index(True)]]
    assert await store.set_host("none", "h@lvm#p") is False


async def test_the_first_credentials_count_and_every_caller_gets_them(store: Volumes) -> None:
    made = await store.create(volume())
    assert await store.provider_auth(made.id) is None
    got = await asyncio.gather(*(store.save_auth(made.id, f"CHAP user {number}") for number in range(10)))
    assert len(set(got)) == 1
    assert await store.provider_auth(made.id) == got[0]


async def test_an_export_is_remembered_and_forgotten_with_its_credentials(store: Volumes) -> None:
    made = await store.create(volume())
    await store.save_auth(made.id, "CHAP user hunter2")
    await store.save_export(made.id, "10.0.0.1:3260,1 iqn.x 1")
    found = await store.get(made.id)
    assert found.provider_location == "10.0.0.1:3260,1 iqn.x 1"
    assert "hunter2" not in repr(found)
    await store.clear_export(made.id)
    assert (await store.get(made.id)).provider_location is None
    assert await store.provider_auth(made.id) is None


async def test_the_latest_messages_are_shown_newest_first(store: Volumes) -> None:
    made, other = await store.create(volume("one")), await store.create(volume("two"))
    for number in range(MESSAGES_SHOWN_MAX + 2):
        await store.add_message(made.id, f"EVENT_{number}", f"text {number}", request_id="req-1")
    await store.add_message(other.id, "EVENT_X", "other")
    last = MESSAGES_SHOWN_MAX + 1
    listed = {each.id: each for each in await store.list()}
    for found in (await store.find(made.id), await store.find("one"), listed[made.id]):
        assert [message.event_id for message in found.messages] == [f"EVENT_{last - back}" for back in range(MESSAGES_SHOWN_MAX)]
        assert (found.messages[0].user_message, found.messages[0].request_id) == (f"text {last}", "req-1")
        assert found.messages[0].created_at is not None
    assert [message.user_message for message in listed[other.id].messages] == ["other"]
    assert (await store.get(made.id)).messages == ()


async def test_only_live_attachments_are_shown(database: Database, store: Volumes) -> None:
    attachments = VolumeAttachments(database, SystemClock())
    made = await store.create(volume())
    await store.advance(made.id, Event.CREATED)
    await attachments.reserve(made.id, "a1", "vm1")
    await attachments.unreserve(made.id, "a1")
    second = await attachments.reserve(made.id, "a2", "vm2")
    for found in (await store.get(made.id), await store.find("vol"), (await store.list())[0]):
        assert found.volume_attachment == (second,)


async def outcome(attempt: Awaitable[object]) -> str:
    try:
        return type(await attempt).__name__
    except Conflict as refused:
        return type(refused).__name__
