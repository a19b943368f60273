"""The port's suite: every adapter of nova_lite.ports.connector runs it. Names carry the numbers of the port's guarantees."""

import asyncio
import copy
import logging
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.base.errors import Fault, Invalid
from common.base.ids import new_uuid
from common.testing.script import When
from nova_lite.brick.fake import FakeConnector
from nova_lite.errors import VolumeConnectionFailed
from tests.conformance.connector.bench import BENCHES, INITIATOR, SECRET, VOLUME_BYTES, Bench, host, iscsi


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    make: Callable[[Path], Bench] = BENCHES[request.param]
    return make(tmp_path)


def is_there(path: str) -> bool:
    return os.path.lexists(path)


async def seen(bench: Bench) -> set[str] | None:
    return await bench.restarted().connections()


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


async def test_2_a_connected_volume_is_a_path_on_the_host_or_the_machines_own_affair(bench: Bench) -> None:
    device = await bench.connector.connect_volume(bench.volume())
    if device["type"] == "network":
        assert "path" not in device
        return
    assert device["type"] in {"block", "local"}
    assert is_there(device["path"])


async def test_2_connecting_again_gives_the_same_answer_also_to_another_process(bench: Bench) -> None:
    info = bench.volume()
    device = await bench.connector.connect_volume(info)
    assert await bench.connector.connect_volume(info) == device
    assert await bench.restarted().connect_volume(info) == device


async def test_2_connecting_twice_at_once_makes_one_connection(bench: Bench) -> None:
    info = bench.volume()
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(bench.connector.connect_volume(info)) for _ in range(2)]
    assert both[0].result() == both[1].result()
    await bench.connector.disconnect_volume(info)
    assert bench.remains() == []


async def test_2_a_disk_on_the_network_that_the_machine_reaches_itself_needs_nothing_of_the_host(tmp_path: Path) -> None:
    for kind in ("iscsi", "rbd"):
        assert await host(tmp_path).connect_volume(iscsi(kind)) == {"type": "network"}


async def test_2_connection_info_is_not_changed(bench: Bench) -> None:
    info = bench.volume()
    before = copy.deepcopy(info)
    await bench.connector.connect_volume(info)
    await bench.connector.disconnect_volume(info)
    assert info == before


async def test_2_an_unknown_kind_of_connection_is_invalid_and_named(bench: Bench) -> None:
    with pytest.raises(Invalid, match="smoke_signals"):
        await bench.connector.connect_volume(bench.volume() | {"driver_volume_type": "smoke_signals"})
    assert bench.remains() == []


async def test_3_a_disconnected_volume_leaves_nothing_and_can_be_connected_again(bench: Bench) -> None:
    info = bench.volume()
    for _ in range(2):
        await bench.connector.connect_volume(info)
        await bench.connector.disconnect_volume(info)
        assert bench.remains() == []
        assert await seen(bench) in (None, set())


async def test_3_disconnecting_twice_or_what_was_never_connected_does_nothing(bench: Bench) -> None:
    info = bench.volume()
    await bench.connector.connect_volume(info)
    await bench.connector.disconnect_volume(info)
    await bench.connector.disconnect_volume(info)
    await bench.connector.disconnect_volume(bench.volume())


async def test_3_a_volume_is_disconnected_by_its_id_alone(bench: Bench) -> None:
    info = bench.volume()
    await bench.connector.connect_volume(info)
    await bench.restarted().disconnect_volume({"serial": info["serial"], "data": {}})
    assert await seen(bench) in (None, set())


async def test_3_one_volume_leaves_and_the_other_stays(bench: Bench) -> None:
    going, staying = bench.volume(), bench.volume()
    device = await bench.connector.connect_volume(staying)
    await bench.connector.disconnect_volume(going)
    assert await seen(bench) in (None, {staying["serial"]})
    assert await bench.connector.connect_volume(staying) == device


async def test_4_a_failed_connection_leaves_nothing_can_be_taken_back_and_tried_again(bench: Bench) -> None:
    info = bench.failing()
    with pytest.raises(VolumeConnectionFailed, match=info["serial"]):
        await bench.connector.connect_volume(info)
    assert bench.remains() == []
    await bench.connector.disconnect_volume(info)
    bench.mend(info)
    await bench.connector.connect_volume(info)
    assert await seen(bench) in (None, {info["serial"]})


async def test_4_no_secret_is_in_an_error_or_a_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    info = bench.failing()
    with pytest.raises(Fault) as failure:
        await bench.connector.connect_volume(info)
    assert SECRET not in f"{failure.value!r} {failure.value.fields} {failure.value.__cause__!r} {caplog.text} {bench.connector!r}"


async def test_5_connections_are_told_where_connecting_makes_any(bench: Bench) -> None:
    info = bench.volume()
    nothing = await bench.connector.connections()
    await bench.connector.connect_volume(info)
    if nothing is None:
        assert await seen(bench) is None
        return
    assert nothing == set()
    assert await seen(bench) == {info["serial"]}
    await bench.connector.disconnect_volume(info)
    assert await seen(bench) == set()


async def test_6_a_device_of_another_size_is_another_volume_and_refused(bench: Bench) -> None:
    info = bench.sized(bench.volume(), 1)
    with pytest.raises(VolumeConnectionFailed, match=f"has {VOLUME_BYTES} bytes, and the volume has 1 GiB: it is another one"):
        await bench.connector.connect_volume(info)
    assert bench.remains() == []


async def test_6_a_device_of_the_volumes_size_is_taken(bench: Bench) -> None:
    await bench.connector.connect_volume(bench.sized(bench.volume(), 0))


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
    with pytest.raises(VolumeConnectionFailed, match="does not log in to iscsi") as failure:
        await host(tmp_path, userspace_disks=False).connect_volume(iscsi())
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
