"""What of the port's guarantees only QEMU can break: half-made attachments, processes, sockets."""

import asyncio
import os
from pathlib import Path
from threading import Event

import pytest

from common.base.errors import Invalid, Misconfigured
from common.base.ids import new_uuid
from common.host.clock import SystemClock
from nova_lite.errors import DeviceDetachFailed, HypervisorRefused, HypervisorUnavailable
from nova_lite.virt.qemu import QemuHypervisor
from nova_lite.virt.qemu_argv import QemuOptions
from nova_lite.virt.qemu_disk import device_id, node_name, plan_disk, secret_id
from nova_lite.virt.qemu_process import make_folder
from nova_lite.virt.qmp_client import open_qmp
from tests.conformance.hypervisor.bench import DISKS_MAX, QemuBench, instance, spawned

pytestmark = pytest.mark.real("qemu")


async def test_1_a_machine_that_does_not_come_up_tells_why_and_leaves_nothing(qemu: QemuBench, tmp_path: Path) -> None:
    uuid = new_uuid()
    bad = script(tmp_path, 'exec qemu-system-x86_64 "$@" -device nonsense')
    with pytest.raises(HypervisorUnavailable, match=r"did not start: .*'nonsense' is not a valid device"):
        await qemu.qemu(QemuOptions(binary=bad)).spawn(instance(uuid))
    assert qemu.files(uuid) == []


async def test_1_a_qemu_that_is_not_there_is_named(qemu: QemuBench) -> None:
    uuid = new_uuid()
    with pytest.raises(HypervisorUnavailable, match="qemu-of-nowhere"):
        await qemu.qemu(QemuOptions(binary="qemu-of-nowhere")).spawn(instance(uuid))
    assert qemu.files(uuid) == []


async def test_1_a_start_that_takes_too_long_is_given_up_and_leaves_nothing(qemu: QemuBench, tmp_path: Path) -> None:
    uuid, slow = new_uuid(), script(tmp_path, "exec sleep 600")
    with pytest.raises(HypervisorUnavailable, match=r"within 0\.3 s"):
        await qemu.qemu(QemuOptions(binary=slow, spawn_timeout_s=0.3)).spawn(instance(uuid))
    assert qemu.files(uuid) == []


@pytest.mark.parametrize("delay_ms", [1, 5, 10, 15, 20, 30])
async def test_1_a_start_that_is_cancelled_leaves_nothing(qemu: QemuBench, delay_ms: int) -> None:
    uuid = new_uuid()
    try:
        await asyncio.wait_for(qemu.hypervisor.spawn(instance(uuid)), delay_ms / 1000)
    except TimeoutError:
        assert qemu.files(uuid) == []
        assert await qemu.hypervisor.list_instances() == set()
        async with asyncio.timeout(5):  # QEMU's second process ends when it finds that nobody waits for it
            while qemu.processes(uuid):
                await SystemClock().sleep(0.01)


