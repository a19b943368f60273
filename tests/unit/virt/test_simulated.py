"""What is peculiar to simulated machines. The port itself is in tests/conformance/hypervisor."""

from pathlib import Path
from typing import Any

import pytest

from common.base.errors import Invalid
from common.base.ids import new_uuid
from common.host.clock import SystemClock
from nova_lite.contract import Instance, VmState
from nova_lite.errors import HypervisorRefused, HypervisorUnavailable
from nova_lite.virt.simulated import MACHINE_FILE, SimulatedHypervisor


async def spawned(hypervisor: SimulatedHypervisor) -> str:
    uuid = new_uuid()
    await hypervisor.spawn(Instance(uuid=uuid, display_name="vm", vm_state=VmState.BUILDING))
    return uuid


@pytest.fixture
def hypervisor(tmp_path: Path) -> SimulatedHypervisor:
    return SimulatedHypervisor(tmp_path, SystemClock())


async def test_an_iscsi_volume_is_refused_with_what_to_do_instead(hypervisor: SimulatedHypervisor) -> None:
    info: dict[str, Any] = {"driver_volume_type": "iscsi", "serial": new_uuid(), "data": {"auth_password": "sesame"}}
    with pytest.raises(HypervisorRefused, match="give the volume a local target, or run machines in QEMU") as failure:
        await hypervisor.attach_volume(info, await spawned(hypervisor), "/dev/vdb")
    assert "sesame" not in str(failure.value)


async def test_a_file_that_is_no_machine_is_told_of(hypervisor: SimulatedHypervisor, tmp_path: Path) -> None:
    uuid = await spawned(hypervisor)
    (tmp_path / "instances" / uuid / MACHINE_FILE).write_text("{")
    with pytest.raises(HypervisorUnavailable, match="its state on this host"):
        await hypervisor.disks(uuid)
    await hypervisor.destroy(uuid)


async def test_a_disk_whose_file_went_away_refuses_to_be_written(hypervisor: SimulatedHypervisor, tmp_path: Path) -> None:
    uuid, volume_id, path = await spawned(hypervisor), new_uuid(), tmp_path / "volume.img"
    path.write_bytes(bytes(4096))
    info = {"driver_volume_type": "local", "serial": volume_id, "data": {"device_path": str(path)}}
    await hypervisor.attach_volume(info, uuid, "/dev/vdb")
    path.unlink()
    with pytest.raises(HypervisorRefused, match="No such file"):
        await hypervisor.write_pattern(uuid, volume_id, pattern=1, offset=0, length=512)
    assert not path.exists()
    await hypervisor.detach_volume(volume_id, uuid)


async def test_a_name_that_is_no_uuid_reaches_no_folder(hypervisor: SimulatedHypervisor, tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        await hypervisor.destroy("..")
    assert list(tmp_path.parent.glob(tmp_path.name)) == [tmp_path]
