"""cinder's own rpcapi knows no attachment_id in three of its calls: the volume's one attachment is meant."""

import pytest

from cinder_lite.contract import AttachStatus, VolumeStatus
from cinder_lite.errors import InvalidInput
from common.base.ids import new_uuid
from tests.support.world import INITIATOR, World

CONNECTOR = {"host": "cmp9", "ip": "10.0.0.9", "initiator": INITIATOR, "multipath": False}


async def test_a_volume_is_attached_and_detached_by_a_client_that_names_no_attachment(world: World) -> None:
    volume, attachment, server = await world.create(), new_uuid(), new_uuid()
    await world.volumes.reserve_volume(world.ctx, volume_id=volume.id, attachment_id=attachment, instance_uuid=server)
    backend = world.backend
    await backend.initialize_connection(world.ctx, volume=volume, connector=CONNECTOR)
    said = {"instance_uuid": server, "host_name": "cmp9", "mountpoint": "/dev/vdb", "mode": "rw"}
    attached = await backend.attach_volume(world.ctx, volume_id=volume.id, volume=volume, **said)
    assert (attached.id, attached.attach_status, attached.attached_host) == (attachment, AttachStatus.ATTACHED, "cmp9")
    assert (await world.settled(volume.id)).status is VolumeStatus.IN_USE
    await world.volumes.begin_detaching(world.ctx, volume_id=volume.id, attachment_id=attachment)
    await backend.terminate_connection(world.ctx, volume_id=volume.id, connector=CONNECTOR)
    await backend.detach_volume(world.ctx, volume_id=volume.id, attachment_id=attachment, volume=volume)
    found = await world.settled(volume.id)
    assert (found.status, found.volume_attachment, found.provider_location) == (VolumeStatus.AVAILABLE, (), None)
    assert world.target.served == {}


async def test_attaching_for_another_server_than_the_one_that_reserved_is_refused(world: World) -> None:
    volume = await world.create()
    await world.volumes.reserve_volume(world.ctx, volume_id=volume.id, attachment_id=new_uuid(), instance_uuid=new_uuid())
    with pytest.raises(InvalidInput, match="needs the attachment_id that reserve_volume gave"):
        await world.backend.attach_volume(
            world.ctx, volume_id=volume.id, instance_uuid=new_uuid(), host_name=None, mountpoint="/dev/vdb", mode="rw"
        )
