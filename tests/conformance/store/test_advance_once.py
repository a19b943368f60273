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

CLOCK = SystemClock()


async def opened(database: Database, flow_id: str) -> Fence:
    """The fence of a flow that a process has just begun."""
    await Journal(database, CLOCK).open(FlowRow(id=flow_id, saga="s", subject="x:1", owner="p#1"))
    return Fence(flow_id, 1)


async def created(database: Database) -> tuple[Volumes, Volume, Fence]:
    """A volume that a flow has made available, and that flow's fence: its process died before the journal knew."""
    volumes, volume = Volumes(database, CLOCK), Volume(id=new_uuid(), size=1, status=VolumeStatus.CREATING)
    await volumes.create(volume)
    fence = await opened(database, f"create_volume:{volume.id}")
    with fenced(fence):
        await advance_once(volumes, volume.id, Event.CREATED)
    return volumes, volume, fence


async def test_a_volume_that_somebody_has_reserved_since_it_was_made_stays_theirs(database: Database) -> None:
    volumes, volume, fence = await created(database)
    await VolumeAttachments(database, CLOCK).reserve(volume.id, new_uuid(), new_uuid())
    with fenced(fence):
        await advance_once(volumes, volume.id, Event.CREATED)
    assert (await volumes.get(volume.id)).status is VolumeStatus.ATTACHING
    with pytest.raises(Conflict):
        await advance_once(volumes, volume.id, Event.CREATED)


async def test_a_volume_that_was_deleted_since_it_was_made_needs_no_making(database: Database) -> None:
    volumes, volume, fence = await created(database)
    for event in (Event.DELETE, Event.DESTROYED):
        await volumes.advance(volume.id, event)
    with fenced(fence):
        await advance_once(volumes, volume.id, Event.CREATED)
        with pytest.raises(VolumeNotFound):
            await advance_once(volumes, volume.id, Event.CREATE_FAILED)
    with pytest.raises(VolumeNotFound):
        await advance_once(volumes, volume.id, Event.CREATED)


async def test_a_server_that_was_deleted_since_it_was_made_needs_no_making(database: Database) -> None:
    vm_state, task_state = INSTANCE.start
    instances, uuid = Instances(database, CLOCK), new_uuid()
    await instances.create(Instance(uuid=uuid, display_name="s", vm_state=vm_state, task_state=task_state))
    fence = await opened(database, f"boot:{uuid}")
    with fenced(fence):
        for event in (InstanceEvent.SPAWN, InstanceEvent.SPAWNED):
            await advance_server_once(instances, uuid, event)
    for event in (InstanceEvent.DELETE, InstanceEvent.DESTROYED):
        await instances.advance(uuid, event)
    with fenced(fence):
        await advance_server_once(instances, uuid, InstanceEvent.SPAWNED)
        with pytest.raises(InstanceNotFound):
            await advance_server_once(instances, uuid, InstanceEvent.BUILD_FAILED)
