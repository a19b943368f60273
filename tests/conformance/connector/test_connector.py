"""The port's suite: every adapter of nova_lite.ports.connector runs it. Names carry the numbers of the port's guarantees."""

import copy
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from common.base.errors import Invalid
from common.base.ids import new_uuid
from common.testing.script import When
from nova_lite.brick.fake import FakeConnector
from nova_lite.brick.host import HostConnector
from nova_lite.errors import VolumeConnectionFailed
from nova_lite.ports.connector import Connector
from tests.simulation.adapters import SimulatedConnector
from tests.simulation.bench import Workbench
from tests.simulation.reality import Host

INITIATOR = "iqn.2010-10.org.openstack:0123456789ab"
SECRET = "Sesame-never-shown-16"


@dataclass
class Bench:
    """An adapter; `failing` makes the next connection of a `local` volume fail and gives its connection_info."""

    connector: Connector
    without_initiator: Connector
    failing: Callable[[], dict[str, Any]]
    folder: Path

    def local(self) -> dict[str, Any]:
        path = self.folder / "volume.img"
        path.touch()
        return {"driver_volume_type": "local", "serial": new_uuid(), "data": {"device_path": str(path)}}


@pytest.fixture(params=["fake", "host", "simulation"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    absent = {"driver_volume_type": "local", "serial": new_uuid(), "data": {"device_path": str(tmp_path / "absent")}}
    if request.param == "fake":
        fake = FakeConnector(host="cmp1", ip="10.0.0.21", initiator=INITIATOR)

        def failing() -> dict[str, Any]:
            fake.script.fail_next("connect_volume", VolumeConnectionFailed(volume_id=absent["serial"], reason="scripted"))
            return absent

        return Bench(fake, FakeConnector(host="cmp1", ip="10.0.0.21", initiator=None), failing, tmp_path)
    if request.param == "simulation":
        return simulated(tmp_path, absent)
    (tmp_path / "initiatorname.iscsi").write_text(f"InitiatorName={INITIATOR}\n")
    return Bench(host(tmp_path / "initiatorname.iscsi"), host(tmp_path / "no-such-file"), lambda: absent, tmp_path)


def simulated(folder: Path, absent: dict[str, Any]) -> Bench:
    workbench = Workbench()

    def connector(initiator: str) -> SimulatedConnector:
        return SimulatedConnector(Host("cmp1", initiator), workbench.process, ip="10.0.0.21")

    def failing() -> dict[str, Any]:
        workbench.fail_next("connector.connect_volume")
        return absent

    return Bench(connector(INITIATOR), connector(""), failing, folder)


def host(initiator_file: Path, *, userspace_iscsi: bool = True) -> HostConnector:
    return HostConnector(host="cmp1", my_ip="10.0.0.21", initiator_file=initiator_file, userspace_iscsi=userspace_iscsi)


def iscsi() -> dict[str, Any]:
    data = {"target_portal": "10.0.0.4:3260", "target_iqn": "iqn.x:volume", "target_lun": 1, "auth_password": SECRET}
    return {"driver_volume_type": "iscsi", "serial": new_uuid(), "data": data}


async def test_1_the_properties_are_those_of_os_brick(bench: Bench) -> None:
    assert await bench.connector.get_connector_properties() == {
        "platform": platform.machine(),
        "os_type": sys.platform,
        "ip": "10.0.0.21",
        "host": "cmp1",
        "multipath": False,
        "enforce_multipath": False,
        "do_local_attach": False,
        "initiator": INITIATOR,
    }


async def test_1_a_host_without_an_initiator_does_not_name_one(bench: Bench) -> None:
    assert "initiator" not in await bench.without_initiator.get_connector_properties()


async def test_2_a_local_volume_is_where_its_path_says(bench: Bench) -> None:
    info = bench.local()
    assert await bench.connector.connect_volume(info) == {"type": "local", "path": info["data"]["device_path"]}


async def test_2_an_iscsi_volume_that_the_machine_logs_in_to_needs_nothing_of_the_host(bench: Bench) -> None:
    assert await bench.connector.connect_volume(iscsi()) == {"type": "network"}


async def test_2_connecting_again_gives_the_same_answer(bench: Bench) -> None:
    info = bench.local()
    assert await bench.connector.connect_volume(info) == await bench.connector.connect_volume(info)


async def test_2_connection_info_is_not_changed(bench: Bench) -> None:
    info = bench.local()
    before = copy.deepcopy(info)
    await bench.connector.connect_volume(info)
    assert info == before


async def test_2_an_unknown_kind_of_connection_is_invalid_and_named(bench: Bench) -> None:
    with pytest.raises(Invalid, match="smoke_signals"):
        await bench.connector.connect_volume(bench.local() | {"driver_volume_type": "smoke_signals"})


async def test_3_disconnecting_twice_or_what_was_never_connected_does_nothing(bench: Bench) -> None:
    info = bench.local()
    await bench.connector.connect_volume(info)
    await bench.connector.disconnect_volume(info)
    await bench.connector.disconnect_volume(info)
    await bench.connector.disconnect_volume(iscsi())


async def test_4_a_failed_connection_can_be_taken_back_and_tried_again(bench: Bench) -> None:
    info = bench.failing()
    with pytest.raises(VolumeConnectionFailed):
        await bench.connector.connect_volume(info)
    await bench.connector.disconnect_volume(info)
    (bench.folder / "absent").touch()
    assert (await bench.connector.connect_volume(info))["type"] == "local"


async def test_5_connections_are_told_where_connecting_makes_any(bench: Bench) -> None:
    info = bench.local()
    if await bench.connector.connections() is None:
        await bench.connector.connect_volume(info)
        assert await bench.connector.connections() is None
        return
    assert await bench.connector.connections() == set()
    await bench.connector.connect_volume(info)
    assert await bench.connector.connections() == {info["serial"]}
    await bench.connector.disconnect_volume(info)
    assert await bench.connector.connections() == set()


async def test_2_a_path_that_is_no_disk_is_refused_by_the_host(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path, "neither a file nor"),
        (tmp_path / "absent", "No such file"),
        (Path("/dev/null"), "neither a file nor"),
    ):
        info = {"driver_volume_type": "local", "serial": new_uuid(), "data": {"device_path": str(path)}}
        with pytest.raises(VolumeConnectionFailed, match=why):
            await host(tmp_path).connect_volume(info)


async def test_2_a_local_volume_without_a_path_is_refused_by_the_host(tmp_path: Path) -> None:
    with pytest.raises(VolumeConnectionFailed, match="device_path"):
        await host(tmp_path).connect_volume({"driver_volume_type": "local", "serial": new_uuid(), "data": {}})


async def test_2_a_host_whose_machines_speak_no_iscsi_says_so_and_shows_no_secret(tmp_path: Path) -> None:
    with pytest.raises(VolumeConnectionFailed, match="does not log in to iSCSI") as failure:
        await host(tmp_path, userspace_iscsi=False).connect_volume(iscsi())
    assert SECRET not in f"{failure.value!r} {failure.value.fields}"


async def test_the_fake_fails_after_the_effect_when_told_so() -> None:
    fake, info = FakeConnector(), iscsi()
    fake.script.fail_next("connect_volume", VolumeConnectionFailed(volume_id="v", reason="the answer was lost"), When.AFTER)
    with pytest.raises(VolumeConnectionFailed):
        await fake.connect_volume(info)
    assert fake.connected == {info["serial"]}
    await fake.disconnect_volume(info)
    assert fake.connected == set()
    assert fake.calls == [("connect_volume", info["serial"]), ("disconnect_volume", info["serial"])]
