"""A private Ceph cluster: a monitor and one OSD that keeps its objects in memory or in a file, with cephx, on loopback; no manager."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.testing.servers import free_port

POOL = "volumes"
USER = "cinder"
START_TIMEOUT_S = 90.0
_PROGRAMS = ("ceph-mon", "ceph-osd", "ceph", "rbd", "monmaptool", "ceph-authtool")

_CONF = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {folder}/keyring
log file = {folder}/$name.log
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
run dir = {folder}
crash dir = {folder}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon data avail crit = 1
mon data avail warn = 2
mon warn on pool no redundancy = false
ms bind port min = {first}
ms bind port max = {last}
osd max object name len = 256
osd max object namespace len = 64
[mon.a]
mon data = {folder}/mon
mon initial members = a
[osd.0]
osd data = {folder}/osd
keyring = {folder}/osd/keyring
osd op num shards = 1
osd op num threads per shard = 2
"""
_IN_MEMORY = "osd objectstore = memstore\nmemstore device bytes = 2147483648\n"
_IN_A_FILE = "osd objectstore = bluestore\nbluestore block size = 4294967296\nbluestore block create = true\n"


def missing() -> str | None:
    """What this machine lacks for it; None: nothing."""
    lacking = [name for name in _PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(lacking)} (packages ceph-mon ceph-osd ceph-common)" if lacking else None


@dataclass(slots=True)
class CephCluster:
    """conf     ceph.conf of an administrator; `client_conf` is that of client.cinder
    is_durable    what the OSD was given outlives it
    """

    folder: Path
    port: int
    is_durable: bool = False
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        return self.folder / "ceph.conf"

    @property
    def client_conf(self) -> Path:
        return self.folder / "client.conf"

    def ask(self, program: str, *options: str, stdin: str | None = None) -> str:
        """What a program of Ceph prints to an administrator."""
        argv = (program, "--conf", str(self.conf), *options)
        ran = subprocess.run(argv, input=stdin, check=False, capture_output=True, text=True, timeout=START_TIMEOUT_S)
        if ran.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: {ran.stderr.strip()}")
        return ran.stdout

    def start_monitor(self) -> None:
        self._start("mon", "ceph-mon", "-i", "a", "-f")

    def start_osd(self) -> None:
        """Returns once the monitor knows of this life of it."""
        before = self._lives_of_osd()
        self._start("osd", "ceph-osd", "-i", "0", "-f")
        _wait(lambda: self._lives_of_osd() > before)

    def _lives_of_osd(self) -> int:
        """The epoch in which it came up; 0 when it never did."""
        osds = json.loads(self.ask("ceph", "osd", "dump", "-f", "json"))["osds"]
        return max((int(osd["up_from"]) for osd in osds), default=0)

    def start(self) -> None:
        folder, conf = self.folder, str(self.conf)
        for name in ("mon", "osd"):
            (folder / name).mkdir()
        addresses = {"v2": self.port, "v1": self.port + 1, "first": self.port + 2, "last": self.port + 40}
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        store = _IN_A_FILE if self.is_durable else _IN_MEMORY
        self.conf.write_text(_CONF.format(fsid=fsid, folder=folder, **addresses) + store)
        _run("ceph-authtool", "--create-keyring", f"{folder}/mon.keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        admin = [word for part in ("mon", "osd", "mgr") for word in ("--cap", part, "allow *")]
        _run("ceph-authtool", "--create-keyring", f"{folder}/keyring", "--gen-key", "-n", "client.admin", *admin)
        _run("ceph-authtool", f"{folder}/mon.keyring", "--import-keyring", f"{folder}/keyring")
        where = f"[v2:127.0.0.1:{self.port},v1:127.0.0.1:{self.port + 1}]"
        _run("monmaptool", "--create", "--addv", "a", where, "--fsid", fsid, f"{folder}/monmap")
        keyring = ("--keyring", f"{folder}/mon.keyring")
        _run("ceph-mon", "--conf", conf, "-i", "a", "--mkfs", "--monmap", f"{folder}/monmap", *keyring)
        self.start_monitor()
        self.ask("ceph", "--connect-timeout", "60", "mon", "stat")
        _run("ceph-authtool", "--create-keyring", f"{folder}/osd/keyring", "--gen-key", "-n", "osd.0")
        secret = _run("ceph-authtool", "-p", "-n", "osd.0", f"{folder}/osd/keyring").strip()
        self.ask("ceph", "osd", "new", osd, "0", "-i", "-", stdin=json.dumps({"cephx_secret": secret}))
        _run("ceph-osd", "--conf", conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
        self.start_osd()
        self.ask("ceph", "osd", "pool", "create", POOL, "8", "8")
        self.ask("rbd", "pool", "init", POOL)
        self._make_client()

    def kill(self, name: str) -> None:
        """ "mon" or "osd", as a power cut would."""
        daemon = self._daemons.pop(name, None)
        if daemon is not None:
            daemon.kill()
            daemon.wait(20)

    def freeze(self, name: str) -> None:
        """It keeps its connections and answers nothing, until `thaw`."""
        self._daemons[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._daemons[name].send_signal(signal.SIGCONT)

    def conf_with_key(self, key: str, name: str) -> Path:
        """client.conf whose key is another."""
        keyring, conf = self.folder / f"{name}.keyring", self.folder / f"{name}.conf"
        keyring.write_text(f"[client.{USER}]\n\tkey = {key}\n")
        conf.write_text(self.client_conf.read_text().replace(f"client.{USER}.keyring", keyring.name))
        return conf

    def _make_client(self) -> None:
        caps = ("mon", "profile rbd", "osd", f"profile rbd pool={POOL}")
        keyring = self.folder / f"client.{USER}.keyring"
        self.ask("ceph", "auth", "get-or-create", f"client.{USER}", *caps, "-o", str(keyring))
        where = f"[v2:127.0.0.1:{self.port},v1:127.0.0.1:{self.port + 1}]"
        self.client_conf.write_text(f"[global]\nmon host = {where}\nkeyring = {keyring}\nlog to stderr = false\n")

    def _start(self, name: str, *argv: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                (argv[0], "--conf", str(self.conf), *argv[1:]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip


@contextmanager
def ceph_cluster(*, is_durable: bool = False) -> Iterator[CephCluster]:
    """Ready when client.cinder can make images in the pool; about 10 s, some more when it is durable. Nothing is left of it."""
    folder = Path(tempfile.mkdtemp(prefix="ceph-"))
    cluster = CephCluster(folder, free_port(), is_durable)
    try:
        cluster.start()
        yield cluster
    finally:
        for name in ("osd", "mon"):
            cluster.kill(name)
        shutil.rmtree(folder, ignore_errors=True)


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=START_TIMEOUT_S, env=dict(os.environ)).stdout


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the OSD did not come up in time")
        time.sleep(0.2)
