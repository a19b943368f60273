"""How large a volume is by its storage's own word, before any machine has it."""

import json
from collections.abc import Mapping
from typing import Any

from common.base.errors import Timeout
from common.host.command import run
from nova_lite.errors import HypervisorRefused, HypervisorUnavailable
from nova_lite.virt.qemu_disk import disk_of, secret_id
from nova_lite.virt.volume_source import Volume

QEMU_IMG = "qemu-img"


async def shown_size(volume: Volume, *, machine: str, ceph_conf: str, timeout_s: float) -> int:
    """Bytes. qemu-img asks with the drivers that the machine itself would use; the secret goes to it on its standard input.

    Raises HypervisorRefused when the storage does, HypervisorUnavailable when it does not answer in time.
    """
    disk = disk_of(volume, machine=machine, ceph_conf=ceph_conf)
    argv = [QEMU_IMG, "info", "--output", "json", "--force-share"]
    if disk.password is not None:
        argv += ["--object", f"secret,id={secret_id(disk.volume_id)},format={disk.password_format},file=/dev/stdin"]
    stdin = None if disk.password is None else disk.password.encode()
    try:
        output = await run(*argv, image_name(disk.backend), timeout_s=timeout_s, stdin=stdin)
    except Timeout as exc:
        reason = f"the storage of volume {disk.volume_id} did not tell its size within {timeout_s:g} s"
        raise HypervisorUnavailable(name=machine, reason=reason) from exc
    if output.status:
        said = output.said if disk.password is None else output.said.replace(disk.password, "***")
        raise HypervisorRefused(name=machine, command=f"{QEMU_IMG} info", reason=said)
    return int(json.loads(output.stdout)["virtual-size"])


def image_name(backend: Mapping[str, Any]) -> str:
    """The arguments of `blockdev-add` as a file name of QEMU's tools. The guest is given raw disks, so nothing is guessed of a format."""
    protocol = {key: value for key, value in backend.items() if key not in {"node-name", "read-only", "discard"}}
    return "json:" + json.dumps({"driver": "raw", "file": protocol})
