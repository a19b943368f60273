"""The kernel's own word on SCSI disks of iSCSI sessions: which there are, whose they are, how large; and what is asked of it.

Source: Linux, Documentation/ABI/testing/sysfs-block, drivers/scsi/scsi_sysfs.c and scsi_transport_iscsi.c.
"""

from dataclasses import dataclass
from pathlib import Path

_SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class ScsiDisk:
    """A disk of a session.

    name   "sdb"
    wwid   the kernel's identifier of the logical unit, "naa.6...", None where it has none
    """

    name: str
    host: int
    lun: int
    size: int
    wwid: str | None


class Sysfs:
    """`root` is /sys. Every method reads or writes small files of the kernel's; all may raise OSError."""

    def __init__(self, root: Path = Path("/sys")) -> None:
        self._root = root

    def target_of(self, sid: int) -> str | None:
        """The name of the target that a session is logged in to; None: there is no such session."""
        return _text(self._root / f"class/iscsi_session/session{sid}/targetname")

    def disks_of(self, sid: int) -> list[ScsiDisk]:
        """The disks that a session has now."""
        found = []
        for block in sorted(self._root.glob(f"class/iscsi_host/host*/device/session{sid}/target*/*:*:*:*/block/*")):
            host, _, _, lun = block.parent.parent.name.split(":")
            size = int(_text(block / "size") or 0) * _SECTOR_BYTES
            found.append(ScsiDisk(block.name, int(host), int(lun), size, _text(block.parent.parent / "wwid")))
        return found

    def hosts_of(self, sid: int) -> list[int]:
        """The numbers of the SCSI hosts of a session: one."""
        found = self._root.glob(f"class/iscsi_host/host*/device/session{sid}")
        return sorted(int(path.parent.parent.name.removeprefix("host")) for path in found)

    def scan(self, host: int, lun: int) -> None:
        """Ask the kernel to look for that LUN: channel 0, target 0, as iSCSI has them."""
        (self._root / f"class/scsi_host/host{host}/scan").write_text(f"0 0 {lun}")

    def delete(self, disk: ScsiDisk) -> None:
        """Ask the kernel to forget a disk."""
        (self._root / f"block/{disk.name}/device/delete").write_text("1")

    def number_of(self, disk: ScsiDisk) -> str | None:
        """ "8:16": what the disk's node in /dev must be."""
        return _text(self._root / f"block/{disk.name}/dev")


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
