"""What only a guest system can show: that it sees the disk, keeps it, lets go of it, and shuts down when it is asked to."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.base.ids import new_uuid
from common.host.clock import SystemClock
from nova_lite.errors import DeviceDetachFailed, HypervisorUnavailable
from nova_lite.virt.qemu import QemuHypervisor
from nova_lite.virt.qmp_client import open_qmp
from tests.conformance.hypervisor.bench import ConnectionInfo, IscsiVolumes
from tests.conformance.hypervisor.tgt_daemon import TgtDaemon
from tests.support.guests import GuestShell, console, filled, guest_instance, guest_options, save_state

pytestmark = [pytest.mark.real("qemu", "guest"), pytest.mark.timeout(120)]

MIB = 1024 * 1024
VOLUME_MIB = 8


@pytest.fixture(scope="module")
def state(real_parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a guest that was booted once."""
    real_parts.need("qemu")
    real_parts.need("guest")
    return asyncio.run(save_state(tmp_path_factory.mktemp("guest")))


@pytest.fixture
async def hypervisor(state: Path, tmp_path: Path) -> AsyncIterator[QemuHypervisor]:
    made = QemuHypervisor(
        tmp_path, SystemClock(), guest_options(saved_state=str(state), detach_timeout_s=3.0, command_timeout_s=5.0)
    )
    try:
        yield made
    finally:
        for uuid in await made.list_instances():
            await made.destroy(uuid)


@pytest.fixture
async def uuid(hypervisor: QemuHypervisor) -> str:
    """A machine's, whose guest is at work."""
    instance = guest_instance()
    await hypervisor.spawn(instance)
    return instance.uuid


@pytest.fixture
async def guest(hypervisor: QemuHypervisor, uuid: str) -> AsyncIterator[GuestShell]:
    async with console(hypervisor, uuid) as shell:
        yield shell


@pytest.fixture
def volume(tmp_path: Path) -> ConnectionInfo:
    path = tmp_path / "volume.img"
    path.touch()
    os.truncate(path, VOLUME_MIB * MIB)
    return {"driver_volume_type": "local", "serial": new_uuid(), "data": {"device_path": str(path)}}


async def test_3_the_guest_finds_the_volume_by_its_id_and_what_it_writes_is_there(
    hypervisor: QemuHypervisor, uuid: str, guest: GuestShell, volume: ConnectionInfo
) -> None:
    await hypervisor.attach_volume(volume, uuid, "/dev/vdb")
    assert await guest.size(volume["serial"]) == VOLUME_MIB * MIB
    assert await guest.write(volume["serial"], "what the guest wrote", at_mib=5) == filled("what the guest wrote")
    assert await guest.sum(volume["serial"], at_mib=5) == filled("what the guest wrote")
    assert await guest.sum(volume["serial"], at_mib=6) == filled(None)
    await hypervisor.detach_volume(volume["serial"], uuid)
    assert await guest.run("ls /sys/block | grep -c ^vd || true") == "0"


async def test_4_a_guest_that_does_not_answer_keeps_the_disk_and_lets_go_when_it_is_asked_again(
    hypervisor: QemuHypervisor, uuid: str, guest: GuestShell, volume: ConnectionInfo
) -> None:
    await hypervisor.attach_volume(volume, uuid, "/dev/vdb")
    await guest.disk(volume["serial"])
    await tell(hypervisor, uuid, "stop")
    with pytest.raises(DeviceDetachFailed, match=r"/dev/vdb did not leave the machine .* within 3 s"):
        await hypervisor.detach_volume(volume["serial"], uuid)
    assert await hypervisor.disks(uuid) == {volume["serial"]: "/dev/vdb"}
    await tell(hypervisor, uuid, "cont")
    await hypervisor.detach_volume(volume["serial"], uuid)
    assert await hypervisor.disks(uuid) == {}
    assert await hypervisor.leftovers() == {}


@pytest.mark.real("tgt")
async def test_10_a_target_that_dies_under_the_guests_writes_holds_up_that_machine_and_no_other(
    hypervisor: QemuHypervisor, uuid: str, guest: GuestShell, tmp_path: Path
) -> None:
    """QEMU's blockdev-del waits for a target that is gone, and with it everything that QEMU does."""
    other, tgt = guest_instance(), TgtDaemon(tmp_path)
    try:
        info = IscsiVolumes(tmp_path, tgt).volume()
        await hypervisor.spawn(other)
        await hypervisor.attach_volume(info, uuid, "/dev/vdb")
        device = await guest.disk(info["serial"])
        tgt.pause()
        await guest.run(f"(yes | dd of={device} bs=64k count=8 2>/dev/null; sync) > /dev/null 2>&1 &")
        with pytest.raises((HypervisorUnavailable, DeviceDetachFailed)):
            await hypervisor.detach_volume(info["serial"], uuid)
        assert await hypervisor.disks(other.uuid) == {}
        assert await hypervisor.list_instances() == {uuid, other.uuid}
        tgt.go_on()
        await freed(hypervisor, info["serial"], uuid)
        assert tgt.sessions(info["data"]["target_iqn"]) == 0
    finally:
        tgt.go_on()
        tgt.stop()


async def test_12_a_guest_that_is_asked_to_shut_down_writes_what_it_has_first(
    hypervisor: QemuHypervisor, uuid: str, guest: GuestShell, volume: ConnectionInfo
) -> None:
    await hypervisor.attach_volume(volume, uuid, "/dev/vdb")
    device = await guest.disk(volume["serial"])
    await guest.run(
        f"printf '#!/bin/sh\\necho farewell > {device}\\nsync\\npoweroff -f\\n' > /tmp-bye; cat /tmp-bye > /etc/acpi/PWRF/00000080"
    )
    await hypervisor.power_off(uuid, timeout_s=60)
    assert stored(volume).startswith(b"farewell\n")
    assert await hypervisor.leftovers() == {}


async def test_12_a_guest_that_does_not_shut_down_is_ended(hypervisor: QemuHypervisor, uuid: str, guest: GuestShell) -> None:
    await guest.run("killall acpid")
    await hypervisor.power_off(uuid, timeout_s=0.5)
    assert await hypervisor.list_instances() == set()


async def test_14_the_guest_sees_the_volume_grow(
    hypervisor: QemuHypervisor, uuid: str, guest: GuestShell, volume: ConnectionInfo
) -> None:
    await hypervisor.attach_volume(volume, uuid, "/dev/vdb")
    device = await guest.disk(volume["serial"])
    os.truncate(volume["data"]["device_path"], 2 * VOLUME_MIB * MIB)
    await hypervisor.extend_volume(volume, uuid, 2 * VOLUME_MIB * MIB)
    await guest.until(f"[ $(blockdev --getsize64 {device}) = {2 * VOLUME_MIB * MIB} ]")


def stored(volume: ConnectionInfo) -> bytes:
    return Path(volume["data"]["device_path"]).read_bytes()


async def tell(hypervisor: QemuHypervisor, uuid: str, command: str) -> None:
    async with open_qmp(hypervisor.folder_of(uuid), name=uuid, timeout_s=20) as qmp:
        await qmp.execute(command)


async def freed(hypervisor: QemuHypervisor, volume_id: str, uuid: str) -> None:
    """Returns once the machine lets go, as its reconciler would ask it again."""
    async with asyncio.timeout(60):
        while True:
            try:
                await hypervisor.detach_volume(volume_id, uuid)
            except (HypervisorUnavailable, DeviceDetachFailed):
                continue
            return
