"""LVM's programs: one method for each command, the words of a refusal as an error."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cinder_lite.drivers import lvm_report
from cinder_lite.drivers.lvm_report import LogicalVolume, PhysicalVolume, VolumeGroup
from cinder_lite.errors import VolumeBackendAPIException
from common.base.errors import Broken, Fault
from common.base.limits import COMMAND_OUTPUT_BYTES_MAX
from common.host.command import Output, run
from common.host.to_its_end import to_its_end

T = TypeVar("T")

SYSTEM_FOLDERS = "/usr/sbin:/sbin"
"""Where LVM's programs are; not on every user's PATH."""
COMMAND_TIMEOUT_S = 60.0
"""A command waits for the lock of its volume group, which another program may hold for a while."""

_NOISE = ("WARNING:", "Activation disabled", "File descriptor")


class LvmRefused(Fault):
    """{program} refused: {words}"""


@dataclass(frozen=True, slots=True)
class Lvm:
    """One volume group as its administrator sees it.

    is_activated   False: there is no device-mapper, and commands change the metadata only (--driverloaded n)
    system_dir     LVM_SYSTEM_DIR, the folder of lvm.conf; None: the system's
    """

    group: str
    is_activated: bool = True
    system_dir: Path | None = None
    timeout_s: float = COMMAND_TIMEOUT_S

    @property
    def environment(self) -> dict[str, str]:
        path = {
            "PATH": f"{os.environ.get('PATH', '/usr/bin:/bin')}:{SYSTEM_FOLDERS}",
            "LC_ALL": "C",
            "LVM_SUPPRESS_FD_WARNINGS": "1",
        }
        return path | ({"LVM_SYSTEM_DIR": str(self.system_dir)} if self.system_dir else {})

    async def ask(self, program: str, *options: str) -> str:
        """What a command of LVM printed. Raises LvmRefused with its words, CommandMissing, Timeout."""
        dry = () if self.is_activated else ("--driverloaded", "n")
        # Not to be broken off: LVM writes its metadata last, and what it has activated by then would be left.
        output = await to_its_end(run(program, *dry, *options, timeout_s=self.timeout_s, env=self.environment))
        if output.status != 0:
            raise LvmRefused(program=program, words=_words(output))
        return output.stdout

    async def volumes(self) -> dict[str, LogicalVolume]:
        """Raises VolumeBackendAPIException when the group is not there."""
        return _read(lvm_report.parse_lvs, await self._report("lvs", lvm_report.LV_FIELDS, self.group))

    async def groups(self) -> dict[str, VolumeGroup]:
        """Every volume group of this machine."""
        return _read(lvm_report.parse_vgs, await self._report("vgs", lvm_report.VG_FIELDS))

    async def room(self) -> VolumeGroup:
        found = _read(lvm_report.parse_vgs, await self._report("vgs", lvm_report.VG_FIELDS, self.group))
        return found[self.group]

    async def physical(self) -> tuple[PhysicalVolume, ...]:
        found = _read(lvm_report.parse_pvs, await self._report("pvs", lvm_report.PV_FIELDS))
        return tuple(physical for physical in found if physical.vg_name == self.group)

    def path(self, name: str) -> str:
        """As LVM's commands name it."""
        return f"{self.group}/{name}"

    async def _report(self, program: str, fields: str, *of: str) -> str:
        options = ("--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields)
        try:
            return await self.ask(program, *options, *of)
        except LvmRefused as exc:
            raise VolumeBackendAPIException(data=f"volume group {self.group}: {exc}") from exc


async def has_device_mapper() -> bool:
    """Whether the kernel can activate logical volumes. Raises CommandMissing when LVM is not installed."""
    output = await run("dmsetup", "version", timeout_s=COMMAND_TIMEOUT_S, env=Lvm("").environment)
    return output.status == 0


def _words(output: Output) -> str:
    """What is left of stderr without the warnings: LVM says why in the middle of them."""
    lines = [line.strip() for line in output.stderr.splitlines()]
    said = [line for line in lines if line and not line.startswith(_NOISE)]
    return "; ".join(said) or output.said


def _read(parse: Callable[[str], T], text: str) -> T:
    """Raises Broken for text that is no report, or that was cut off: a volume missed would be made twice."""
    if len(text) >= COMMAND_OUTPUT_BYTES_MAX:
        raise Broken(what="LVM's report", reason=f"it has more than {COMMAND_OUTPUT_BYTES_MAX} bytes; too many logical volumes")
    try:
        return parse(text)
    except (ValueError, LookupError) as exc:
        raise Broken(what="LVM's report", reason="it is not in the form of LVM 2.03") from exc
