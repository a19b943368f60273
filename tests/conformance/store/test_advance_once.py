"""A step that is repeated after its process died, when others have gone on from where it left the row: on each database."""

import pytest

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.domain.volume import Event
from cinder_lite.errors import VolumeNotFound
from cinder_lite.flows.parts import advance_once
from cinder_lite.store.volume_attachment import VolumeAttachments
from cinder_lite.store.volumes import Volumes
from common.base.errors import Conflict
from common.base.ids import new_uuid
from common.db.engine import Database
from common.db.fence import Fence, fenced
from common.db.journal import FlowRow, Journal
from common.host.clock import SystemClock
from nova_lite.contract import Instance
from nova_lite.domain.instance import INSTANCE, Event as InstanceEvent
from nova_lite.errors import InstanceNotFound
from nova_lite.flows.parts import advance_once as advance_server_once
from nova_lite.store.instances import Instances


async def test_a_volume_that_somebody_has_reserved_since_it_was_made_stays_theirs(database: Database) -> None:
    clock = SystemClock()
    volumes, volume = Volumes(database, clock), Volume(id=new_uuid(), size=1, status=VolumeStatus.CREATING)
    await volumes.create(volume)
    flow_id = f"create_volume:{volume.id}"
    await Journal(database, clock).open(FlowRow(id=flow_id, saga="create_volume", subject="volume", owner="p#1"))
    with fenced(Fence(flow_id, 1)):
        await advance_once(volumes, volume.id, Event.CREATED)
    await VolumeAttachments(database, clock).reserve(volume.id, new_uuid(), new_uuid())
    with fenced(Fence(flow_id, 1)):
        await advance_once(volumes, volume.id, Event.CREATED)
    assert (await volumes.get(volume.id)).status is VolumeStatus.ATTACHING
    with pytest.raises(Conflict):
        await advance_once(volumes, volume.id, Event.CREATED)


async def test_a_volume_that_was_deleted_since_it_was_made_needs_no_making(database: Database) -> None:
    clock = SystemClock()
    volumes, volume = Volumes(database, clock), Volume(id=new_uuid(), size=1, status=VolumeStatus.CREATING)
    await volumes.create(volume)
    flow_id = f"create_volume:{volume.id}"
    await Journal(database, clock).open(FlowRow(id=flow_id, saga="create_volume", subject="volume", owner="p#1"))
    with fenced(Fence(flow_id, 1)):
        await advance_once(volumes, volume.id, Event.CREATED)
    for event in (Event.DELETE, Event.DESTROYED):
        await volumes.advance(volume.id, event)
    with fenced(Fence(flow_id, 1)):
        await advance_once(volumes, volume.id, Event.CREATED)
        with pytest.raises(VolumeNotFound):
            await advance_once(volumes, volume.id, Event.CREATE_FAILED)
    with pytest.raises(VolumeNotFound):
        await advance_once(volumes, volume.id, Event.CREATED)


async def test_a_server_that_was_deleted_since_it_was_made_needs_no_making(database: Database) -> None:
    clock = SystemClock()
    vm_state, task_state = INSTANCE.start
    instances, uuid = Instances(database, clock), new_uuid()
    await instances.create(Instance(uuid=uuid, display_name="s", vm_state=vm_state, task_state=task_state))
    flow_id = f"boot:{uuid}"
    await Journal(database, clock).open(FlowRow(id=flow_id, saga="boot", subject="server", owner="p#1"))
    with fenced(Fence(flow_id, 1)):
        for event in (InstanceEvent.SPAWN, InstanceEvent.SPAWNED):
            await advance_server_once(instances, uuid, event)
    for event in (InstanceEvent.DELETE, InstanceEvent.DESTROYED):
        await instances.advance(uuid, event)
    with fenced(Fence(flow_id, 1)):
        await advance_server_once(instances, uuid, InstanceEvent.SPAWNED)
        with pytest.raises(InstanceNotFound):
            await advance_server_once(instances, uuid, InstanceEvent.BUILD_FAILED)
