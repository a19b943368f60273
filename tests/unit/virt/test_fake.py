"""What the fake does beyond the port: it fails when told to. The port itself is in tests/conformance/hypervisor."""

import asyncio
from typing import Any

import pytest

from common.base.ids import new_uuid
from common.testing.script import When
from nova_lite.contract import Instance, VmState
from nova_lite.errors import DeviceDetachFailed, HypervisorRefused, HypervisorUnavailable
from nova_lite.virt.fake import Call, FakeHypervisor

INFO: dict[str, Any] = {"driver_volume_type": "local", "serial": "v1", "data": {"device_path": "/x"}}


async def spawned(fake: FakeHypervisor) -> str:
    uuid = new_uuid()
    await fake.spawn(Instance(uuid=uuid, display_name="vm", vm_state=VmState.BUILDING))
    return uuid


async def test_faults_strike_once_in_their_order_before_or_after_the_effect() -> None:
    fake = FakeHypervisor()
    uuid = await spawned(fake)
    fake.script.fail_next("attach_volume", HypervisorRefused(name=uuid, command="attach_volume", reason="one"))
    fake.script.fail_next("attach_volume", HypervisorUnavailable(name=uuid, reason="two"), When.AFTER)
    with pytest.raises(HypervisorRefused):
        await fake.attach_volume(INFO, uuid, "/dev/vdb")
    assert await fake.disks(uuid) == {}
    with pytest.raises(HypervisorUnavailable, match="two"):
        await fake.attach_volume(INFO, uuid, "/dev/vdb")
    assert await fake.disks(uuid) == {"v1": "/dev/vdb"}
    await fake.attach_volume(INFO, uuid, "/dev/vdb")


async def test_a_guest_keeps_its_disk_once() -> None:
    fake = FakeHypervisor()
    uuid = await spawned(fake)
    await fake.attach_volume(INFO, uuid, "/dev/vdb")
    fake.keep_next_disk()
    with pytest.raises(DeviceDetachFailed):
        await fake.detach_volume("v1", uuid)
    assert await fake.disks(uuid) == {"v1": "/dev/vdb"}
    await fake.detach_volume("v1", uuid)
    assert await fake.disks(uuid) == {}


async def test_a_held_method_waits_without_an_effect() -> None:
    fake = FakeHypervisor()
    uuid = await spawned(fake)
    gate = fake.hold("attach_volume")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(fake.attach_volume(INFO, uuid, "/dev/vdb"))
        assert await fake.disks(uuid) == {}
        assert not task.done()
        gate.set()
    assert await fake.disks(uuid) == {"v1": "/dev/vdb"}


async def test_calls_are_noted_in_order() -> None:
    fake = FakeHypervisor()
    uuid = await spawned(fake)
    await fake.attach_volume(INFO, uuid, "/dev/vdb")
    await fake.detach_volume("v1", uuid)
    assert fake.calls == [Call("spawn", uuid), Call("attach_volume", uuid, "v1"), Call("detach_volume", uuid, "v1")]
