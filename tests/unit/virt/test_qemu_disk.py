from typing import Any

import pytest

from nova_lite.errors import HypervisorRefused
from nova_lite.virt.qemu_disk import device_id, mountpoint_of, node_name, plan_disk, secret_id, volume_of

VOLUME = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
NODE = "node-" + secret_id(VOLUME).removeprefix("chap-")
SECRET = "Sesame-never-shown-16"

ISCSI: dict[str, Any] = {
    "driver_volume_type": "iscsi",
    "serial": VOLUME,
    "connector": {"initiator": "iqn.x:cmp1"},
    "data": {
        "target_portal": "10.0.0.4:3260",
        "target_iqn": "iqn.2010-10.org.openstack:volume-1",
        "target_lun": 1,
        "auth_method": "CHAP",
        "auth_username": "u1",
        "auth_password": SECRET,
        "access_mode": "rw",
    },
}
LOCAL: dict[str, Any] = {"driver_volume_type": "local", "serial": VOLUME, "data": {"device_path": "/var/lib/volumes/1"}}


def with_data(info: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return info | {"data": info["data"] | changes}


def without(info: dict[str, Any], key: str) -> dict[str, Any]:
    return info | {"data": {name: value for name, value in info["data"].items() if name != key}}


def test_an_iscsi_volume_as_qemus_parts() -> None:
    disk = plan_disk(ISCSI, machine="vm", mountpoint="/dev/vdb")
    assert disk.backend == {
        "driver": "iscsi",
        "node-name": NODE,
        "read-only": False,
        "transport": "tcp",
        "portal": "10.0.0.4:3260",
        "target": "iqn.2010-10.org.openstack:volume-1",
        "lun": 1,
        "user": "u1",
        "password-secret": secret_id(VOLUME),
        "initiator-name": "iqn.x:cmp1",
        "cache": {"direct": True},
    }
    assert disk.secret == {"qom-type": "secret", "id": secret_id(VOLUME), "data": SECRET}
    assert disk.device("rp3") == {
        "driver": "virtio-blk-pci",
        "id": f"volume-{VOLUME}.vdb",
        "drive": NODE,
        "bus": "rp3",
        "serial": "aaaaaaaa-bbbb-4ccc-8",
    }


def test_the_password_is_only_in_the_secret() -> None:
    disk = plan_disk(ISCSI, machine="vm", mountpoint="/dev/vdb")
    assert SECRET not in f"{disk!r} {disk} {disk.backend} {disk.device('rp1')}"


def test_a_target_without_chap_needs_no_secret() -> None:
    disk = plan_disk(without(ISCSI, "auth_method"), machine="vm", mountpoint="/dev/vdb")
    assert disk.password is None
    assert {"user", "password-secret"}.isdisjoint(disk.backend)


def test_a_host_without_an_initiator_name_leaves_it_to_qemu() -> None:
    for nameless in ({"connector": {"host": "cmp1"}}, {"connector": None}):
        disk = plan_disk(ISCSI | nameless, machine="vm", mountpoint="/dev/vdb")
        assert "initiator-name" not in disk.backend


def test_a_local_volume_is_a_file_or_a_block_device() -> None:
    disk = plan_disk(LOCAL, machine="vm", mountpoint="/dev/vdb")
    wanted = {"driver": "file", "filename": "/var/lib/volumes/1", "cache": {"direct": False}, "node-name": NODE, "read-only": False}
    assert disk.backend == wanted
    disk = plan_disk(LOCAL, machine="vm", mountpoint="/dev/vdb", block_device=True)
    assert disk.backend == wanted | {"driver": "host_device"}


KEY = "QVFEc2VzYW1lc2VzYW1lc2VzYW1lc2VzYW1lc2VzYW0="
RBD: dict[str, Any] = {
    "driver_volume_type": "rbd",
    "serial": VOLUME,
    "data": {
        "name": "volumes/volume-1",
        "hosts": ["10.0.0.11", "10.0.0.12"],
        "ports": ["6789", "3300"],
        "auth_enabled": True,
        "auth_username": "cinder",
        "keyring": f"[client.cinder]\n\tkey = {KEY}\n",
    },
}


def test_an_image_as_qemus_parts() -> None:
    disk = plan_disk(RBD, machine="vm", mountpoint="/dev/vdb", ceph_conf="/m/ceph.conf")
    assert disk.backend == {
        "driver": "rbd",
        "node-name": NODE,
        "read-only": False,
        "pool": "volumes",
        "image": "volume-1",
        "server": [{"host": "10.0.0.11", "port": "6789"}, {"host": "10.0.0.12", "port": "3300"}],
        "conf": "/m/ceph.conf",
        "cache": {"direct": False},
        "user": "cinder",
        "auth-client-required": ["cephx"],
        "key-secret": secret_id(VOLUME),
    }
    assert disk.secret == {"qom-type": "secret", "id": secret_id(VOLUME), "data": KEY, "format": "base64"}
    assert KEY not in f"{disk!r} {disk.backend}"


def test_a_cluster_without_cephx_needs_no_key() -> None:
    disk = plan_disk(with_data(RBD, auth_enabled=False), machine="vm", mountpoint="/dev/vdb")
    assert disk.password is None
    assert disk.backend["auth-client-required"] == ["none"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": "volume-1"}, "not <pool>/<image>"),
        ({"keyring": "[client.other]\nkey = AAAA"}, r"no key of client\.cinder"),
        ({"keyring": None, "secret_uuid": "457eb676-33da-42ec-9a8c-9293d545c337"}, "libvirt's secrets are not its own"),
        ({"ports": ["6789"]}, "not of the form"),
    ],
)
def test_what_is_wrong_with_an_image_is_named_and_no_key_shown(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(HypervisorRefused, match=word) as failure:
        plan_disk(with_data(RBD, **changes), machine="vm", mountpoint="/dev/vdb")
    assert "AAAA" not in str(failure.value)


def test_a_volume_that_the_host_itself_logged_in_to_is_a_block_device() -> None:
    disk = plan_disk(with_data(ISCSI, device_path="/dev/sdb"), machine="vm", mountpoint="/dev/vdb")
    assert (disk.backend["driver"], disk.backend["filename"], disk.password) == ("host_device", "/dev/sdb", None)


def test_access_mode_and_discard_are_passed_on() -> None:
    disk = plan_disk(with_data(LOCAL, access_mode="ro", discard=True), machine="vm", mountpoint="/dev/vdb")
    assert disk.backend["read-only"] is True
    assert disk.backend["discard"] == "unmap"


@pytest.mark.parametrize(
    ("info", "word"),
    [
        (without(ISCSI, "target_portal"), "target_portal"),
        (without(ISCSI, "auth_password"), "auth_password"),
        (without(LOCAL, "device_path"), "device_path"),
        (with_data(ISCSI, target_lun="one"), "not of the form"),
        (ISCSI | {"data": None}, "not of the form"),
        ({"driver_volume_type": "local", "serial": VOLUME}, "lacks data"),
        (ISCSI | {"driver_volume_type": "fibre_channel"}, "'fibre_channel' is not among iscsi, local, rbd"),
        (ISCSI | {"driver_volume_type": "rbd"}, "lacks name"),
        (ISCSI | {"serial": "a,b"}, "serial"),
        (without(ISCSI, "x") | {"serial": None}, "serial"),
    ],
)
def test_what_is_missing_or_wrong_is_named_and_no_secret_shown(info: dict[str, Any], word: str) -> None:
    with pytest.raises(HypervisorRefused, match=word) as failure:
        plan_disk(info, machine="vm", mountpoint="/dev/vdb")
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize("mountpoint", ["vdb", "/dev/vdb1", "/dev/vd,b", "/dev/", ""])
def test_a_mountpoint_that_is_no_disks_name_is_refused(mountpoint: str) -> None:
    with pytest.raises(HypervisorRefused, match="not a disk's name"):
        plan_disk(LOCAL, machine="vm", mountpoint=mountpoint)


def test_a_devices_id_tells_volume_and_mountpoint() -> None:
    name = device_id(VOLUME, "/dev/vdaa")
    assert volume_of(name) == VOLUME
    assert mountpoint_of(name) == "/dev/vdaa"
    assert volume_of("rp1") is None


def test_names_are_as_short_as_qemu_wants_them_and_differ_between_volumes() -> None:
    assert len(node_name("x" * 64)) <= 31
    assert node_name(VOLUME) != node_name(VOLUME.replace("a", "b"))
