"""The rows of instances, on each database."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from common.base.errors import Conflict
from common.base.ids import new_uuid
from common.db.engine import Database
from common.db.errors import Duplicate
from common.host.clock import SystemClock
from nova_lite.contract import Instance, PowerState, TaskState, VmState
from nova_lite.domain.instance import Event
from nova_lite.errors import AmbiguousInstance, InstanceNotFound
from nova_lite.store.instances import Instances
from nova_lite.store.tables import instances


@pytest.fixture
def store(database: Database) -> Instances:
    return Instances(database, SystemClock())


def server(name: str = "vm", **values: Any) -> Instance:
    return Instance(uuid=new_uuid(), display_name=name, vm_state=VmState.BUILDING, task_state=TaskState.SCHEDULING, **values)


async def active(store: Instances, name: str = "vm", **values: Any) -> Instance:
    made = await store.create(server(name, **values))
    await store.advance(made.uuid, Event.SPAWN)
    return await store.advance(made.uuid, Event.SPAWNED, power_state=PowerState.RUNNING)


async def test_what_was_created_comes_back_with_its_time(store: Instances) -> None:
    wanted = server(host="cmp1", flavor="m1.nano", memory_mb=64, vcpus=1, image_ref="i", user_id="u", project_id="p")
    made = await store.create(wanted)
    assert replace(made, created_at=None) == wanted
    assert made.created_at is not None
    assert await store.get(wanted.uuid) == made


async def test_a_uuid_is_there_once(store: Instances) -> None:
    made = await store.create(server())
    with pytest.raises(Duplicate):
        await store.create(made)


async def test_an_instance_is_found_by_uuid_and_by_name(store: Instances) -> None:
    made = await store.create(server("web"))
    await store.create(server("db"))
    assert await store.find(made.uuid) == made
    assert await store.find("web") == made


async def test_names_differ_by_case(store: Instances) -> None:
    await store.create(server("web"))
    with pytest.raises(InstanceNotFound, match="Web"):
        await store.find("Web")


async def test_a_name_that_two_have_is_ambiguous_and_names_both(store: Instances) -> None:
    both = [await store.create(server("web")) for _ in range(2)]
    with pytest.raises(AmbiguousInstance) as caught:
        await store.find("web")
    assert all(each.uuid in str(caught.value) for each in both)


async def test_a_uuid_goes_before_a_name_that_looks_like_it(store: Instances) -> None:
    made = await store.create(server("web"))
    await store.create(server(made.uuid))
    assert await store.find(made.uuid) == made


async def test_what_is_not_there_is_not_found(store: Instances) -> None:
    for attempt in (store.get("none"), store.find("none"), store.advance("none", Event.SPAWN)):
        with pytest.raises(InstanceNotFound, match="none"):
            await attempt


async def test_instances_are_listed_newest_first_and_by_host(store: Instances) -> None:
    made = [await store.create(server(host=host)) for host in ("cmp1", "cmp2", "cmp1")]
    assert await store.list() == made[::-1]
    assert await store.list(host="cmp1") == [made[2], made[0]]


async def test_an_event_moves_both_columns_and_sets_others_with_them(store: Instances) -> None:
    made = await active(store)
    assert (made.vm_state, made.task_state, made.power_state) == (VmState.ACTIVE, None, PowerState.RUNNING)
    assert made.launched_at is not None
    assert made.updated_at is not None


async def test_an_event_that_the_state_forbids_is_a_conflict_and_changes_nothing(store: Instances) -> None:
    made = await active(store)
    with pytest.raises(Conflict, match=f"server {made.uuid} is in state active; wanted: building, spawning"):
        await store.advance(made.uuid, Event.SPAWNED)
    assert await store.get(made.uuid) == made


async def test_of_many_that_delete_at_once_one_does(store: Instances) -> None:
    made = await active(store)
    outcomes = await asyncio.gather(*(outcome(store.advance(made.uuid, Event.DELETE)) for _ in range(10)))
    assert sorted(outcomes) == ["Conflict"] * 9 + ["Instance"]


async def test_a_destroyed_instance_is_gone_from_every_answer_and_kept_in_its_row(database: Database, store: Instances) -> None:
    made = await active(store, host="cmp1")
    await store.advance(made.uuid, Event.DELETE)
    last = await store.advance(made.uuid, Event.DESTROYED)
    assert (last.vm_state, last.task_state) == (VmState.DELETED, None)
    assert last.terminated_at is not None
    for attempt in (store.get(made.uuid), store.find("vm"), store.advance(made.uuid, Event.DELETE)):
        with pytest.raises(InstanceNotFound):
            await attempt
    assert await store.list() == await store.list(host="cmp1") == []
    assert await store.remembered(made.uuid) == last
    with pytest.raises(InstanceNotFound):
        await store.remembered(new_uuid())
    async with database.begin() as conn:
        row = (await conn.execute(select(instances))).one()
    assert row.deleted == row.id
    assert row.deleted_at is not None


async def test_the_latest_fault_is_shown(store: Instances) -> None:
    made = await store.create(server())
    assert made.fault is None
    await store.add_fault(made.uuid, 500, "first")
    await store.add_fault(made.uuid, 503, "second", host="cmp1", request_id="req-1")
    for found in (await store.get(made.uuid), await store.find("vm"), (await store.list())[0]):
        assert found.fault is not None
        assert (found.fault.code, found.fault.message, found.fault.host, found.fault.request_id) == (503, "second", "cmp1", "req-1")
        assert found.fault.created_at is not None


async def outcome(attempt: Awaitable[object]) -> str:
    try:
        return type(await attempt).__name__
    except Conflict as refused:
        return type(refused).__name__
