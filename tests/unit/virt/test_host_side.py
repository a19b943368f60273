"""What of a connection_info only this host can tell."""

from pathlib import Path
from typing import Any

from nova_lite.virt.host_side import bound_ceph, ceph_conf_text, is_block_device, with_host_keyring
from nova_lite.virt.image_size import image_name

RBD: dict[str, Any] = {"driver_volume_type": "rbd", "data": {"name": "p/i", "auth_username": "cinder"}}


async def test_the_keyring_that_the_host_keeps_is_taken_where_cinder_sent_none(tmp_path: Path) -> None:
    assert await with_host_keyring(RBD, tmp_path) == RBD
    (tmp_path / "ceph.client.cinder.keyring").write_text("[client.cinder]\nkey = K\n")
    found = await with_host_keyring(RBD, tmp_path)
    assert found["data"]["keyring"] == "[client.cinder]\nkey = K\n"
    assert "keyring" not in RBD["data"]
    sent = {**RBD, "data": {**RBD["data"], "keyring": "[client.cinder]\nkey = other\n"}}
    assert await with_host_keyring(sent, tmp_path) == sent


async def test_another_clusters_keyring_has_that_clusters_name_and_no_name_leaves_the_folder(tmp_path: Path) -> None:
    (tmp_path / "far.client.cinder.keyring").write_text("x")
    (tmp_path.parent / "a.keyring").write_text("x")
    far = {**RBD, "data": {**RBD["data"], "cluster_name": "far"}}
    assert (await with_host_keyring(far, tmp_path))["data"]["keyring"] == "x"
    outside = {**RBD, "data": {**RBD["data"], "auth_username": "/../../a"}}
    assert "keyring" not in (await with_host_keyring(outside, tmp_path))["data"]


async def test_a_conf_bounds_every_wait_for_a_monitor_and_is_written_once(tmp_path: Path) -> None:
    path = await bound_ceph(tmp_path / "deep", 10.0)
    assert path.read_text() == ceph_conf_text(10.0)
    assert "client mount timeout = 10\nrados mon op timeout = 10\n" in path.read_text()
    before = path.stat().st_ino
    assert (await bound_ceph(tmp_path / "deep", 10.0)).stat().st_ino == before


async def test_a_file_is_no_block_device_nor_is_what_cannot_be_seen(tmp_path: Path) -> None:
    for path in (str(tmp_path), str(tmp_path / "absent"), "a\0b", None):
        assert not await is_block_device({"driver_volume_type": "local", "data": {"device_path": path}})
    assert not await is_block_device({"driver_volume_type": "iscsi", "data": {"device_path": "/dev/null"}})


def test_an_image_is_named_with_its_format_so_that_nobody_guesses_it_and_without_what_is_of_a_machine() -> None:
    backend = {"driver": "file", "filename": "/v", "node-name": "n", "read-only": True, "discard": "unmap"}
    assert image_name(backend) == 'json:{"driver": "raw", "file": {"driver": "file", "filename": "/v"}}'
