"""A private volume group on a loop device over a sparse file, of which the machine's own LVM sees nothing."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GROUP = "cinder-volumes"
SIZE_GIB = 16

_CONF = """
devices {{ filter = [ "a|^{device}$|", "r|.*|" ] use_devicesfile = 0 external_device_info_source = "none" obtain_device_list_from_udev = 0 }}
activation {{ udev_sync = 0 udev_rules = 0 }}
global {{ event_activation = 0 locking_dir = "{folder}/lock" }}
backup {{ backup = 0 archive = 0 }}
"""


@dataclass(frozen=True, slots=True)
class PrivateGroup:
    """device   the loop device that is its only physical volume; system_dir   LVM_SYSTEM_DIR for who is to see it"""

    device: str
    system_dir: Path


def missing() -> str | None:
    """What this machine lacks for it; None: nothing."""
    if os.geteuid() != 0:
        return "root, whom LVM and loop devices need"
    if not Path("/dev/loop-control").exists():
        return "/dev/loop-control"
    lacking = [name for name in ("lvcreate", "dmsetup", "losetup") if not Path("/usr/sbin", name).exists()]
    return f"{', '.join(lacking)} (package lvm2)" if lacking else None


@contextmanager
def private_group(folder: Path, *, size_gib: int = SIZE_GIB) -> Iterator[PrivateGroup]:
    """Inside, there is the volume group GROUP; nothing is left of it afterwards."""
    folder.mkdir(exist_ok=True)
    image = folder / "pv.img"
    image.touch()
    os.truncate(image, size_gib * 1024**3)
    device = _run("losetup", "--find", "--show", "--direct-io=on", str(image)).strip()
    try:
        (folder / "lock").mkdir()
        (folder / "lvm.conf").write_text(_CONF.format(device=device, folder=folder))
        group = PrivateGroup(device, folder)
        _run("pvcreate", "--driverloaded", "n", device, system_dir=folder)
        _run("vgcreate", "--driverloaded", "n", GROUP, device, system_dir=folder)
        yield group
    finally:
        for loop in json.loads(_run("losetup", "--list", "--json", "--output", "NAME,BACK-FILE") or "{}").get("loopdevices", []):
            if loop["back-file"] == device:
                _run("losetup", "--detach", loop["name"])
        _run("losetup", "--detach", device)
        image.unlink()


def _run(*argv: str, system_dir: Path | None = None) -> str:
    env = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C"} | (
        {"LVM_SYSTEM_DIR": str(system_dir)} if system_dir else {}
    )
    return subprocess.run(argv, env=env, check=True, capture_output=True, text=True, timeout=60).stdout
