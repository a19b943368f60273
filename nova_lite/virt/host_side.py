"""What of a connection_info only this host can tell: what kind of file a path is, and which cephx key is kept here."""

import asyncio
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.host.to_its_end import in_thread
from nova_lite.errors import HypervisorRefused

CEPH_CONF = "ceph.conf"
"""Name of the file that bounds librbd's waits."""

KEYRINGS = Path("/etc/ceph")


def ceph_conf_text(timeout_s: float) -> str:
    """The text of CEPH_CONF: without it a monitor that is down holds a machine up for five minutes.

    Source: ceph, src/common/options: client_mount_timeout, rados_mon_op_timeout.
    """
    seconds = max(int(timeout_s), 1)
    return f"[global]\nclient mount timeout = {seconds}\nrados mon op timeout = {seconds}\n"


async def bound_ceph(folder: Path, timeout_s: float) -> Path:
    """The path of a CEPH_CONF in `folder` with these limits. Raises OSError."""
    return await in_thread(_write_conf, folder / CEPH_CONF, ceph_conf_text(timeout_s))


async def is_block_device(connection_info: Mapping[str, Any]) -> bool:
    """Whether data.device_path of a `local` volume is a block device."""
    return await asyncio.to_thread(_is_block_device, connection_info)


async def check_grown(connection_info: Mapping[str, Any], requested_size: int, *, machine: str) -> None:
    """Raises HypervisorRefused for a file or device of this host that is smaller: a machine that is told so would make it larger itself."""
    path = (connection_info.get("data") or {}).get("device_path")
    if connection_info.get("driver_volume_type") != "local" or not isinstance(path, str):
        return
    try:
        size = await asyncio.to_thread(_size, path)
    except OSError as exc:
        raise HypervisorRefused(name=machine, command="extend_volume", reason=f"{path}: {exc.strerror}") from exc
    if size < requested_size:
        reason = f"{path} has {size} bytes; wanted {requested_size}"
        raise HypervisorRefused(name=machine, command="extend_volume", reason=reason)


async def with_host_keyring(connection_info: Mapping[str, Any], folder: Path = KEYRINGS) -> Mapping[str, Any]:
    """The same, with the keyring that this host keeps for the volume's user, where cinder sent none and one is there.

    Source: Ceph, "CephX Config Reference", section "Keys": <cluster>.client.<user>.keyring.
    """
    data = connection_info.get("data")
    if connection_info.get("driver_volume_type") != "rbd" or not isinstance(data, Mapping) or data.get("keyring"):
        return connection_info
    name = f"{data.get('cluster_name') or 'ceph'}.client.{data.get('auth_username')}.keyring"
    text = None if os.sep in name else await asyncio.to_thread(_text, folder / name)
    return connection_info if text is None else {**connection_info, "data": {**data, "keyring": text}}


def _size(path: str) -> int:
    disk = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(disk, 0, os.SEEK_END)
    finally:
        os.close(disk)


def _write_conf(path: Path, text: str) -> Path:
    if _text(path) != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.new")
        draft.write_text(text)
        draft.replace(path)
    return path


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _is_block_device(connection_info: Mapping[str, Any]) -> bool:
    path = (connection_info.get("data") or {}).get("device_path")
    if connection_info.get("driver_volume_type") != "local" or not isinstance(path, str):
        return False
    try:
        return stat.S_ISBLK(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False
