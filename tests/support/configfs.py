"""A folder that behaves towards rtslib-fb as the kernel's configfs does: what is made comes with its attributes, what is used stays.

It shows that the calls are the right ones in the right order, and what they leave when their process dies between two of them. It moves
no bytes. Sources: drivers/target/target_core_configfs.c and target_core_fabric_configfs.c; what rtslib-fb reads and writes.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cinder_lite.ports.target import Chap
from cinder_lite.targets import lio_tree

_DEVICE = {
    "alias": "", "control": "", "enable": "0", "info": "Status: DEACTIVATED", "udev_path": "", "attrib/emulate_write_cache": "0",
    "alua/": "", "wwn/vpd_unit_serial": "T10 VPD Unit Serial Number: ", "pr/res_holder": "",
}  # fmt: skip
_TPG = {
    "enable": "0", "attrib/authentication": "0", "attrib/generate_node_acls": "0", "param/AuthMethod": "CHAP,None",
    "auth/userid": "NULL", "auth/password": "NULL", "lun/": "", "acls/": "", "np/": "",
}  # fmt: skip
_ACL = {
    "info": "No active iSCSI Session for Initiator Endpoint", "cmdsn_depth": "64", "tag": "", "attrib/dataout_timeout": "3",
    "auth/userid": "NULL", "auth/password": "NULL", "auth/userid_mutual": "NULL", "auth/password_mutual": "NULL",
}  # fmt: skip
_KINDS: tuple[tuple[str, dict[str, str]], ...] = (
    (r"core/[a-z]+_\d+", {"hba_info": "HBA Index: 0"}),
    (r"core/[a-z]+_\d+/[^/]+", _DEVICE),
    (r"iscsi", {"lio_version": "v4", "discovery_auth/enforce_discovery_auth": "0"}),
    (r"iscsi/[^/]+", {}),
    (r"iscsi/[^/]+/tpgt_\d+", _TPG),
    (r"iscsi/[^/]+/tpgt_\d+/lun/lun_\d+", {"alua_tg_pt_gp": ""}),
    (r"iscsi/[^/]+/tpgt_\d+/acls/[^/]+", _ACL),
    (r"iscsi/[^/]+/tpgt_\d+/acls/[^/]+/lun_\d+", {"write_protect": "0"}),
    (r"iscsi/[^/]+/tpgt_\d+/np/[^/]+", {"iser": "0", "cxgbit": "0"}),
)
"""What may be made by mkdir, and what the kernel puts into it."""


class Killed(BaseException):
    """The process dies here: nothing that it does afterwards has an effect."""


class FakeConfigfs:
    """The tree `folder`/target.

    blocks      paths of plain files that pass for block devices
    taken       portals, "<ip>:<port>", that another program listens on
    dies_after  changes of the tree until the process dies; None: it lives
    changes     changes of the tree that were made
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "target"
        self.blocks: set[str] = set()
        self.taken: set[str] = set()
        self.dies_after: int | None = None
        self.changes = 0
        self._config: dict[Path, dict[str, str]] = {}
        (self.root / "core").mkdir(parents=True)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """rtslib-fb works on this tree inside the block."""
        rtslib: Any = pytest.importorskip("rtslib_fb")
        real = {name: getattr(os, name) for name in ("mkdir", "rmdir", "unlink", "symlink")}
        write_text = Path.write_text

        def written(path: Path, text: str, *args: Any, **options: Any) -> int:
            return self._write(path, text) if self._is_mine(path) else write_text(path, text, *args, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rtslib.node.CFSNode, "configfs_dir", str(self.root))
            patch.setattr(rtslib.root, "mount_configfs", lambda: None)
            patch.setattr(rtslib.tcm, "lock_file", str(self.root.parent / "rtslib.lock"))
            patch.setattr(rtslib.tcm, "get_blockdev_type", lambda path: 0 if str(path) in self.blocks else None)
            patch.setattr(rtslib.tcm, "is_dev_in_use", lambda path: False)
            patch.setattr(lio_tree, "is_block_device", lambda path: Path(path).exists() and path in self.blocks)
            for module in (rtslib.root, rtslib.fabric):
                patch.setattr(module, "modprobe", lambda name: None)
            patch.setattr(os, "mkdir", self._hooked(real["mkdir"], self._mkdir))
            patch.setattr(os, "rmdir", self._hooked(real["rmdir"], self._rmdir))
            patch.setattr(os, "unlink", self._hooked(real["unlink"], self._unlink))
            patch.setattr(os, "symlink", self._hooked_link(real["symlink"]))
            patch.setattr(Path, "write_text", written)
            self._real = real
            self._write_text = write_text
            yield

    # -- what a test sees and does --------------------------------------------------------------------------------------

    def tree(self) -> dict[str, str]:
        """Every attribute and link by its path; the random name of a link is not shown."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                found[f"{Path(name).parent}/->"] = str(path.resolve().relative_to(self.root))
            elif path.is_file():
                found[name] = path.read_text()
            else:
                found[f"{name}/"] = ""
        return found

    def log_in(self, iqn: str, initiator: str, chap: Chap | None) -> str | None:
        """What an initiator meets: the path that it reads from then on, or None when it is turned away."""
        tpg = self.root / "iscsi" / iqn / "tpgt_1"
        acl = tpg / "acls" / initiator
        if not acl.is_dir() or (tpg / "enable").read_text() != "1" or not any((tpg / "np").iterdir()):
            return None
        wanted = (acl / "auth/userid").read_text(), (acl / "auth/password").read_text()
        given = (chap.username, chap.password) if chap else ("", "")
        if (tpg / "attrib/authentication").read_text() == "1" and wanted != given:
            return None
        path = self._served(acl)
        if path is not None:
            state = f"InitiatorName: {initiator}\nLIO Session ID: 1  ISID: 0x00  TSIH: 1  SessionType: Normal\n"
            self._write_text(acl / "info", f"{state}Session State: TARG_SESS_STATE_LOGGED_IN\n")
        return path

    def capacity(self, path: str, iqn: str) -> int:
        """What READ CAPACITY tells: a device's own size, a plain file's when it was set up."""
        if path in self.blocks:
            return Path(path).stat().st_size
        device = next(device for device in (self.root / "core").glob(f"*/{iqn}"))
        return int(self._config[device]["fd_dev_size"])

    def sessions(self, iqn: str) -> set[str]:
        acls = self.root / "iscsi" / iqn / "tpgt_1/acls"
        found = acls.iterdir() if acls.is_dir() else ()
        return {acl.name for acl in found if (acl / "info").read_text().startswith("InitiatorName")}

    # -- the kernel -----------------------------------------------------------------------------------------------------

    def _hooked(self, real: Callable[..., None], act: Callable[[Path], None]) -> Callable[..., None]:
        def hooked(path: Any, *args: Any, **options: Any) -> None:
            act(Path(path)) if self._is_mine(path) else real(path, *args, **options)

        return hooked

    def _hooked_link(self, real: Callable[..., None]) -> Callable[..., None]:
        def hooked(source: Any, path: Any, *args: Any, **options: Any) -> None:
            self._symlink(Path(source), Path(path)) if self._is_mine(path) else real(source, path, *args, **options)

        return hooked

    def _is_mine(self, path: Any) -> bool:
        return isinstance(path, str | Path) and Path(path).is_relative_to(self.root)

    def _change(self) -> None:
        if self.dies_after is not None and self.changes >= self.dies_after:
            raise Killed
        self.changes += 1

    def _mkdir(self, path: Path) -> None:
        name = str(path.relative_to(self.root))
        found = next((files for pattern, files in _KINDS if re.fullmatch(pattern, name)), None)
        if path.exists():
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        if found is None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        if path.parent.name == "np" and path.name in self.taken:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))
        self._change()
        self._real["mkdir"](path)
        for file, text in found.items():
            folder = path / (file if file.endswith("/") else str(Path(file).parent))
            for each in reversed([folder, *folder.parents]):
                if each.is_relative_to(path) and not each.is_dir():
                    self._real["mkdir"](each)
            if not file.endswith("/"):
                self._write_text(path / file, text)

    def _rmdir(self, path: Path) -> None:
        links = [link for link in self.root.rglob("*") if link.is_symlink()]
        made = [entry for entry in path.rglob("*") if entry.is_dir() and self._is_made(entry)]
        if made or any(link.resolve() == path or link.is_relative_to(path) for link in links):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        self._change()
        for entry in sorted(path.rglob("*"), reverse=True):
            self._real["rmdir" if entry.is_dir() else "unlink"](entry)
        self._real["rmdir"](path)
        self._config.pop(path, None)

    def _is_made(self, path: Path) -> bool:
        return any(re.fullmatch(pattern, str(path.relative_to(self.root))) for pattern, _ in _KINDS)

    def _unlink(self, path: Path) -> None:
        if not path.is_symlink():
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        self._change()
        self._real["unlink"](path)
        self._tell_status()

    def _symlink(self, source: Path, path: Path) -> None:
        """A device that is not enabled cannot be a LUN; a LUN that leads nowhere cannot be mapped."""
        is_device = source.parts[-3] == "core"
        if (is_device and (source / "enable").read_text() != "1") or (not is_device and self._device_of(source) is None):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), str(source))
        if any(entry.is_symlink() for entry in path.parent.iterdir()):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self._change()
        self._real["symlink"](source, path)
        self._tell_status()

    def _write(self, path: Path, text: str) -> int:
        if not path.is_file():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        self._change()
        device, text = path.parent, text.strip()
        match path.name:
            case "control" if device.parts[-3] == "core":
                self._config.setdefault(device, {}).update(
                    (pair.partition("=")[0], pair.partition("=")[2]) for pair in text.split(",")
                )
                return len(text)
            case "enable" if device.parts[-3] == "core":
                self._enable(device)
            case "vpd_unit_serial":
                text = f"T10 VPD Unit Serial Number: {text}"
        self._write_text(path, text)
        return len(text)

    def _enable(self, device: Path) -> None:
        config = self._config.get(device, {})
        if not ({"fd_dev_name", "udev_path"} & config.keys()):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(device))
        self._write_text(device / "enable", "1")
        self._tell_status()

    def _tell_status(self) -> None:
        used = {link.resolve() for link in (self.root / "iscsi").rglob("*") if link.is_symlink()}
        for device, config in self._config.items():
            if (device / "enable").read_text() == "1":
                status = f"Status: {'ACTIVATED' if device in used else 'DEACTIVATED'}  Max Queue Depth: 128  SectorSize: 512"
                if "fd_dev_name" in config:
                    size = config.get("fd_dev_size", "0")
                    what = f"TCM FILEIO ID: 0  File: {config['fd_dev_name']}  Size: {size}  Mode: O_DSYNC Async: 0"
                else:
                    what = f"iBlock device: sda  UDEV PATH: {config['udev_path']}  readonly: 0  exclusive: 1"
                self._write_text(device / "info", f"{status}\n        {what}\n")

    def _device_of(self, lun: Path) -> Path | None:
        return next((entry.resolve() for entry in lun.iterdir() if entry.is_symlink()), None)

    def _served(self, acl: Path) -> str | None:
        for mapped in acl.glob("lun_0"):
            lun = self._device_of(mapped)
            device = None if lun is None else self._device_of(lun)
            if device is not None:
                return (device / "udev_path").read_text()
        return None