async def test_1_a_start_that_is_cancelled_while_its_folder_is_made_leaves_nothing(
    qemu: QemuBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, over = Event(), Event(), Event()

    def slowly(folder: Path) -> None:
        begun.set()
        go_on.wait(20)
        make_folder(folder)
        over.set()

    monkeypatch.setattr("nova_lite.virt.qemu.make_folder", slowly)
    uuid = new_uuid()
    start = asyncio.create_task(qemu.hypervisor.spawn(instance(uuid)))
    await asyncio.to_thread(begun.wait, 20)
    start.cancel()
    await asyncio.wait({start}, timeout=0.2)  # one that gave the thread up has cleared up by now
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert await asyncio.to_thread(over.wait, 20)
    assert qemu.files(uuid) == []


async def test_2_a_pid_that_went_to_another_process_is_left_alone(qemu: QemuBench) -> None:
    uuid = new_uuid()
    folder = qemu.instance_folder(uuid)
    folder.mkdir(parents=True)
    (folder / "pid").write_text(f"{os.getpid()}\n")
    assert await qemu.hypervisor.list_instances() == set()
    await qemu.hypervisor.destroy(uuid)
    assert qemu.files(uuid) == []


async def test_2_a_name_that_is_no_uuid_reaches_no_folder(qemu: QemuBench) -> None:
    qemu.state.mkdir()
    with pytest.raises(Invalid):
        await qemu.hypervisor.destroy("../..")
    assert qemu.state.exists()


async def test_3_a_state_path_may_be_longer_than_a_sockets_address(tmp_path: Path) -> None:
    bench = QemuBench(tmp_path / ("deep" * 20) / ("deeper" * 20))
    bench.folder.mkdir(parents=True)
    try:
        uuid, info = await spawned(bench.hypervisor), bench.volume()
        await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
        assert await bench.hypervisor.disks(uuid) == {info["serial"]: "/dev/vdb"}
    finally:
        await bench.close()


async def test_3_the_guest_knows_a_volume_by_the_beginning_of_its_id(qemu: QemuBench) -> None:
    uuid, info = await spawned(qemu.hypervisor), qemu.volume()
    await qemu.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    device = device_id(info["serial"], "/dev/vdb")
    async with open_qmp(qemu.instance_folder(uuid), name=uuid, timeout_s=20) as qmp:
        serial = await qmp.execute("qom-get", {"path": f"/machine/peripheral/{device}", "property": "serial"})
    assert serial == info["serial"][:20]


async def test_4_a_guest_that_was_asked_before_is_asked_again_and_let_go_in_the_end(qemu: QemuBench) -> None:
    stubborn = qemu.stubborn()
    uuid, info = await spawned(stubborn), qemu.volume()
    await stubborn.attach_volume(info, uuid, "/dev/vdb")
    for _ in range(2):
        with pytest.raises(DeviceDetachFailed, match="/dev/vdb"):
            await stubborn.detach_volume(info["serial"], uuid)
    async with open_qmp(qemu.instance_folder(uuid), name=uuid, timeout_s=20) as qmp:
        await qmp.execute("system_reset")
        await qmp.wait_event(lambda event: event.data.get("device") is not None, timeout_s=20)
    await stubborn.detach_volume(info["serial"], uuid)
    assert await qemu.parts(uuid) == set()


async def test_4_a_volume_is_detached_though_a_reader_was_cut_short(qemu: QemuBench) -> None:
    uuid, info = await spawned(qemu.hypervisor), qemu.volume()
    await qemu.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    fields = {"driver": "raw", "node-name": "probe-range", "file": node_name(info["serial"]), "offset": 0, "size": 512}
    async with open_qmp(qemu.instance_folder(uuid), name=uuid, timeout_s=20) as qmp:
        await qmp.execute("blockdev-add", fields | {"read-only": True})
    assert await qemu.hypervisor.verify_pattern(uuid, info["serial"], pattern=0, offset=0, length=512)
    async with open_qmp(qemu.instance_folder(uuid), name=uuid, timeout_s=20) as qmp:
        await qmp.execute("blockdev-add", fields | {"read-only": True})
    await qemu.hypervisor.detach_volume(info["serial"], uuid)
    assert await qemu.parts(uuid) == set()


async def test_6_a_block_node_without_a_device_goes_with_the_next_detachment(qemu: QemuBench) -> None:
    uuid, info = await spawned(qemu.hypervisor), qemu.volume()
    async with open_qmp(qemu.instance_folder(uuid), name=uuid, timeout_s=20) as qmp:
        await qmp.execute("blockdev-add", plan_disk(info, machine=uuid, mountpoint="/dev/vdb").backend)
    await qemu.hypervisor.detach_volume(info["serial"], uuid)
    assert await qemu.parts(uuid) == set()


async def test_6_a_device_that_the_machine_refuses_takes_its_block_node_along(qemu: QemuBench) -> None:
    uuid, one, other = await spawned(qemu.hypervisor), qemu.volume(), qemu.volume()
    await qemu.hypervisor.attach_volume(one, uuid, "/dev/vdb")
    held = await qemu.parts(uuid)
    same_file = other | {"data": one["data"]}  # QEMU's lock on the image lets only one disk have it
    with pytest.raises(HypervisorRefused, match="lock"):
        await qemu.hypervisor.attach_volume(same_file, uuid, "/dev/vdc")
    assert await qemu.parts(uuid) == held


async def test_a_read_only_volume_cannot_be_written(qemu: QemuBench) -> None:
    uuid, info = await spawned(qemu.hypervisor), qemu.volume()
    await qemu.hypervisor.attach_volume(info | {"data": info["data"] | {"access_mode": "ro"}}, uuid, "/dev/vdb")
    with pytest.raises(HypervisorRefused):
        await qemu.hypervisor.write_pattern(uuid, info["serial"], pattern=1, offset=0, length=512)
    assert qemu.stored(info, 0, 512) == bytes(512)


async def test_a_machine_holds_as_many_volumes_as_the_option_says(qemu: QemuBench) -> None:
    many = qemu.qemu(QemuOptions(disks_max=24))
    uuid = await spawned(many)
    for letter in "bcdefghijklmnopqrstuvwxy":
        await many.attach_volume(qemu.volume(), uuid, f"/dev/vd{letter}")
    assert len(await many.disks(uuid)) == 24
    with pytest.raises(Misconfigured):
        QemuOptions(disks_max=25)


async def test_the_machines_folder_is_closed_to_other_users(qemu: QemuBench) -> None:
    uuid = await spawned(qemu.hypervisor)
    assert qemu.instance_folder(uuid).stat().st_mode & 0o077 == 0


async def test_a_relative_state_path_is_as_good(qemu: QemuBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(qemu.folder)
    hypervisor = QemuHypervisor(Path("state"), SystemClock(), QemuOptions(disks_max=DISKS_MAX))
    uuid, info = await spawned(hypervisor), qemu.volume()
    await hypervisor.attach_volume(info, uuid, "/dev/vdb")
    await hypervisor.write_pattern(uuid, info["serial"], pattern=1, offset=0, length=512)


def script(folder: Path, body: str) -> str:
    path = folder / "qemu.sh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


async def test_11_the_parts_of_an_attachment_that_was_cut_short_are_told(qemu: QemuBench) -> None:
    uuid, info, cut = await spawned(qemu.hypervisor), qemu.volume(), qemu.volume()
    await qemu.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    disk = plan_disk(cut, machine=uuid, mountpoint="/dev/vdc")
    async with open_qmp(qemu.instance_folder(uuid), name=uuid, timeout_s=20) as qmp:
        await qmp.execute("object-add", {"qom-type": "secret", "id": secret_id(disk.volume_id), "data": "x"})
        await qmp.execute("blockdev-add", disk.backend)
    parts = [f"block node {node_name(disk.volume_id)}", f"secret {secret_id(disk.volume_id)}"]
    assert await qemu.hypervisor.leftovers() == {uuid: parts}
    await qemu.hypervisor.detach_volume(disk.volume_id, uuid)
    assert await qemu.hypervisor.leftovers() == {}
