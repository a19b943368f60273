"""Writing and reading through a machine's own disk, with no guest system.

`qemu-io` on the monitor writes through the device as the guest would, but prints what it found to QEMU's own standard output,
where nobody can read it. So reading is a mirror job from the wanted range of the disk's block node into a file: it goes the
same way to the storage, and tells its errors over QMP.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.base.errors import Fault
from common.host.to_its_end import in_thread
from nova_lite.errors import HypervisorRefused
from nova_lite.virt.qemu_disk import node_name
from nova_lite.virt.qmp import Event
from nova_lite.virt.qmp_client import QmpClient

_RANGE = "probe-range"
_COPY = "probe-copy"
_JOB = "probe"

_CLEAR_TIMEOUT_S = 5.0


async def write_range(qmp: QmpClient, device: str, *, pattern: int, offset: int, length: int) -> str:
    """Write through the device; what the monitor said meanwhile, mostly nothing.

    Whether the disk took the bytes is to be read back: the monitor may complain of a first try whose second one succeeds, as
    after a target's restart, and says nothing of a write that failed.
    """
    words = f'qemu-io -d /machine/peripheral/{device}/virtio-backend "write -P {pattern} {offset} {length}"'
    return str(await qmp.execute("human-monitor-command", {"command-line": words})).strip()


async def read_range(qmp: QmpClient, volume_id: str, folder: Path, *, offset: int, length: int, timeout_s: float) -> bytes:
    """The bytes of a range of the machine's disk. Raises HypervisorRefused when the disk cannot give them."""
    await clear_probe(qmp)
    copy = folder / _COPY
    try:
        await in_thread(_make_file, copy, length)
        await qmp.execute("blockdev-add", _range(volume_id, offset=offset, length=length))
        await qmp.execute("blockdev-add", {"driver": "file", "node-name": _COPY, "filename": str(copy)})
        await qmp.execute("blockdev-mirror", {"job-id": _JOB, "device": _RANGE, "target": _COPY, "sync": "full"})
        await _mirrored(qmp, volume_id, timeout_s=timeout_s)
        return await asyncio.to_thread(copy.read_bytes)
    finally:
        with suppress(Fault, TimeoutError):
            async with asyncio.timeout(_CLEAR_TIMEOUT_S):
                await clear_probe(qmp)
        copy.unlink(missing_ok=True)


async def clear_probe(qmp: QmpClient) -> None:
    """Remove what a reading left, of this process or of one before it; nothing there: nothing happens."""
    jobs = await qmp.execute("query-block-jobs")
    if any(job["device"] == _JOB for job in jobs):
        await qmp.execute("block-job-cancel", {"device": _JOB, "force": True})
        await qmp.wait_event(_is_over, timeout_s=_CLEAR_TIMEOUT_S)
    nodes = {node["node-name"] for node in await qmp.execute("query-named-block-nodes", {"flat": True})}
    for node in (_COPY, _RANGE):
        if node in nodes:
            await qmp.execute("blockdev-del", {"node-name": node})


async def _mirrored(qmp: QmpClient, volume_id: str, *, timeout_s: float) -> None:
    error: list[str] = []

    def settled(event: Event) -> bool:
        if event.name == "BLOCK_JOB_COMPLETED" and event.data.get("device") == _JOB:
            error.append(str(event.data.get("error")))
        return event.name == "JOB_STATUS_CHANGE" and event.data.get("id") == _JOB and event.data.get("status") in {"ready", "null"}

    event = await qmp.wait_event(settled, timeout_s=timeout_s)
    if event is None:
        reason = f"the disk gave its bytes not within {timeout_s:g} s"
    elif event.data["status"] == "null":
        reason = f"the disk cannot be read: {' '.join(error)}"
    else:
        return
    raise HypervisorRefused(name=volume_id, command="blockdev-mirror", reason=reason)


def _is_over(event: Event) -> bool:
    return event.name == "JOB_STATUS_CHANGE" and event.data.get("id") == _JOB and event.data.get("status") == "null"


def _range(volume_id: str, *, offset: int, length: int) -> dict[str, Any]:
    fields = {"driver": "raw", "node-name": _RANGE, "file": node_name(volume_id)}
    return fields | {"offset": offset, "size": length, "read-only": True}


def _make_file(path: Path, length: int) -> None:
    with path.open("wb") as file:
        file.truncate(length)
