"""What a connection_info says about a volume, for every hypervisor alike; pure functions (attach-flow 6.1, 6.2).

Secrets are in fields that no `repr` shows.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nova_lite.errors import HypervisorRefused
from nova_lite.ports.connector import VOLUME_SIZE, size_flaw

VOLUME_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MOUNTPOINT = re.compile(r"/dev/([a-z]{1,16})")
_KEY = re.compile(r"^\s*key\s*=\s*(\S+)\s*$")
_IOTUNE = re.compile(r"(?:read|write|total)_(?:bytes|iops)_sec(?:_max)?|size_iops_sec")
"""The keys of qos_specs that a machine's disk can keep to; libvirt's <iotune> bears the same names."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file on this host."""

    path: str


@dataclass(frozen=True, slots=True)
class BlockSource:
    """A block device on this host: a local one, or what the host's own login at a target made."""

    path: str


@dataclass(frozen=True, slots=True)
class IscsiSource:
    """A LUN that the machine itself logs in to. `portal` is "host:port"; without CHAP user and password are None."""

    portal: str
    target: str
    lun: int
    initiator: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RbdSource:
    """An image of a Ceph pool.

    monitors      (host, port) of each
    user          cephx user without "client."; None: no authentication
    key           its key in base64, None where `secret_uuid` names one that libvirt knows
    """

    pool: str
    image: str
    monitors: tuple[tuple[str, str], ...]
    user: str | None = None
    key: str | None = field(default=None, repr=False)
    secret_uuid: str | None = None


Source = FileSource | BlockSource | IscsiSource | RbdSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume that is to be plugged.

    mountpoint    "/dev/vdb"
    iotune        limits by their names in cinder's qos_specs
    block_sizes   (logical, physical) in bytes where the storage names them
    size_gib      what the volume's row says; None: nobody said
    """

    volume_id: str
    mountpoint: str
    source: Source
    is_read_only: bool = False
    is_shareable: bool = False
    discards: bool = False
    iotune: Mapping[str, int] = field(default_factory=dict)
    block_sizes: tuple[int, int] | None = None
    size_gib: int | None = None

    @property
    def target(self) -> str:
        """ "vdb" """
        return self.mountpoint.removeprefix("/dev/")


def read_volume(connection_info: Mapping[str, Any], *, machine: str, mountpoint: str, is_block_device: bool = False) -> Volume:
    """The volume of a connection_info.

    is_block_device   whether data.device_path of a `local` volume is a block device and not a file
    Raises HypervisorRefused when something is missing or of a kind that no machine here is given.
    """
    volume_id = str(connection_info.get("serial") or "")
    if not VOLUME_ID.fullmatch(volume_id):
        raise refused(machine, "connection_info's serial is not a volume id")
    if not MOUNTPOINT.fullmatch(mountpoint):
        raise refused(machine, f"{mountpoint!r} is not a disk's name")
    try:
        data = connection_info["data"]
        return Volume(
            volume_id=volume_id,
            mountpoint=mountpoint,
            source=_source(connection_info, data, machine=machine, is_block_device=is_block_device),
            is_read_only=data.get("access_mode") == "ro",
            is_shareable=bool(connection_info.get("multiattach")),
            discards=bool(data.get("discard")),
            iotune={key: int(value) for key, value in (data.get("qos_specs") or {}).items() if _IOTUNE.fullmatch(key)},
            block_sizes=_block_sizes(data),
            size_gib=None if connection_info.get(VOLUME_SIZE) is None else int(connection_info[VOLUME_SIZE]),
        )
    except KeyError as exc:
        raise refused(machine, f"connection_info lacks {exc.args[0]}") from exc
    except (TypeError, ValueError, AttributeError) as exc:
        raise refused(machine, "connection_info's data is not of the form of its driver_volume_type") from exc


def refused(machine: str, reason: str) -> HypervisorRefused:
    """What is wrong with what `attach_volume` was given."""
    return HypervisorRefused(name=machine, command="attach_volume", reason=reason)


def check_size(size_gib: int | None, found: int, *, machine: str, volume_id: str) -> None:
    """Raises HypervisorRefused unless a disk of `found` bytes can be the volume."""
    if (flaw := size_flaw(size_gib, found, shown=f"the disk that the storage shows as volume {volume_id}")) is not None:
        raise refused(machine, flaw)


def parse_keyring(text: str, user: str) -> str | None:
    """The key of `client.<user>` in a keyring's text; None when it is not there.

    Source: Ceph, "User Management", section "Keyring Management".
    """
    wanted, is_there = f"[client.{user}]", False
    for line in text.splitlines():
        if line.strip().startswith("["):
            is_there = line.strip() == wanted
        elif is_there and (match := _KEY.match(line)):
            return match[1]
    return None


def _source(connection_info: Mapping[str, Any], data: Mapping[str, Any], *, machine: str, is_block_device: bool) -> Source:
    match connection_info["driver_volume_type"]:
        case "local":
            path = str(data["device_path"])
            return BlockSource(path) if is_block_device else FileSource(path)
        case "iscsi" if data.get("device_path"):
            return BlockSource(str(data["device_path"]))
        case "iscsi":
            return _iscsi(connection_info, data)
        case "rbd":
            return _rbd(data, machine)
        case other:
            raise refused(machine, f"driver_volume_type {other!r} is not among iscsi, local, rbd")


def _iscsi(connection_info: Mapping[str, Any], data: Mapping[str, Any]) -> IscsiSource:
    initiator = (connection_info.get("connector") or {}).get("initiator")
    chap = data.get("auth_method") == "CHAP"
    return IscsiSource(
        portal=str(data["target_portal"]),
        target=str(data["target_iqn"]),
        lun=int(data["target_lun"]),
        initiator=str(initiator) if initiator else None,
        user=str(data["auth_username"]) if chap else None,
        password=str(data["auth_password"]) if chap else None,
    )


def _rbd(data: Mapping[str, Any], machine: str) -> RbdSource:
    pool, _, image = str(data["name"]).partition("/")
    if not pool or not image:
        raise refused(machine, "connection_info's data.name is not <pool>/<image>")
    monitors = tuple((str(host), str(port)) for host, port in zip(data["hosts"], data["ports"], strict=True))
    if not data.get("auth_enabled"):
        return RbdSource(pool, image, monitors)
    user = str(data["auth_username"])
    key = parse_keyring(str(data["keyring"]), user) if data.get("keyring") else None
    secret_uuid = str(data["secret_uuid"]) if data.get("secret_uuid") else None
    if key is None and secret_uuid is None:
        raise refused(machine, f"no key of client.{user} is in connection_info's keyring, and it names no secret_uuid")
    return RbdSource(pool, image, monitors, user, key, secret_uuid)


def _block_sizes(data: Mapping[str, Any]) -> tuple[int, int] | None:
    logical, physical = data.get("logical_block_size"), data.get("physical_block_size")
    if logical is None and physical is None:
        return None
    logical = int(logical or physical or 0)
    return logical, int(physical or logical)
