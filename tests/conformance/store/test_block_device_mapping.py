"""The rows of block_device_mapping, on each database."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from common.base.errors import Conflict, NotFound
from common.base.ids import new_uuid
from common.db.engine import Database
from common.host.clock import SystemClock
from nova_lite.contract import BlockDeviceMapping, Instance, VmState
from nova_lite.errors import DevicePathInUse, VolumeAlreadyAttached, VolumeBDMNotFound
from nova_lite.store.block_device_mapping import BlockDeviceMappings
from nova_lite.store.instances import Instances

VM, OTHER_VM = new_uuid(), new_uuid()


@pytest.fixture
async def store(database: Database) -> BlockDeviceMappings:
    servers = Instances(database, SystemClock())
    for uuid in (VM, OTHER_VM):
        await servers.create(Instance(uuid=uuid, display_name="vm", vm_state=VmState.ACTIVE))
    return BlockDeviceMappings(database, SystemClock())


def disk(volume: str = "v1", device: str | None = "/dev/vdb", server: str = VM, **values: Any) -> BlockDeviceMapping:
    values = {"attachment_id": new_uuid(), **values}
    return BlockDeviceMapping(uuid=new_uuid(), instance_uuid=server, volume_id=volume, device_name=device, **values)


async def test_what_was_inserted_comes_back(store: BlockDeviceMappings) -> None:
    wanted = disk(volume_size=1, disk_bus="virtio", device_type="disk", boot_index=0, delete_on_termination=True)
    made = await store.insert(wanted)
    assert replace(made, created_at=None) == wanted
    assert made.created_at is not None
    assert await store.list(VM) == [made]
    assert await store.get(VM, "v1") == made
    assert await store.by_volume("v1") == (made,)
    assert await store.by_attachment(made.attachment_id or "") == made


async def test_what_is_not_there_is_not_found(store: BlockDeviceMappings) -> None:
    await store.insert(disk())
    with pytest.raises(VolumeBDMNotFound, match="v2"):
        await store.get(VM, "v2")
    with pytest.raises(VolumeBDMNotFound):
        await store.get(OTHER_VM, "v1")
    assert await store.list(OTHER_VM) == []
    assert await store.by_volume("v2") == ()
    assert await store.by_attachment("none") is None


async def test_the_same_attachment_again_gives_the_same_row(store: BlockDeviceMappings) -> None:
    made = await store.insert(disk())
    again = await store.insert(replace(made, uuid=new_uuid(), device_name="/dev/vdc"))
    assert again == made
    assert await store.list(VM) == [made]


async def test_a_server_has_a_volume_once_and_a_device_name_once(store: BlockDeviceMappings) -> None:
    await store.insert(disk("v1", "/dev/vdb"))
    with pytest.raises(VolumeAlreadyAttached, match=f"v1 .* {VM} .* /dev/vdb"):
        await store.insert(disk("v1", "/dev/vdc"))
    with pytest.raises(DevicePathInUse, match="/dev/vdb"):
        await store.insert(disk("v2", "/dev/vdb"))
    await store.insert(disk("v1", "/dev/vdb", OTHER_VM))


async def test_of_many_that_take_one_device_name_at_once_one_does(store: BlockDeviceMappings) -> None:
    async def take(number: int) -> str:
        try:
            await store.insert(disk(f"v{number}"))
        except Conflict as refused:
            return type(refused).__name__
        return "taken"

    assert sorted(await asyncio.gather(*map(take, range(10)))) == ["DevicePathInUse"] * 9 + ["taken"]


async def test_the_connection_info_is_kept_apart_from_the_row(store: BlockDeviceMappings) -> None:
    made = await store.insert(disk())
    assert await store.connection_info(made.uuid) is None
    info = {"driver_volume_type": "iscsi", "data": {"auth_password": "hunter2", "target_lun": 1, "encrypted": False, "qos": None}}
    await store.save_connection_info(made.uuid, info)
    assert await store.connection_info(made.uuid) == info
    assert "hunter2" not in repr(await store.get(VM, "v1"))


async def test_an_attachment_may_be_set_later(store: BlockDeviceMappings) -> None:
    made = await store.insert(disk(attachment_id=None))
    await store.set_attachment(made.uuid, "a1")
    assert await store.by_attachment("a1") == replace(made, attachment_id="a1")


async def test_a_destroyed_row_is_gone_and_its_place_is_free(store: BlockDeviceMappings) -> None:
    made = await store.insert(disk())
    await store.destroy(made.uuid)
    await store.destroy(made.uuid)
    assert await store.list(VM) == []
    assert await store.by_attachment(made.attachment_id or "") is None
    attempts = (store.connection_info(made.uuid), store.set_attachment(made.uuid, "a"), store.save_connection_info(made.uuid, {}))
    for attempt in attempts:
        with pytest.raises(NotFound):
            await attempt
    for _ in range(2):
        await store.destroy((await store.insert(disk())).uuid)
    assert len(await store.list(VM)) == 0
