"""What of the port's guarantees only libvirt can break: its daemon, its secrets, its definitions."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from common.app.carrier import alongside
from common.base.errors import Invalid, Misconfigured
from common.base.ids import new_uuid
from common.host.clock import SystemClock
from nova_lite.errors import HypervisorRefused, HypervisorUnavailable
from nova_lite.virt.libvirt import LibvirtHypervisor
from nova_lite.virt.libvirt_client import DEBIANS_PYTHON
from nova_lite.virt.libvirt_xml import LibvirtOptions, disk_secret, secret_uuid
from nova_lite.virt.volume_source import read_volume
from tests.conformance.hypervisor.bench import SECRET, instance, spawned
from tests.conformance.hypervisor.libvirt_bench import LibvirtBench, LibvirtIscsiBench
from tests.support.libvirtd import libvirtd

pytestmark = [pytest.mark.real("libvirt"), pytest.mark.real("qemu")]


async def test_1_a_libvirt_that_is_not_there_is_named_and_nothing_waits_for_it(tmp_path: Path) -> None:
    uri = f"qemu+unix:///session?socket={tmp_path}/no-such-socket"
    absent = LibvirtHypervisor(tmp_path, SystemClock(), LibvirtOptions(connection_uri=uri), host="cmp1")
    with pytest.raises(HypervisorUnavailable, match="no-such-socket"):
        await absent.spawn(instance(new_uuid()))


async def test_a_machine_without_the_binding_says_what_to_install(tmp_path: Path) -> None:
    blind = tmp_path / "python"
    blind.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"missing": "No module named libvirt"}\'\n')
    blind.chmod(0o755)
    hypervisor = LibvirtHypervisor(tmp_path, SystemClock(), LibvirtOptions(python=str(blind)), host="cmp1")
    for _ in range(2):
        with pytest.raises(Misconfigured, match=r"No module named libvirt.*install the package python3-libvirt"):
            await hypervisor.about()


async def test_a_name_that_is_no_uuid_is_nobodys(libvirt: LibvirtBench) -> None:
    with pytest.raises(Invalid):
        await libvirt.hypervisor.destroy("../..")


async def test_8_machines_and_disks_outlive_libvirtd(libvirt: LibvirtBench) -> None:
    uuid, info = await spawned(libvirt.hypervisor), libvirt.volume()
    await libvirt.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    libvirt.daemon.kill()
    with pytest.raises(HypervisorUnavailable):
        await libvirt.hypervisor.disks(uuid)
    libvirt.daemon.start()
    assert await libvirt.hypervisor.list_instances() == {uuid}
    assert await libvirt.hypervisor.disks(uuid) == {info["serial"]: "/dev/vdb"}
    await libvirt.hypervisor.detach_volume(info["serial"], uuid)
    assert await libvirt.hypervisor.disks(uuid) == {}


async def test_10_a_libvirtd_that_hangs_costs_an_operation_its_time_and_no_more(libvirt: LibvirtBench) -> None:
    impatient = libvirt.libvirt(replace(libvirt.options, command_timeout_s=0.5))
    libvirt.daemon.pause()
    try:
        async with asyncio.timeout(10):
            with pytest.raises(HypervisorUnavailable, match=r"has not done list within 0\.5 s"):
                await impatient.list_instances()
    finally:
        libvirt.daemon.go_on()
    assert await libvirt.hypervisor.list_instances() == set()


async def test_two_compute_hosts_on_one_libvirt_do_not_see_each_others_machines(libvirt: LibvirtBench) -> None:
    uuid = await spawned(libvirt.hypervisor)
    other = LibvirtHypervisor(libvirt.folder, SystemClock(), libvirt.options, host=f"{libvirt.host}-other")
    assert await other.list_instances() == set()
    assert await libvirt.hypervisor.list_instances() == {uuid}


@pytest.mark.real("tgt")
async def test_9_libvirt_keeps_no_secret_once_the_disk_is_there_or_refused(libvirt_iscsi: LibvirtIscsiBench) -> None:
    uuid, info, refused = await spawned(libvirt_iscsi.hypervisor), libvirt_iscsi.volume(), libvirt_iscsi.refusable()
    await libvirt_iscsi.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    with pytest.raises(HypervisorRefused, match="Authentication failure") as failure:
        await libvirt_iscsi.hypervisor.attach_volume(refused, uuid, "/dev/vdc")
    assert SECRET not in str(failure.value)
    assert not any(part.startswith("secret") for part in await libvirt_iscsi.parts(uuid))


@pytest.mark.real("tgt")
async def test_11_the_secret_of_an_attachment_that_was_cut_short_is_told_and_goes_with_the_next(
    libvirt_iscsi: LibvirtIscsiBench,
) -> None:
    uuid, info = await spawned(libvirt_iscsi.hypervisor), libvirt_iscsi.volume()
    secret = disk_secret(read_volume(info, machine=uuid, mountpoint="/dev/vdb"), uuid)
    assert secret is not None
    code = "import libvirt, sys; libvirt.open(sys.argv[1]).secretDefineXML(sys.argv[2])"
    process = await asyncio.create_subprocess_exec(DEBIANS_PYTHON, "-c", code, libvirt_iscsi.daemon.uri, secret.xml)
    assert await process.wait() == 0
    assert await libvirt_iscsi.hypervisor.leftovers() == {uuid: [f"secret {secret_uuid(info['serial'])}"]}
    await libvirt_iscsi.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    assert await libvirt_iscsi.hypervisor.leftovers() == {}


@pytest.mark.long
@pytest.mark.real("tgt")
async def test_6_an_attachment_to_a_target_that_does_not_answer_ends_in_time_and_is_mended_later(
    libvirt_iscsi: LibvirtIscsiBench,
) -> None:
    uuid, info = await spawned(libvirt_iscsi.hypervisor), libvirt_iscsi.volume()
    libvirt_iscsi.tgt.pause()
    impatient = libvirt_iscsi.libvirt(replace(libvirt_iscsi.options, command_timeout_s=2.0, detach_timeout_s=0.5))
    async with asyncio.timeout(20):
        with pytest.raises(HypervisorUnavailable, match="has not done attach within 2 s"):
            await impatient.attach_volume(info, uuid, "/dev/vdb")
    libvirt_iscsi.tgt.go_on()
    await libvirt_iscsi.hypervisor.detach_volume(info["serial"], uuid)
    assert libvirt_iscsi.sessions(info) == 0
    await libvirt_iscsi.hypervisor.attach_volume(info, uuid, "/dev/vdb")
    assert libvirt_iscsi.sessions(info) == 1


@pytest.mark.long
@pytest.mark.real("tgt")
@pytest.mark.skipif(os.getuid() != 0, reason="a system's libvirtd is root's")
async def test_a_systems_libvirt_does_the_same_as_a_users(tmp_path: Path) -> None:
    with libvirtd(is_system=True) as daemon:
        bench = LibvirtIscsiBench(daemon, tmp_path)
        try:
            uuid, info = await spawned(bench.hypervisor), bench.volume()
            await bench.hypervisor.attach_volume(info, uuid, "/dev/vdb")
            await bench.hypervisor.write_pattern(uuid, info["serial"], pattern=7, offset=0, length=4096)
            assert bench.stored(info, 0, 4096) == b"\x07" * 4096
            await bench.hypervisor.detach_volume(info["serial"], uuid)
            assert bench.sessions(info) == 0
            assert await bench.hypervisor.leftovers() == {}
        finally:
            await bench.close()


async def test_who_watches_is_told_of_machines_that_start_and_end_and_of_a_libvirtd_that_was_away(libvirt: LibvirtBench) -> None:
    told: asyncio.Queue[None] = asyncio.Queue()

    async def is_told() -> None:
        async with asyncio.timeout(30):
            await told.get()
        while not told.empty():
            told.get_nowait()

    async with alongside(libvirt.restarted().watch(lambda: told.put_nowait(None))):
        await is_told()
        for _ in range(2):
            uuid = await spawned(libvirt.hypervisor)
            await is_told()
            libvirt.send_signal(uuid, signal.SIGKILL)
            await is_told()
            libvirt.daemon.kill()
            libvirt.daemon.start()
            await is_told()
