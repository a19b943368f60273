"""What of the port's guarantees only a real iSCSI target can break."""

import asyncio

import pytest

from nova_lite.errors import HypervisorRefused, HypervisorUnavailable
from nova_lite.virt.qemu_argv import QemuOptions
from nova_lite.virt.qemu_disk import Disk, node_name, plan_disk
from nova_lite.virt.qmp_client import open_qmp
from tests.conformance.hypervisor.bench import DISKS_MAX, INITIATOR, SECRET, QemuIscsiBench, spawned

pytestmark = [pytest.mark.real("qemu"), pytest.mark.real("tgt")]

IMPATIENT = QemuOptions(disks_max=DISKS_MAX, command_timeout_s=1.0, quit_timeout_s=1.0)


async def test_3_a_machine_with_a_disk_is_logged_in_once_and_keeps_no_secret(iscsi: QemuIscsiBench) -> None:
    uuid, info = await spawned(iscsi.hypervisor), iscsi.volume()
    await iscsi.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    assert iscsi.sessions(info) == 1
    assert await iscsi.parts(uuid) == {info["serial"], node_name(info["serial"])}


async def test_3_a_machine_logs_in_again_by_itself_when_the_target_comes_back(iscsi: QemuIscsiBench) -> None:
    uuid, info = await spawned(iscsi.hypervisor), iscsi.volume()
    await iscsi.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    iscsi.tgt.stop()
    assert iscsi.tgt.start()
    iscsi.export(info)
    await iscsi.hypervisor.write_pattern(uuid, info["serial"], pattern=0x42, offset=0, length=512)
    assert iscsi.stored(info, 0, 512) == b"\x42" * 512


@pytest.mark.parametrize("change", ["password", "initiator", "target", "portal"])
async def test_6_a_login_that_fails_says_why_and_leaves_nothing(iscsi: QemuIscsiBench, change: str) -> None:
    uuid, info = await spawned(iscsi.hypervisor), iscsi.volume()
    changes = {
        "password": {"data": info["data"] | {"auth_password": f"{SECRET}-not"}},
        "initiator": {"connector": {"initiator": f"{INITIATOR}-not"}},
        "target": {"data": info["data"] | {"target_iqn": "iqn.2010-10.org.openstack:absent"}},
        "portal": {"data": info["data"] | {"target_portal": "127.0.0.1:1"}},
    }
    with pytest.raises(HypervisorRefused, match="iSCSI: Failed to") as failure:
        await iscsi.hypervisor.attach_volume(info | changes[change], uuid, "/dev/vdb")
    assert SECRET not in str(failure.value)
    assert await iscsi.parts(uuid) == set()
    assert iscsi.sessions(info) == 0


async def test_6_a_half_made_attachment_is_made_whole_by_the_next_attempt(iscsi: QemuIscsiBench) -> None:
    uuid, info = await spawned(iscsi.hypervisor), iscsi.volume()
    disk: Disk = plan_disk(info, machine=uuid, mountpoint="/dev/vdb")
    async with open_qmp(iscsi.instance_folder(uuid), name=uuid, timeout_s=20) as qmp:
        await qmp.execute("object-add", disk.secret)
        await qmp.execute("blockdev-add", disk.backend)
    await iscsi.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    assert await iscsi.parts(uuid) == {info["serial"], node_name(info["serial"])}
    assert iscsi.sessions(info) == 1


async def test_6_an_attachment_to_a_target_that_does_not_answer_ends_in_time_and_is_mended_later(iscsi: QemuIscsiBench) -> None:
    uuid, info = await spawned(iscsi.hypervisor), iscsi.volume()
    iscsi.tgt.pause()
    async with asyncio.timeout(10):
        with pytest.raises(HypervisorUnavailable, match="no answer to blockdev-add within 1 s"):
            await iscsi.qemu(IMPATIENT).attach_volume(info, uuid, "/dev/vdb")
    iscsi.tgt.go_on()
    await iscsi.hypervisor.detach_volume(info["serial"], uuid)
    assert await iscsi.parts(uuid) == set()
    await iscsi.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    assert iscsi.sessions(info) == 1


async def test_6_a_cancelled_attachment_is_taken_back(iscsi: QemuIscsiBench) -> None:
    uuid, info = await spawned(iscsi.hypervisor), iscsi.volume()
    iscsi.tgt.pause()
    asyncio.get_running_loop().call_later(0.6, iscsi.tgt.go_on)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(iscsi.hypervisor.attach_volume(info, uuid, "/dev/vdb"), 0.3)
    assert await iscsi.parts(uuid) == set()
    assert iscsi.sessions(info) == 0


async def test_10_a_machine_whose_target_died_under_its_writes_is_unavailable_in_time_and_can_be_destroyed(
    iscsi: QemuIscsiBench,
) -> None:
    uuid, info = await spawned(iscsi.hypervisor), iscsi.volume()
    await iscsi.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    iscsi.tgt.pause()
    impatient = iscsi.qemu(IMPATIENT)
    async with asyncio.timeout(20):
        with pytest.raises(HypervisorUnavailable):
            await impatient.write_pattern(uuid, info["serial"], pattern=1, offset=0, length=512)
        with pytest.raises(HypervisorUnavailable):
            await impatient.detach_volume(info["serial"], uuid)
        await impatient.destroy(uuid)
    assert iscsi.files(uuid) == []
    assert iscsi.processes(uuid) == []
