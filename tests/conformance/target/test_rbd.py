"""The target of driver rbd: records, and who watches an image."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cinder_lite.certify.target_bench import available_volume, connector
from cinder_lite.errors import ExportFailure
from cinder_lite.ports.target import Export
from cinder_lite.targets.rbd import RbdAccess, RbdTarget
from tests.simulation.bench import Workbench


class Ceph:
    """Images with watchers."""

    def __init__(self) -> None:
        self.watched: dict[str, list[str]] = {}

    async def monitors(self) -> list[tuple[str, str]]:
        return [("192.0.2.1", "6789"), ("2001:db8::1", "6789")]

    async def watchers(self, image: str) -> Sequence[str]:
        return self.watched.get(image, [])


ACCESS = RbdAccess("volumes", "cinder", "ceph", "457eb676-33da-42ec-9a8c-9293d545c337", Ceph().monitors, Ceph().watchers)


def target(folder: Path, ceph: Ceph, *, user: str = "cinder") -> RbdTarget:
    access = replace(ACCESS, user=user, monitors=ceph.monitors, watchers=ceph.watchers, last_watch_s=0.0)
    return RbdTarget(folder, access, Workbench().process.clock)


def new_export() -> Export:
    volume = available_volume()
    return Export(volume, f"rbd:volumes/{volume.name}")


async def test_connection_info_is_that_of_cinders_rbd_driver(tmp_path: Path) -> None:
    """attach-flow 6.2."""
    made, export = target(tmp_path, Ceph()), new_export()
    await made.check_for_setup_error()
    await made.create_export(export)
    assert await made.initialize_connection(export, connector()) == {
        "driver_volume_type": "rbd",
        "data": {
            "name": f"volumes/{export.volume.name}",
            "hosts": ["192.0.2.1", "2001:db8::1"],
            "ports": ["6789", "6789"],
            "cluster_name": "ceph",
            "auth_enabled": True,
            "auth_username": "cinder",
            "secret_type": "ceph",
            "secret_uuid": "457eb676-33da-42ec-9a8c-9293d545c337",
            "volume_id": export.volume.id,
            "discard": True,
            "access_mode": "rw",
            "encrypted": False,
            "qos_specs": None,
        },
    }


async def test_without_a_user_hosts_are_told_of_no_login(tmp_path: Path) -> None:
    made, export = target(tmp_path, Ceph(), user=""), new_export()
    await made.check_for_setup_error()
    await made.create_export(export)
    assert (await made.initialize_connection(export, connector()))["data"]["auth_enabled"] is False


async def test_a_connection_is_not_over_while_somebody_has_the_image_open(tmp_path: Path) -> None:
    ceph, export = Ceph(), new_export()
    made = target(tmp_path, ceph)
    await made.check_for_setup_error()
    await made.create_export(export)
    await made.initialize_connection(export, connector())
    ceph.watched[export.volume.name] = ["192.0.2.7:0/1234"]
    with pytest.raises(ExportFailure, match=r"open still at 192\.0\.2\.7:0/1234"):
        await made.terminate_connection(export, connector())
    assert await made.hosts(export.volume) == {"cmp1"}
    ceph.watched.clear()
    await made.terminate_connection(export, connector())
    assert await made.hosts(export.volume) == set()


async def test_the_volume_of_another_driver_is_refused(tmp_path: Path) -> None:
    made, export = target(tmp_path, Ceph()), new_export()
    await made.check_for_setup_error()
    with pytest.raises(ExportFailure, match="another driver's volume"):
        await made.create_export(replace(export, path="/dev/sda"))
    assert await made.exports() == set()
