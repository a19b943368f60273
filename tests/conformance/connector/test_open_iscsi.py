"""What of the port's guarantees only the kernel's initiator can break, on a stand-in for it: outcomes, stale disks, secrets."""

import json
from pathlib import Path

import pytest

from nova_lite.errors import VolumeConnectionFailed
from tests.conformance.connector.bench import SECRET, VOLUME_BYTES, OpenIscsiBench


@pytest.fixture
def bench(tmp_path: Path) -> OpenIscsiBench:
    return OpenIscsiBench(tmp_path)


async def test_2_the_steps_are_those_of_os_brick_and_the_secret_is_in_no_argument_vector(bench: OpenIscsiBench) -> None:
    info = bench.volume()
    target = info["data"]["target_iqn"]
    await bench.connector.connect_volume(info)
    node = ["-m", "node", "-T", target, "-p", "10.0.0.4:3260"]
    sessions = ["-m", "session"]
    assert bench.kernel.asked == [node, [*node, "--interface", "default", "--op", "new"], sessions, [*node, "--login"], sessions]
    record = next((bench.folder / "nodes").rglob("10.0.0.4,3260"))
    assert "node.session.scan = manual\n" in record.read_text()
    assert f"node.session.auth.password = {SECRET}\n" in record.read_text()
    assert record.read_text().endswith("# END RECORD\n")
    assert record.stat().st_mode & 0o077 == 0
    assert SECRET not in json.dumps(bench.kernel.asked)


async def test_3_a_disk_is_flushed_before_the_kernel_forgets_it(bench: OpenIscsiBench) -> None:
    info = bench.volume()
    await bench.connector.connect_volume(info)
    await bench.connector.disconnect_volume(info)
    assert bench.kernel.flushed == ["sdb"]


async def test_4_a_wrong_secret_is_called_that(bench: OpenIscsiBench) -> None:
    with pytest.raises(VolumeConnectionFailed, match="refuses the login: wrong CHAP credentials"):
        await bench.connector.connect_volume(bench.failing())


async def test_4_an_outcome_that_is_none_of_the_known_is_told_with_its_number(bench: OpenIscsiBench) -> None:
    bench.kernel.fail(("--login", 8))
    with pytest.raises(VolumeConnectionFailed, match=r"could not log in to .* \(exit status 8\): iscsiadm: scripted"):
        await bench.connector.connect_volume(bench.volume())
    assert bench.remains() == []


async def test_4_a_record_that_another_is_making_is_tried_once_more(bench: OpenIscsiBench) -> None:
    bench.kernel.fail(("new", 6))
    await bench.connector.connect_volume(bench.volume())


async def test_2_a_login_that_tells_of_a_session_and_makes_none_is_no_connection(bench: OpenIscsiBench) -> None:
    bench.kernel.fail(("--login", 15))
    with pytest.raises(VolumeConnectionFailed, match="no session of"):
        await bench.connector.connect_volume(bench.volume())


async def test_6_a_stale_disk_of_the_same_lun_is_forgotten_and_the_volume_itself_is_found(bench: OpenIscsiBench) -> None:
    info = bench.sized(bench.volume(), 1)
    target = info["data"]["target_iqn"]
    bench.kernel.serve(target, password=SECRET, size=1024**3)
    await bench.connector.connect_volume(info)
    bench.kernel.delete(bench.kernel.disks_of(1)[0])
    bench.kernel.show(1, {"size": VOLUME_BYTES, "lun": 1}, name="sdz")  # what the kernel remembers of the volume before
    device = await bench.connector.connect_volume(info)
    assert device["path"].endswith("/dev/sdb")


async def test_6_a_node_in_dev_that_is_another_device_is_not_given_out(bench: OpenIscsiBench) -> None:
    info = bench.volume()
    device = await bench.connector.connect_volume(info)
    node = bench.folder / "dev/sdb"
    right, stale = node.read_text(), "8:240"
    node.write_text(stale)
    assert await bench.connector.connect_volume(info) == device  # forgotten, and found anew with a node that is right
    assert node.read_text() == right


async def test_6_a_session_of_another_target_is_refused(bench: OpenIscsiBench) -> None:
    info = bench.volume()
    bench.kernel.serve(info["data"]["target_iqn"], password=SECRET, size=VOLUME_BYTES, answers_as="iqn.x:another")
    with pytest.raises(VolumeConnectionFailed, match="no session of"):
        await bench.connector.connect_volume(info)


async def test_a_connection_info_that_lacks_something_is_named_and_no_secret_shown(bench: OpenIscsiBench) -> None:
    info = bench.volume()
    del info["data"]["target_portal"]
    with pytest.raises(VolumeConnectionFailed, match="target_portal") as failure:
        await bench.connector.connect_volume(info)
    assert SECRET not in str(failure.value)


async def test_a_host_without_open_iscsi_says_what_is_missing(tmp_path: Path) -> None:
    bench = OpenIscsiBench(tmp_path)
    bench.kernel.program.unlink()
    with pytest.raises(Exception, match=r"iscsiadm is not on this machine.*Install it"):
        await bench.connector.connect_volume(bench.volume())
