"""The argument vector of a QEMU machine; a pure function. It holds no secret and nothing that a user chose."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.base.errors import Misconfigured
from nova_lite.contract import Instance
from nova_lite.virt.guest import GuestSystem
from nova_lite.virt.host_side import KEYRINGS

DISKS_MOST = 24
"""Root ports that fit beside q35's own devices on bus 0, whose 32 slots they share."""

SERIAL = "serial"
"""Name of the guest's console, a socket, in the machine's folder."""
CONSOLE = "console"
"""Name of the file there that keeps what the guest said on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuOptions:
    """How machines are made and how long they may take.

    accel               kvm or tcg
    disks_max           root ports, and so volumes, of a machine: 1..24
    memory_mib_max      a machine gets its flavor's memory, but not more than this: without a guest system 16 MiB do
    guest               what it boots; None: it is held before its first instruction
    saved_state         a file that `migrate` made of a machine with these very options: it goes on from there and boots nothing
    unplug_by_guest     True: a disk leaves only when the guest's ACPI driver ejects it, as is always so with a guest. Without one it
                        then never leaves, so False is the right value there
    keyrings            folder with the cephx keys of this host
    spawn_timeout_s     from the start of the process to its greeting
    command_timeout_s   for the answer to one command; a login at a target is one
    detach_timeout_s    for a guest to let go (nova's device_detach_timeout)
    quit_timeout_s      for a machine to end by itself, then it is killed
    """

    binary: str = "qemu-system-x86_64"
    accel: Literal["tcg", "kvm"] = "tcg"
    disks_max: int = 8
    memory_mib_max: int = 16
    guest: GuestSystem | None = None
    saved_state: str | None = None
    keyrings: Path = KEYRINGS
    unplug_by_guest: bool = False
    spawn_timeout_s: float = 30.0
    command_timeout_s: float = 20.0
    detach_timeout_s: float = 20.0
    quit_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if not 1 <= self.disks_max <= DISKS_MOST:
            raise Misconfigured(reason=f"disks_max is {self.disks_max}; wanted: 1 to {DISKS_MOST}")


def root_port(number: int) -> str:
    """The id of a root port, numbered from 1."""
    return f"rp{number}"


def qemu_argv(instance: Instance, options: QemuOptions) -> tuple[str, ...]:
    """The machine of `instance`; without a guest system held before its first instruction. File names are relative to its folder.

    `-daemonize` makes QEMU itself leave the session, write its pid file before anything else and hold a lock on it, and lets
    the first process end only when the monitor listens. A machine without a guest system must let go of a disk by itself:
    with ACPI's hot-plug for bridges off, a root port ejects at once as long as no guest has switched its slot on.
    """
    guest = options.guest
    memory_mib = min(instance.memory_mb or options.memory_mib_max, options.memory_mib_max)
    ejects = "on" if options.unplug_by_guest or guest is not None else "off"
    argv = [options.binary, "-name", instance.uuid, "-uuid", instance.uuid]
    argv += ["-machine", "q35", "-accel", options.accel, "-smp", str(max(instance.vcpus, 1)), "-m", str(memory_mib)]
    argv += ["-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-S"] if guest is None else _boot(guest, options)
    argv += ["-daemonize", "-pidfile", "pid", "-D", "log", "-d", "guest_errors"]
    argv += ["-qmp", "unix:qmp,server=on,wait=off"]
    argv += ["-global", f"ICH9-LPC.acpi-pci-hotplug-with-bridge-support={ejects}"]
    for number in range(1, options.disks_max + 1):
        argv += ["-device", f"pcie-root-port,id={root_port(number)},bus=pcie.0,chassis={number},slot={number}"]
    return tuple(argv)


def _boot(guest: GuestSystem, options: QemuOptions) -> list[str]:
    cpu = "host" if options.accel == "kvm" else "max"
    argv = ["-cpu", cpu, "-kernel", guest.kernel, "-initrd", guest.initrd, "-append", guest.cmdline]
    argv += ["-chardev", f"socket,id=serial,path={SERIAL},server=on,wait=off,logfile={CONSOLE}", "-serial", "chardev:serial"]
    return argv if options.saved_state is None else [*argv, "-incoming", f"exec:cat {shlex.quote(options.saved_state)}"]
