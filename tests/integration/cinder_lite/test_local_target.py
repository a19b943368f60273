"""What only the local target has: records in files, and hosts that must be on this machine."""

import os
from dataclasses import replace
from pathlib import Path
from stat import S_IMODE

import pytest

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.errors import ExportFailure, TargetUnavailable
from cinder_lite.ports.target import Export
from cinder_lite.targets.local import LocalTarget, is_own_address


@pytest.fixture
def export(tmp_path: Path) -> Export:
    (tmp_path / "volume-1").touch()
    return Export(Volume(id="1", size=1, status=VolumeStatus.AVAILABLE), str(tmp_path / "volume-1"))


@pytest.fixture
async def target(tmp_path: Path) -> LocalTarget:
    made = LocalTarget(tmp_path, my_ip="192.0.2.10", is_own=lambda ip: ip == "127.0.0.1")
    await made.check_for_setup_error()
    return made


async def test_connection_info_is_the_one_of_the_local_connector(target: LocalTarget, export: Export) -> None:
    assert await target.create_export(export) == export.path
    assert await target.initialize_connection(export, {"host": "cmp1", "ip": "192.0.2.10"}) == {
        "driver_volume_type": "local",
        "data": {"device_path": export.path, "volume_id": "1", "access_mode": "rw", "encrypted": False, "qos_specs": None},
    }


async def test_a_host_on_another_machine_is_refused_by_name(target: LocalTarget, export: Export) -> None:
    await target.create_export(export)
    with pytest.raises(ExportFailure, match=r"host cmp9 is at 198\.51\.100\.9, which is not this machine"):
        await target.initialize_connection(export, {"host": "cmp9", "ip": "198.51.100.9"})
    assert await target.hosts(export.volume) == set()


async def test_several_hosts_on_this_machine_are_told_apart(target: LocalTarget, export: Export) -> None:
    await target.create_export(export)
    await target.initialize_connection(export, {"host": "cmp1", "ip": "127.0.0.1"})
    await target.initialize_connection(export, {"host": "cmp2", "ip": "127.0.0.1"})
    assert await target.hosts(export.volume) == {"cmp2"}


async def test_records_are_for_their_owner_and_outlive_the_process(target: LocalTarget, export: Export, tmp_path: Path) -> None:
    await target.create_export(export)
    await target.initialize_connection(export, {"host": "cmp1", "ip": "127.0.0.1"})
    assert {path.name: S_IMODE(path.stat().st_mode) for path in (tmp_path / "exports").iterdir()} == {"volume-1.json": 0o600}
    restarted = LocalTarget(tmp_path, my_ip="192.0.2.10")
    assert await restarted.exports() == {"volume-1"}
    assert await restarted.hosts(export.volume) == {"cmp1"}


async def test_a_record_that_cannot_be_read_is_written_anew(target: LocalTarget, export: Export, tmp_path: Path) -> None:
    await target.create_export(export)
    (tmp_path / "exports" / "volume-1.json").write_text('{"path": ')
    await target.create_export(export)
    await target.initialize_connection(export, {"host": "cmp1", "ip": "127.0.0.1"})
    assert await target.hosts(export.volume) == {"cmp1"}


async def test_a_record_is_replaced_whole_or_not_at_all(
    target: LocalTarget, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await target.create_export(export)
    await target.initialize_connection(export, {"host": "cmp1", "ip": "127.0.0.1"})

    def refuse(_fd: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(ExportFailure, match="No space left on device"):
            await target.initialize_connection(export, {"host": "cmp2", "ip": "127.0.0.1"})
    assert await target.hosts(export.volume) == {"cmp1"}
    assert [path.name for path in (tmp_path / "exports").iterdir()] == ["volume-1.json"]


async def test_a_path_that_is_not_there_is_not_exported(target: LocalTarget, export: Export) -> None:
    with pytest.raises(ExportFailure, match="is not there"):
        await target.create_export(replace(export, path=f"{export.path}.gone"))
    assert await target.exports() == set()


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "exports").touch()
    with pytest.raises(TargetUnavailable, match="exports cannot be used"):
        await LocalTarget(tmp_path, my_ip="127.0.0.1").check_for_setup_error()


@pytest.mark.parametrize(
    ("ip", "is_own"),
    [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("192.0.2.77", False), ("2001:db8::77", False), ("cmp1", False)],
)
def test_an_address_of_this_machine_is_known(ip: str, is_own: bool) -> None:
    assert is_own_address(ip) is is_own
