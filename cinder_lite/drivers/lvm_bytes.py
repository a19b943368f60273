"""Clearing and copying the bytes of block devices, by programs that can be killed."""

import os
from dataclasses import dataclass
from typing import Literal

from cinder_lite.drivers.lvm_commands import SYSTEM_FOLDERS
from cinder_lite.errors import VolumeBackendAPIException
from common.host.command import Output, run

MIB = 1024**2
BYTES_TIMEOUT_S = 3600.0
"""A terabyte at 300 MB/s; the step of a flow that waits for it has its own, shorter, limit."""


@dataclass(frozen=True, slots=True)
class Clearing:
    """What happens to the bytes of a volume before its room is given back (cinder's volume_clear and its options).

    method     "zero", or "none": the next volume may show them
    size_mib   volume_clear_size: only so many MiB from the beginning; 0: all
    ionice     volume_clear_ionice: options of ionice(1), as "-c3"; empty: none
    """

    method: Literal["zero", "none"] = "zero"
    size_mib: int = 0
    ionice: str = ""

    async def clear(self, device: str, size: int) -> None:
        """Raises VolumeBackendAPIException: the bytes are there still."""
        if self.method == "zero":
            await zero(device, min(size, self.size_mib * MIB) if self.size_mib else size, ionice=self.ionice)


async def zero(device: str, size: int, *, ionice: str = "") -> None:
    """`size` bytes from the beginning read as zeros. A device that can forget them does, else zeros are written."""
    nice = ("ionice", *ionice.split()) if ionice else ()
    punched = await _run(*nice, "fallocate", "--punch-hole", "--keep-size", "--offset", "0", "--length", str(size), device)
    if punched.status != 0:
        written = await _run(*nice, "blkdiscard", "--zeroout", "--offset", "0", "--length", str(size), device)
        _check(written, f"{device} could not be cleared")


async def copy(source: str, target: str, size: int) -> None:
    """The first `size` bytes of `target` are those of `source`, and zeros where it has zeros. Raises VolumeBackendAPIException."""
    await zero(target, size)
    output = await _run(
        "dd", f"if={source}", f"of={target}", f"count={size}", "bs=4M", "iflag=count_bytes,fullblock,direct",
        "oflag=direct", "conv=notrunc,sparse,fsync",
    )  # fmt: skip
    _check(output, f"{source} could not be copied to {target}")


async def _run(*argv: str) -> Output:
    path = f"{os.environ.get('PATH', '/usr/bin:/bin')}:{SYSTEM_FOLDERS}"
    return await run(*argv, timeout_s=BYTES_TIMEOUT_S, env={"PATH": path, "LC_ALL": "C"})


def _check(output: Output, what: str) -> None:
    if output.status != 0:
        said = output.stderr.strip().splitlines()
        raise VolumeBackendAPIException(data=f"{what}: {said[0] if said else f'exit status {output.status}'}")
