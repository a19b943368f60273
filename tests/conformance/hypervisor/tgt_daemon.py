"""A private tgtd on a port of its own, for one test."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

_START_TIMEOUT_S = 20.0
_PORTS_TRIED = 5


class TgtDaemon:
    """Started by the constructor; `stop` kills it. Its state is in its memory: `start` again finds no targets."""

    def __init__(self, folder: Path) -> None:
        self._env = {**os.environ, "TGT_IPC_SOCKET": str(folder / "ctl")}
        self._log = folder / "tgtd.log"
        self._tids: dict[str, int] = {}
        for _ in range(_PORTS_TRIED):
            self.portal = f"127.0.0.1:{_free_port()}"
            if self.start():
                return
        raise RuntimeError("tgtd did not bind any of the free ports it was given")

    def start(self) -> bool:
        """False when the portal could not be bound: tgtd then listens elsewhere without a word."""
        with self._log.open("ab") as log:
            argv = ["tgtd", "-f", "-C", "1", "--iscsi", f"portal={self.portal}"]
            self._process = subprocess.Popen(argv, env=self._env, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._ask("--op", "show", "--mode", "portal").returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                raise RuntimeError(f"tgtd did not start: {self._log.read_text()[-500:]}")
        if f"{self.portal}," in self._ask("--op", "show", "--mode", "portal").stdout:
            return True
        self.stop()
        return False

    def export(self, iqn: str, path: Path, *, user: str, password: str, initiator: str) -> None:
        """A new target whose LUN 1 is `path`, with CHAP, for one initiator."""
        tid = str(self._tids.setdefault(iqn, len(self._tids) + 1))
        self._do("--op", "new", "--mode", "target", "--tid", tid, "-T", iqn)
        self._do("--op", "new", "--mode", "logicalunit", "--tid", tid, "--lun", "1", "--backing-store", str(path))
        self._do("--op", "new", "--mode", "account", "--user", user, "--password", password)
        self._do("--op", "bind", "--mode", "account", "--tid", tid, "--user", user)
        self._do("--op", "bind", "--mode", "target", "--tid", tid, "--initiator-name", initiator)

    def look_again(self, iqn: str, path: Path) -> None:
        """The LUN has the size of its file. What its initiators do meanwhile may fail; here they do nothing."""
        change = f"online=0,path={path},online=1"
        tid = str(self._tids[iqn])
        self._do("--op", "update", "--mode", "logicalunit", "--tid", tid, "--lun", "1", "--params", change)

    def sessions(self, iqn: str) -> int:
        """How many initiators are logged in."""
        return self._do("--op", "show", "--mode", "conn", "--tid", str(self._tids[iqn])).count("Session:")

    def pause(self) -> None:
        """It takes connections and does not answer."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _do(self, *words: str) -> str:
        done = self._ask(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = ["tgtadm", "-C", "1", "--lld", "iscsi", *words]
        return subprocess.run(argv, env=self._env, capture_output=True, text=True, timeout=20, check=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
