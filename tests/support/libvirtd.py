"""A private libvirtd for tests: a daemon of a user's session, with all its state in a folder of its own.

Run as root it takes another user, for root's libvirtd is the machine's. Source: libvirt, "libvirtd(8)", section Files.
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
_QEMU_CONF = 'security_driver = "none"\nstdio_handler = "file"\nremember_owner = 0\n'


class Libvirtd:
    """Started by the constructor; `stop` ends it and what machines are left, and removes its folder.

    uri      for `[libvirt] connection_uri`
    folder   open to the daemon's user: files in it can be disks
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lv-", dir="/tmp"))
        self._user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
        for name in ("rt", "config/libvirt", "cache", "state"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "config/libvirt/qemu.conf").write_text(_QEMU_CONF)
        (self.folder / "config/libvirt/libvirtd.conf").write_text(_CONF)
        self._give()
        self.socket = self.folder / "rt/libvirt/libvirt-sock"
        self.uri = f"qemu+unix:///session?socket={self.socket}"
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
                ["libvirtd"], env=env, stdout=log, stderr=log, start_new_session=True, user=user and user.pw_uid, group=user and user.pw_gid,
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
        folder = self.folder / "rt/libvirt/qemu/run"
        return {path.stem.removeprefix("instance-"): int(path.read_text()) for path in folder.glob("*.pid")}

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

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def _give(self) -> None:
        self.folder.chmod(0o755)
        for path in (self.folder, *self.folder.rglob("*")):
            self.give(path)


@contextmanager
def libvirtd() -> Iterator[Libvirtd]:
    """One that is ended with the block."""
    daemon = Libvirtd()
    try:
        yield daemon
    finally:
        daemon.stop()
