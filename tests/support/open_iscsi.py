"""A stand-in for open-iscsi and for the kernel's initiator: a program that answers as iscsiadm does, and a tree as /sys has it."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from common.host.clock import SystemClock
from nova_lite.brick.iscsi import IscsiConnector
from nova_lite.brick.iscsi_sysfs import ScsiDisk, Sysfs
from nova_lite.brick.iscsiadm import Iscsiadm

PORTAL = "10.0.0.4:3260"
_HOST = 3
_PROGRAM = """#!{python} -I
import json, pathlib, shutil, sys
root = pathlib.Path({root!r})
words = sys.argv[1:]
with (root / "asked").open("a") as asked:
    asked.write(json.dumps(words) + "\\n")
def end(status, text=""):
    print(text, file=sys.stderr if status else sys.stdout)
    sys.exit(status)
def option(name):
    return words[words.index(name) + 1] if name in words else None
fails = json.loads((root / "fails").read_text()) if (root / "fails").exists() else []
if fails and fails[0][0] in words:
    (root / "fails").write_text(json.dumps(fails[1:]))
    end(fails[0][1], "iscsiadm: scripted")
sessions = root / "sys/class/iscsi_session"
live = {{int(path.name[7:]): (path / "targetname").read_text().strip() for path in sorted(sessions.glob("session*"))}}
if "session" in words:
    if not live:
        end(21, "iscsiadm: No active sessions.")
    end(0, "\\n".join(f"tcp: [{{sid}}] {portal},1 {{target}} (non-flash)" for sid, target in live.items()))
target, op = option("-T"), option("--op")
record = root / "nodes" / target / {portal!r}.replace(":", ",")
if op == "new":
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text("# BEGIN RECORD 2.1.8\\nnode.name = " + target + "\\nnode.session.scan = auto\\n# END RECORD\\n")
    end(0, "New iSCSI node added")
if not record.exists():
    end(21, "iscsiadm: No records found")
if op == "delete":
    if target in live.values():
        end(15, "iscsiadm: This command will remove the record, but a session is using it")
    shutil.rmtree(record.parent)
    end(0)
if "--login" in words:
    if target in live.values():
        end(15, "iscsiadm: already present")
    served = json.loads((root / "targets").read_text()).get(target)
    if served is None:
        end(8, "iscsiadm: connection timed out")
    settings = dict(line.split(" = ", 1) for line in record.read_text().splitlines() if " = " in line)
    if settings.get("node.session.auth.password") != served["password"]:
        end(24, "iscsiadm: Could not login: authentication failure")
    sid = max(live, default=0) + 1
    (sessions / f"session{{sid}}").mkdir(parents=True)
    (sessions / f"session{{sid}}/targetname").write_text(served.get("answers_as", target) + "\\n")
    (root / f"sys/class/iscsi_host/host{host}/device/session{{sid}}/target{host}:0:0").mkdir(parents=True)
    end(0, "Login to ... successful.")
if "--logout" in words:
    gone = [sid for sid, name in live.items() if name == target]
    for sid in gone:
        shutil.rmtree(sessions / f"session{{sid}}")
        shutil.rmtree(root / f"sys/class/iscsi_host/host{host}/device/session{{sid}}")
    end(0 if gone else 21)
end(0, "node.name = " + target)
"""


class OpenIscsi(Sysfs):
    """All of it under a folder; the disks that a scan finds are those of `serve`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "sys")
        self.folder = folder
        self.kept_disks: set[str] = set()
        self.flushed: list[str] = []
        (folder / "sys/class/scsi_host" / f"host{_HOST}").mkdir(parents=True)
        (folder / "sys/block").mkdir()
        (folder / "dev").mkdir()
        self.program = folder / "iscsiadm"
        self.program.write_text(_PROGRAM.format(python=sys.executable, root=str(folder), portal=PORTAL, host=_HOST))
        self.program.chmod(0o755)
        self._targets: dict[str, dict[str, Any]] = {}

    def connector(self, timeout_s: float = 30.0) -> IscsiConnector:
        admin = Iscsiadm(binary=str(self.program), nodes=self.folder / "nodes", timeout_s=timeout_s)
        return IscsiConnector(
            admin, self, SystemClock(), dev=self.folder / "dev", number=lambda node: node.read_text(), flush=self.flush
        )

    async def flush(self, node: Path) -> None:
        """What the kernel holds of a disk is written."""
        self.flushed.append(node.name)

    def serve(self, target: str, *, password: str | None, size: int, lun: int = 1, answers_as: str | None = None) -> None:
        """The target is there with one LUN of so many bytes."""
        self._targets[target] = {"password": password, "size": size, "lun": lun}
        if answers_as is not None:
            self._targets[target]["answers_as"] = answers_as
        (self.folder / "targets").write_text(json.dumps(self._targets))

    def fail(self, *faults: tuple[str, int]) -> None:
        """The next calls that bear these words end with these numbers."""
        (self.folder / "fails").write_text(json.dumps(faults))

    @property
    def asked(self) -> list[list[str]]:
        """The argument vectors of all calls."""
        return [json.loads(line) for line in (self.folder / "asked").read_text().splitlines()]

    def remains(self) -> list[str]:
        """Sessions, disks and records that are there."""
        found = [
            *self.folder.glob("sys/class/iscsi_session/session*"),
            *self.folder.glob("sys/block/*"),
            *self.folder.glob("nodes/*"),
        ]
        return sorted(path.name for path in found)

    def scan(self, host: int, lun: int) -> None:
        for sid, served in self._sessions():
            if served["lun"] == lun and not self.disks_of(sid):
                self.show(sid, served)

    def show(self, sid: int, served: dict[str, Any], name: str = "sdb") -> None:
        """The kernel has a disk."""
        number = f"8:{16 * (1 + len(list(self.folder.glob('sys/block/*'))))}"
        device = self.folder / f"sys/class/iscsi_host/host{_HOST}/device/session{sid}/target{_HOST}:0:0/{_HOST}:0:0:{served['lun']}"
        (device / "block" / name).mkdir(parents=True)
        (device / "block" / name / "size").write_text(f"{served['size'] // 512}\n")
        (device / "wwid").write_text("naa.60000000000000000e00000000010001\n")
        (self.folder / "sys/block" / name).mkdir()
        (self.folder / "sys/block" / name / "dev").write_text(number)
        (self.folder / "dev" / name).write_text(number)

    def delete(self, disk: ScsiDisk) -> None:
        if disk.name in self.kept_disks:
            return
        for block in self.folder.glob(f"sys/class/iscsi_host/host*/device/session*/target*/*/block/{disk.name}"):
            shutil.rmtree(block.parent.parent)
        shutil.rmtree(self.folder / "sys/block" / disk.name)
        (self.folder / "dev" / disk.name).unlink()

    def _sessions(self) -> list[tuple[int, dict[str, Any]]]:
        found = [(int(path.name.removeprefix("session")), path) for path in self.folder.glob("sys/class/iscsi_session/session*")]
        named = [(sid, self._targets.get((path / "targetname").read_text().strip())) for sid, path in found]
        return [(sid, served) for sid, served in named if served is not None]
