"""A volume as QEMU's parts: a secret, a block node and a device; pure functions.

Every name follows from the volume id, so that an attachment that was cut short is recognised and mended. The device's id
also tells the mountpoint: what a machine has is read off the machine, and no file beside it can disagree.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from nova_lite.virt.host_side import CEPH_CONF
from nova_lite.virt.volume_source import (
    BlockSource,
    FileSource,
    IscsiSource,
    RbdSource,
    Source,
    Volume,
    read_volume,
    refused,
)

SERIAL_CHARS = 20
"""What virtio-blk has room for; the guest sees /dev/disk/by-id/virtio-<first 20 characters of the volume id>."""

_NODE = "node-"
_SECRET = "chap-"  # noqa: S105  # the beginning of a name
_DEVICE_ID = re.compile(r"volume-([A-Za-z0-9_-]+)\.[a-z]+")


@dataclass(frozen=True, slots=True)
class Disk:
    """A volume that is to be plugged.

    backend           arguments of `blockdev-add`, without the password
    password          CHAP secret or cephx key, None without one
    password_format   how the password is written: "raw" or "base64"
    size_gib          what the volume's row says; None: nobody said
    """

    volume_id: str
    mountpoint: str
    backend: Mapping[str, Any] = field(repr=False)
    password: str | None = field(default=None, repr=False)
    password_format: str = "raw"  # noqa: S105  # a format's name
    size_gib: int | None = None

    @property
    def secret(self) -> dict[str, Any]:
        """Arguments of `object-add`."""
        secret = {"qom-type": "secret", "id": secret_id(self.volume_id), "data": self.password}
        return secret if self.password_format == "raw" else secret | {"format": self.password_format}  # noqa: S105

    def device(self, bus: str) -> dict[str, Any]:
        """Arguments of `device_add`."""
        return {
            "driver": "virtio-blk-pci",
            "id": device_id(self.volume_id, self.mountpoint),
            "drive": node_name(self.volume_id),
            "bus": bus,
            "serial": self.volume_id[:SERIAL_CHARS],
        }


def device_id(volume_id: str, mountpoint: str) -> str:
    """ "volume-<volume id>.vdb" """
    return f"volume-{volume_id}.{mountpoint.removeprefix('/dev/')}"


def volume_of(device: str) -> str | None:
    """The volume id of a device id; None for a device that is no volume."""
    match = _DEVICE_ID.fullmatch(device)
    return match[1] if match else None


def mountpoint_of(device: str) -> str:
    """ "/dev/vdb" of a volume's device id."""
    return f"/dev/{device.rpartition('.')[2]}"


def node_name(volume_id: str) -> str:
    """The block node's name. QEMU allows 31 characters, a UUID has 36."""
    return f"{_NODE}{_digest(volume_id)}"


def secret_id(volume_id: str) -> str:
    """The secret object's id."""
    return f"{_SECRET}{_digest(volume_id)}"


def is_node_name(name: str) -> bool:
    """True for what `node_name` gives."""
    return name.startswith(_NODE)


def is_secret_id(name: str) -> bool:
    """True for what `secret_id` gives."""
    return name.startswith(_SECRET)


def _digest(volume_id: str) -> str:
    return hashlib.sha256(volume_id.encode()).hexdigest()[:24]


def plan_disk(
    connection_info: Mapping[str, Any], *, machine: str, mountpoint: str, block_device: bool = False, ceph_conf: str = CEPH_CONF
) -> Disk:
    """The disk of attach-flow 6's connection_info.

    block_device   whether data.device_path of a `local` volume is a block device and not a file
    ceph_conf      path of the file that bounds librbd's waits
    Raises HypervisorRefused when something is missing or of a kind that QEMU is not asked to do here.
    """
    volume = read_volume(connection_info, machine=machine, mountpoint=mountpoint, is_block_device=block_device)
    return disk_of(volume, machine=machine, ceph_conf=ceph_conf)


def disk_of(volume: Volume, *, machine: str, ceph_conf: str) -> Disk:
    """The same of a volume that was read already."""
    backend, password = _backend(volume.source, machine, ceph_conf)
    backend |= {"node-name": node_name(volume.volume_id), "read-only": volume.is_read_only}
    if volume.discards:
        backend["discard"] = "unmap"
    is_rbd = isinstance(volume.source, RbdSource)
    if password is not None:
        backend["key-secret" if is_rbd else "password-secret"] = secret_id(volume.volume_id)
    return Disk(
        volume_id=volume.volume_id,
        mountpoint=volume.mountpoint,
        backend=backend,
        password=password,
        password_format="base64" if is_rbd else "raw",
        size_gib=volume.size_gib,
    )


def _backend(source: Source, machine: str, ceph_conf: str) -> tuple[dict[str, Any], str | None]:
    match source:
        case FileSource(path):
            return {"driver": "file", "filename": path, "cache": {"direct": False}}, None
        case BlockSource(path):
            return {"driver": "host_device", "filename": path, "cache": {"direct": False}}, None
        case IscsiSource():
            return _iscsi(source), source.password
        case RbdSource():
            if source.user is not None and source.key is None:
                raise refused(machine, f"QEMU needs the key of client.{source.user}, and libvirt's secrets are not its own")
            return _rbd(source, ceph_conf), source.key
        case unknown:
            assert_never(unknown)


def _iscsi(source: IscsiSource) -> dict[str, Any]:
    backend = {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": source.portal,
        "target": source.target,
        "lun": source.lun,
        "cache": {"direct": True},
    }
    if source.initiator is not None:
        backend["initiator-name"] = source.initiator
    return backend if source.user is None else backend | {"user": source.user}


def _rbd(source: RbdSource, ceph_conf: str) -> dict[str, Any]:
    """`conf` bounds how long a monitor that is down may hold the machine up: without it that is five minutes."""
    backend: dict[str, Any] = {
        "driver": "rbd",
        "pool": source.pool,
        "image": source.image,
        "server": [{"host": host, "port": port} for host, port in source.monitors],
        "conf": ceph_conf,
        "cache": {"direct": False},
    }
    if source.user is None:
        return backend | {"auth-client-required": ["none"]}
    return backend | {"user": source.user, "auth-client-required": ["cephx"]}
