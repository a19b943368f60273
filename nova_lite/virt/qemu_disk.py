"""A volume as QEMU's parts: a secret, a block node and a device; pure functions.

Every name follows from the volume id, so that an attachment that was cut short is recognised and mended. The device's id
also tells the mountpoint: what a machine has is read off the machine, and no file beside it can disagree.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nova_lite.errors import HypervisorRefused

SERIAL_CHARS = 20
"""What virtio-blk has room for; the guest sees /dev/disk/by-id/virtio-<first 20 characters of the volume id>."""

_NODE = "node-"
_SECRET = "chap-"  # noqa: S105  # the beginning of a name
_VOLUME_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOUNTPOINT = re.compile(r"/dev/([a-z]{1,16})")
_DEVICE_ID = re.compile(r"volume-([A-Za-z0-9_-]+)\.[a-z]+")


@dataclass(frozen=True, slots=True, repr=False)
class Disk:
    """A volume that is to be plugged.

    backend    arguments of `blockdev-add`, without the password
    password   CHAP secret, None without CHAP
    """

    volume_id: str
    mountpoint: str
    backend: Mapping[str, Any]
    password: str | None = None

    def __repr__(self) -> str:
        return f"Disk({self.volume_id!r}, {self.mountpoint!r})"

    @property
    def secret(self) -> dict[str, Any]:
        """Arguments of `object-add`."""
        return {"qom-type": "secret", "id": secret_id(self.volume_id), "data": self.password}

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


def plan_disk(connection_info: Mapping[str, Any], *, machine: str, mountpoint: str, block_device: bool = False) -> Disk:
    """The disk of attach-flow 6.1's connection_info.

    block_device   whether data.device_path of a `local` volume is a block device and not a file
    Raises HypervisorRefused when something is missing or of a kind that QEMU is not asked to do here.
    """
    volume_id = str(connection_info.get("serial") or "")
    if not _VOLUME_ID.fullmatch(volume_id):
        raise _refused(machine, "connection_info's serial is not a volume id")
    if not _MOUNTPOINT.fullmatch(mountpoint):
        raise _refused(machine, f"{mountpoint!r} is not a disk's name")
    try:
        backend, password = _backend(connection_info, machine=machine, block_device=block_device)
    except KeyError as exc:
        raise _refused(machine, f"connection_info lacks {exc.args[0]}") from exc
    except (TypeError, ValueError) as exc:
        raise _refused(machine, "connection_info's data is not of the form of its driver_volume_type") from exc
    data = connection_info["data"]
    backend |= {"node-name": node_name(volume_id), "read-only": data.get("access_mode") == "ro"}
    if data.get("discard"):
        backend["discard"] = "unmap"
    if password is not None:
        backend["password-secret"] = secret_id(volume_id)
    return Disk(volume_id, mountpoint, backend, password)


def _backend(connection_info: Mapping[str, Any], *, machine: str, block_device: bool) -> tuple[dict[str, Any], str | None]:
    data = connection_info["data"]
    match connection_info["driver_volume_type"]:
        case "local":
            driver = "host_device" if block_device else "file"
            return {"driver": driver, "filename": str(data["device_path"]), "cache": {"direct": False}}, None
        case "iscsi":
            return _iscsi(connection_info, data)
        case other:
            reason = f"driver_volume_type {other!r} is not among iscsi, local"
            raise _refused(machine, reason)


def _iscsi(connection_info: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    backend = {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": str(data["target_portal"]),
        "target": str(data["target_iqn"]),
        "lun": int(data["target_lun"]),
        "cache": {"direct": True},
    }
    initiator = (connection_info.get("connector") or {}).get("initiator")
    if initiator:
        backend["initiator-name"] = str(initiator)
    if data.get("auth_method") != "CHAP":
        return backend, None
    return backend | {"user": str(data["auth_username"])}, str(data["auth_password"])


def _refused(machine: str, reason: str) -> HypervisorRefused:
    return HypervisorRefused(name=machine, command="attach_volume", reason=reason)
