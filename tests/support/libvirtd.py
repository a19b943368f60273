"""A private libvirtd for tests: a daemon of a user's session, or a system's, with all its state in a folder of its own.

A session's run as root takes another user, for root's libvirtd is the machine's. A system's has its folders laid over those of the machine,
in a mount namespace of its own. Source: libvirt, "libvirtd(8)", section Files.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_TIMEOUT_S = 60.0
_CONF = 'listen_tls = 0\nauth_unix_ro = "none"\nauth_unix_rw = "none"\nmax_client_requests = 50\n'
_SYSTEM_CONF = 'user = "root"\ngroup = "root"\ncgroup_controllers = []\nnamespaces = []\nseccomp_sandbox = 0\n'
_SYSTEM_FOLDERS = {
    "config/libvirt": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "rt/libvirt": "/run/libvirt",
    "cache": "/var/cache/libvirt",
    "logs": "/var/log/libvirt",
}
_USERS = {"passwd": "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin", "group": "libvirt-qemu:x:64055:"}
"""libvirtd of a system does not start without that user, whoever its machines run as."""
_QEMU_CONF = 'security_driver = "none"\nstdio_handler = "file"\nremember_owner = 0\n'


class Libvirtd:
    """Started by the constructor; `stop` ends it and what machines are left, and removes its folder.

    uri      for `[libvirt] connection_uri`
    folder   open to the daemon's user: files in it can be disks
    """

    def __init__(self, *, is_system: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lv-", dir="/tmp"))
        self._is_system = is_system
        self._user = pwd.getpwnam("nobody") if os.getuid() == 0 and not is_system else None
        for name in ("rt/libvirt", "config/libvirt", "cache", "lib", "logs", "state"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "config/libvirt/qemu.conf").write_text(_QEMU_CONF + (_SYSTEM_CONF if is_system else ""))
        (self.folder / "config/libvirt/libvirtd.conf").write_text(_CONF)
        for name, line in _USERS.items():
            (self.folder / name).write_text(f"{Path('/etc', name).read_text()}{line}\n")
        self._give()
        self.socket = self.folder / "rt/libvirt/libvirt-sock"
        self.uri = f"qemu+unix:///{'system' if is_system else 'session'}?socket={self.socket}"
        self.start()

    @property
    def state(self) -> Path:
        """For files that machines must be able to read and write."""
        return self.folder / "state"

    def start(self) -> None:
        """Returns once it takes connections."""
        user = self._user
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder / "rt")}
        env |= {"XDG_CONFIG_HOME": str(self.folder / "config"), "XDG_CACHE_HOME": str(self.folder / "cache")}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._argv(), env=env, stdout=log, stderr=log, start_new_session=True, user=user and user.pw_uid, group=user and user.pw_gid,
                extra_groups=[] if user else None,
            )  # fmt: skip
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._listens():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"libvirtd did not start: {(self.folder / 'log').read_text()[-800:]}")
            time.sleep(0.02)

    def pause(self) -> None:
        """It takes connections and does not answer."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Its machines go on without it."""
        self._process.kill()
        self._process.wait()
        self.socket.unlink(missing_ok=True)

    def machine_pids(self) -> dict[str, int]:
        """instance uuid -> pid of its QEMU."""
        found = (self.folder / "rt/libvirt/qemu").rglob("instance-*.pid")
        return {path.stem.removeprefix("instance-"): int(path.read_text()) for path in found}

    def give(self, path: Path) -> Path:
        """The path, as the daemon's user's own."""
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)
        return path

    def stop(self) -> None:
        for pid in self.machine_pids().values():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _argv(self) -> list[str]:
        if not self._is_system:
            return ["libvirtd"]
        places = _SYSTEM_FOLDERS | {name: f"/etc/{name}" for name in _USERS}
        lay = "; ".join(f"mount --bind {self.folder}/{ours} {theirs}" for ours, theirs in places.items())
        made = " ".join(_SYSTEM_FOLDERS.values())
        return ["unshare", "--mount", "sh", "-ec", f"mkdir -p {made}; {lay}; exec libvirtd --config /etc/libvirt/libvirtd.conf"]

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def _give(self) -> None:
        self.folder.chmod(0o755)
        for path in (self.folder, *self.folder.rglob("*")):
            self.give(path)


@contextmanager
def libvirtd(*, is_system: bool = False) -> Iterator[Libvirtd]:
    """One that is ended with the block."""
    daemon = Libvirtd(is_system=is_system)
    try:
        yield daemon
    finally:
        daemon.stop()
