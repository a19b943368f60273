"""What is really there: a storage host's volumes and target daemon, compute hosts, their machines and what these hold open.

Nothing here knows a table or a message. It outlives every process of ours, and each of its changes is judged on the spot: one
volume is never open in two machines, and nobody is let in while another still has it open.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field

from cinder_lite.ports.target import Chap
from common.testing.process import Process

SECTOR_BYTES = 512
GIB = 1024**3


@dataclass(slots=True)
class BackendVolume:
    """Bytes that are kept; sectors never written hold 0."""

    size_gib: float
    sectors: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BackendSnapshot:
    """What a volume held at one moment; never written."""

    volume_name: str
    kept: BackendVolume


@dataclass(slots=True)
class Served:
    """What the target daemon exports under one name; `size_gib` is what it told its initiators last."""

    path: str
    chap: Chap | None
    size_gib: float
    acl: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Disk:
    """A volume in a machine, as the machine logs in to it; `is_open` while it has a session, `size_gib` as its guest sees it."""

    volume_id: str
    mountpoint: str
    iqn: str
    chap: Chap | None
    machine: "Machine"
    is_open: bool = False
    size_gib: float = 0


@dataclass(slots=True, eq=False)
class Machine:
    """A guest; `clings` while it does not let go of its disks."""

    uuid: str
    host: "Host"
    disks: dict[str, Disk] = field(default_factory=dict)
    clings: bool = False


@dataclass(slots=True, eq=False)
class Host:
    """A compute host: its iSCSI name, and what it has connected, by volume id."""

    name: str
    initiator: str
    connected: set[str] = field(default_factory=set)
    machines: dict[str, Machine] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    """Machines that died by themselves: their folders are still there."""


class Reality:
    """All of it. `violated` is told of what must never be: an invariant's name and what was seen."""

    def __init__(self, hosts: tuple[str, ...], *, total_gib: float = 100.0, violated: Callable[[str, str], None]) -> None:
        self.volumes: dict[str, BackendVolume] = {}
        self.snapshots: dict[str, BackendSnapshot] = {}
        self.served: dict[str, Served] = {}
        self.hosts = {name: Host(name, f"iqn.1993-08.org.debian:01:{name}") for name in hosts}
        self.total_gib = total_gib
        self._violated = violated
        self.lost: set[str] = set()
        """Every machine that ever died by itself."""
        self._acting: dict[str, list[tuple[str, Process]]] = {}

    def copy(self, *, violated: Callable[[str, str], None]) -> "Reality":
        """The same once more, and nothing of it shared."""
        twin = Reality((), total_gib=self.total_gib, violated=violated)
        twin.volumes, twin.snapshots, twin.served, twin.hosts = deepcopy((self.volumes, self.snapshots, self.served, self.hosts))
        twin.lost = set(self.lost)
        return twin

    @contextmanager
    def acting(self, subject: str, name: str, process: Process) -> Iterator[None]:
        """Inside, `process` does `name` to `subject`: nobody who lives may do anything else to it."""
        mine, others = (name, process), self._acting.setdefault(subject, [])
        if at_work := [other for other, who in others if not who.is_dead]:
            self._violated("S11", f"{name} of {subject} begins while {', '.join(at_work)} is not over")
        others.append(mine)
        try:
            yield
        finally:
            others.remove(mine)

    # -- the storage host ---------------------------------------------------------------------------------------------

    @staticmethod
    def path(volume_name: str) -> str:
        """Where the target daemon finds a volume."""
        return f"/backend/{volume_name}"

    def is_used(self, volume_name: str) -> bool:
        """The target daemon has it open."""
        return any(served.path == self.path(volume_name) for served in self.served.values())

    def restart_target(self) -> None:
        """The daemon begins anew: it keeps nothing, and every session ends."""
        self.served.clear()
        for disk in self.disks():
            disk.is_open = False

    def export(self, iqn: str, path: str, chap: Chap | None) -> None:
        there = self.served.get(iqn)
        if there is None or there.path != path:
            self.unexport(iqn)
            self.served[iqn] = Served(path, chap, self.volumes[path.rpartition("/")[2]].size_gib)
        else:
            there.chap = chap

    def extend(self, iqn: str) -> None:
        """Whoever asks is told the size that the volume has now."""
        if iqn in self.served:
            self.served[iqn].size_gib = self.volumes[self.served[iqn].path.rpartition("/")[2]].size_gib

    def unexport(self, iqn: str) -> None:
        self.served.pop(iqn, None)
        for disk in self.sessions(iqn):
            self._violated("S12", f"{iqn} is taken away while {disk.machine.uuid} on {disk.machine.host.name} has it open")
            disk.is_open = False

    def let_in(self, iqn: str, initiator: str, *, is_shared: bool = False) -> None:
        """Nobody else is let in from then on, but for a shared one; machines of that host that knocked are in at once."""
        kept = self.served[iqn].acl if is_shared else set()
        for disk in self.sessions(iqn):
            if disk.machine.host.initiator not in {initiator, *kept}:
                self._violated(
                    "S2", f"{initiator} is let in to {iqn} while {disk.machine.uuid} on {disk.machine.host.name} has it open"
                )
                disk.is_open = False
        self.served[iqn].acl = {initiator, *kept}
        for disk in self.disks():
            if disk.iqn == iqn and not disk.is_open:
                self.log_in(disk)

    def shut_out(self, iqn: str, initiator: str | None) -> None:
        served = self.served.get(iqn)
        if served is None:
            return
        served.acl = set() if initiator is None else served.acl - {initiator}
        for disk in self.sessions(iqn):
            if disk.machine.host.initiator not in served.acl:
                disk.is_open = False

    def sessions(self, iqn: str) -> list[Disk]:
        """The disks that are logged in there."""
        return [disk for disk in self.disks() if disk.is_open and disk.iqn == iqn]

    # -- the compute hosts --------------------------------------------------------------------------------------------

    def machines(self) -> list[Machine]:
        return [machine for host in self.hosts.values() for machine in host.machines.values()]

    def disks(self) -> list[Disk]:
        return [disk for machine in self.machines() for disk in machine.disks.values()]

    def log_in(self, disk: Disk) -> bool:
        """What the target daemon says to a machine that knocks."""
        served = self.served.get(disk.iqn)
        disk.is_open = served is not None and disk.machine.host.initiator in served.acl and served.chap == disk.chap
        others = [other for other in self.sessions(disk.iqn) if other.machine is not disk.machine]
        if disk.is_open and others:
            where = ", ".join(f"{other.machine.uuid} on {other.machine.host.name}" for other in (disk, *others))
            self._violated("S1", f"volume {disk.volume_id} is open in several machines: {where}")
        return disk.is_open

    def plug(self, machine: Machine, disk: Disk) -> bool:
        """The machine has the disk, once it could log in."""
        if not self.log_in(disk):
            return False
        machine.disks[disk.volume_id] = disk
        disk.size_gib = self.served[disk.iqn].size_gib
        return True

    def kill_machine(self, uuid: str) -> None:
        """It is gone by itself, with its sessions; its folder is left."""
        for host in self.hosts.values():
            if host.machines.pop(uuid, None) is not None:
                host.dead.add(uuid)
                self.lost.add(uuid)

    @property
    def died(self) -> set[str]:
        """Machines that died by themselves, and of which something is left."""
        return {uuid for host in self.hosts.values() for uuid in host.dead}

    def size_of(self, iqn: str) -> int | None:
        """Bytes of what is exported under that name; None: nothing is."""
        served = self.served.get(iqn)
        volume = None if served is None else self.volumes.get(served.path.rpartition("/")[2])
        return None if volume is None else int(volume.size_gib * GIB)

    def bytes_of(self, disk: Disk) -> BackendVolume | None:
        """What the machine reads and writes through it; None: it has no session, or the bytes are gone."""
        if not disk.is_open and not self.log_in(disk):
            return None
        name = self.served[disk.iqn].path.rpartition("/")[2]
        return self.volumes.get(name)
