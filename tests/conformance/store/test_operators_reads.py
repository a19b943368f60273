"""What `lite flow` and `lite where` read, on every database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.domain.volume import Event
from cinder_lite.service.about import SERVICE as CINDER
from cinder_lite.store.volumes import Volumes
from common.app.flow_view import find_flow
from common.app.whereabouts import NotKnown, Sources, where
from common.base.ids import new_uuid
from common.db.engine import Database
from common.db.journal import FlowRow, Journal
from common.db.lease import Leases
from common.db.outbox import Letter, Outbox
from common.db.owner import Owner
from common.host.clock import SystemClock
from common.machine.decide import Mark
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Transport
from nova_lite.contract import BlockDeviceMapping, Instance, VmState
from nova_lite.service.about import SERVICE as NOVA
from nova_lite.store.block_device_mapping import BlockDeviceMappings
from nova_lite.store.instances import Instances

CLOCK = SystemClock()


@pytest.fixture
def sources(database: Database) -> Sources:
    @asynccontextmanager
    async def open_bus() -> AsyncIterator[Transport]:
        yield MemoryTransport(MemoryBus(CLOCK))

    return Sources(database=database, clock=CLOCK, finds=[NOVA.find, CINDER.find], sagas={}, topics=["compute"], open_bus=open_bus)


async def test_the_last_row_of_each_flow_is_given(database: Database) -> None:
    journal = Journal(database, CLOCK)
    for name in ("a", "b", "c_1"):
        await journal.open(FlowRow(id=name, saga="s", subject="x:1", owner="o"))
    for seq, (name, step) in enumerate((("a", "one"), ("b", "one"), ("a", "two"))):
        await journal.write(name, seq=seq, step=step, mark=Mark.BEGUN, attempt=1)
    found = await journal.last_entries(["a", "b", "c_1", "unknown"])
    assert {name: row.step for name, row in found.items()} == {"a": "two", "b": "one"}
    assert await journal.last_entries([]) == {}
    assert (await find_flow(journal, "c_")).id == "c_1"


async def test_those_that_hold_a_lease_live(database: Database) -> None:
    await Leases(database).renew("p.h1#a")
    await Leases(database, lease_s=-1).renew("p.h2#b")
    assert await Leases(database).living() == {"p.h1#a"}


async def test_things_are_found_by_name_while_they_live_and_by_id_for_ever(database: Database) -> None:
    volumes = Volumes(database, CLOCK)
    volume = await volumes.create(Volume(id=new_uuid(), size=1, status=VolumeStatus.CREATING, display_name="v", host="h1@file#p"))
    server = await Instances(database, CLOCK).create(
        Instance(uuid=new_uuid(), display_name="s", vm_state=VmState.ACTIVE, host="h1")
    )
    await BlockDeviceMappings(database, CLOCK).insert(
        BlockDeviceMapping(uuid=new_uuid(), instance_uuid=server.uuid, volume_id=volume.id, device_name="/dev/vdb")
    )
    [found] = await NOVA.find(database, CLOCK, "s")
    assert (found.subject, found.related, found.queues) == (
        f"server:{server.uuid}", (f"volume:{volume.id}",), ("compute.h1", "nova-api"),
    )  # fmt: skip
    [found] = await CINDER.find(database, CLOCK, "v")
    assert found.queues == ("cinder-volume.h1@file", "cinder-volume.h1@file.h1", "cinder-api")
    assert (await NOVA.find(database, CLOCK, "v"), await CINDER.find(database, CLOCK, "s")) == ([], [])
    for event in (Event.CREATED, Event.DELETE, Event.DESTROYED):
        await volumes.advance(volume.id, event)
    assert await CINDER.find(database, CLOCK, "v") == []
    [found] = await CINDER.find(database, CLOCK, f"volume:{volume.id}")
    assert found.state["status"] is VolumeStatus.DELETED


async def test_flows_and_letters_that_mention_a_thing_are_about_it(database: Database, sources: Sources) -> None:
    server = await Instances(database, CLOCK).create(Instance(uuid=new_uuid(), display_name="s%", vm_state=VmState.ACTIVE))
    journal = Journal(database, CLOCK)
    for name, arguments in (("mine", {"deep": [{"uuid": server.uuid}]}), ("other", {"uuid": new_uuid()})):
        row = FlowRow(id=name, saga="s", subject="volume:1", owner="o", arguments=arguments, request_id=f"req-{name}")
        await journal.open(row, deadline_s=60)
    outbox = Outbox(database, CLOCK, owner=Owner(process="p.h", home="p"))
    letters = [
        Letter(exchange=None, routing_key=key, body=body, headers={}, request_id=request)
        for key, body, request in (("one", f'"{server.uuid}"', None), ("two", "", "req-mine"), ("three", "", "req-other"))
    ]
    await database.run(lambda conn: outbox.put(conn, letters))
    found = await where("s%", sources)
    assert [each.row.id for each in found.flows] == ["mine"]
    assert [letter.routing_key for letter in found.letters] == ["one", "two"]
    assert (await where("req-other", sources)).flows[0].row.id == "other"
    with pytest.raises(NotKnown):
        await where("s", sources)
