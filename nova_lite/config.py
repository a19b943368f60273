"""nova.conf: the options of nova's services under nova's names, read into frozen dataclasses."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oslo_config import cfg

from common.app.config import DEFAULT, Overrides, Section, load
from common.app.config_types import one_of, path_type
from common.app.options import CommonConfig, DatabaseConfig, common_sections, read_common

ComputeDriver = Literal["qemu", "simulated", "fake", "libvirt"]

COMPUTE_DRIVERS = {
    "auto": "auto",
    "qemu.QemuDriver": "qemu",
    "simulated.SimulatedDriver": "simulated",
    "fake.FakeDriver": "fake",
    "libvirt.LibvirtDriver": "libvirt",
    "nova.virt.fake.FakeDriver": "fake",
    "nova.virt.libvirt.LibvirtDriver": "libvirt",
}
"""What compute_driver may say -> which driver that is here."""

Which = Callable[[str], str | None]
"""Where a program is on PATH, None: nowhere; `shutil.which`."""


VirtType = Literal["qemu", "kvm"]
IscsiLogin = Literal["machine", "host"]


@dataclass(frozen=True, slots=True)
class QemuConfig:
    """[qemu]; times are in seconds. Without a kernel machines boot nothing."""

    binary: str
    memory_mb_max: int
    start_timeout: float
    command_timeout: float
    kernel: str
    initrd: str
    cmdline: str
    keyrings_dir: str


@dataclass(frozen=True, slots=True)
class LibvirtConfig:
    """[libvirt]; times are in seconds. `python` is empty where it is looked for."""

    connection_uri: str
    virt_type: VirtType
    device_detach_timeout: float
    command_timeout: float
    python: str


@dataclass(frozen=True, slots=True)
class NovaConfig:
    """Everything that nova's services are told.

    initiatorname_file           where this host's iSCSI name is kept
    cinder_control_exchange      exchange of cinder's topics
    max_disk_devices_to_attach   volumes for one machine; -1: as many as its driver can hold
    iscsi_login                  who logs in to iSCSI targets
    use_os_brick                 whether os-brick is asked what this host is, where it is installed
    shutdown_timeout             seconds for a guest to shut down before it is ended
    warnings                     what is odd in the files, to be logged once
    """

    common: CommonConfig
    database: DatabaseConfig
    compute_driver: ComputeDriver
    initiatorname_file: Path
    iscsi_login: IscsiLogin
    use_os_brick: bool
    cinder_control_exchange: str
    max_disk_devices_to_attach: int
    shutdown_timeout: float
    libvirt: LibvirtConfig
    qemu: QemuConfig
    warnings: tuple[str, ...] = ()


def load_nova(
    files: Sequence[Path] = (), *, overrides: Overrides | None = None, foreign: Sequence[Section] = (), which: Which = shutil.which
) -> NovaConfig:
    """What `files` tell nova; later ones win, `overrides` last. Raises Misconfigured with every problem found."""
    settings = load(files, nova_sections(), overrides=overrides, foreign=foreign)
    common, database = read_common(settings)
    mine = settings.read(DEFAULT, _Default)
    qemu = settings.read("qemu", QemuConfig)
    return NovaConfig(
        common=common,
        database=database,
        compute_driver=_found(qemu.binary, which) if mine.compute_driver == "auto" else mine.compute_driver,
        initiatorname_file=Path(mine.initiatorname_file or common.state_path / "initiatorname.iscsi"),
        iscsi_login=mine.iscsi_login,
        use_os_brick=mine.use_os_brick,
        cinder_control_exchange=settings.read("cinder", _Cinder).control_exchange,
        max_disk_devices_to_attach=settings.read("compute", _Compute).max_disk_devices_to_attach,
        shutdown_timeout=mine.shutdown_timeout,
        libvirt=settings.read("libvirt", LibvirtConfig),
        qemu=qemu,
        warnings=(*settings.warnings, *common.bus.warnings),
    )


def nova_sections() -> tuple[Section, ...]:
    """The sections of nova.conf that are ours, for `load` and for a sample."""
    return (
        *common_sections(control_exchange="nova", more=_default_options()),
        Section(
            "cinder",
            (cfg.StrOpt("control_exchange", default="openstack", help="control_exchange of the cinder that keeps the volumes."),),
            help="How to reach cinder.",
        ),
        Section(
            "compute",
            (
                cfg.IntOpt(
                    "max_disk_devices_to_attach",
                    default=-1,
                    min=-1,
                    help="Most volumes that one machine may have; -1: as many as its driver can hold.",
                ),
            ),
            help="Limits of a compute host.",
        ),
        Section(
            "libvirt",
            _libvirt_options(),
            help="Machines of compute_driver libvirt.LibvirtDriver, and what has lived here since it was the only one.",
        ),
        Section("qemu", _qemu_options(), help="Machines of compute_driver qemu.QemuDriver."),
    )


@dataclass(frozen=True, slots=True)
class _Default:
    compute_driver: Literal["auto", "qemu", "simulated", "fake", "libvirt"]
    initiatorname_file: str
    iscsi_login: IscsiLogin
    use_os_brick: bool
    shutdown_timeout: float


@dataclass(frozen=True, slots=True)
class _Cinder:
    control_exchange: str


@dataclass(frozen=True, slots=True)
class _Compute:
    max_disk_devices_to_attach: int


def _default_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.Opt(
            "compute_driver",
            type=one_of(COMPUTE_DRIVERS),
            default="auto",
            help="What runs the machines. auto: QEMU where both it and tgtd are on PATH, otherwise simulated machines.",
        ),
        cfg.Opt(
            "initiatorname_file",
            type=path_type(),
            default="",
            help="File that holds this host's iSCSI name, /etc/iscsi/initiatorname.iscsi with open-iscsi. "
            "Empty: one of our own in state_path, written when it is first needed.",
        ),
        cfg.StrOpt(
            "iscsi_login",
            default="machine",
            choices=["machine", "host"],
            help="Who logs in to iSCSI targets. machine: QEMU itself, by libiscsi; host: the kernel of this host, by open-iscsi's iscsiadm.",
        ),
        cfg.BoolOpt(
            "use_os_brick",
            default=False,
            help="Ask os-brick what this host is for storage, where it is installed (extra os-brick).",
        ),
        cfg.FloatOpt(
            "shutdown_timeout",
            default=60.0,
            min=0.0,
            help="Seconds that a guest may take to shut down when its server is stopped or softly rebooted; then it is ended.",
        ),
    )


def _libvirt_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.StrOpt(
            "connection_uri",
            default="qemu:///system",
            help="Where libvirt is reached; qemu:///session is the daemon of the user that nova-compute runs as.",
        ),
        cfg.StrOpt(
            "virt_type",
            default="qemu",
            choices=["qemu", "kvm"],
            help="kvm: by the processor; qemu: translated (TCG). For compute_driver qemu.QemuDriver too. "
            "Where /dev/kvm cannot be used, kvm falls back to qemu and nova-compute says so.",
        ),
        cfg.FloatOpt(
            "device_detach_timeout",
            default=20.0,
            min=0.1,
            help="Seconds that a guest may take to let go of a disk, with every driver; then detaching fails and the disk stays.",
        ),
        cfg.FloatOpt(
            "command_timeout",
            default=30.0,
            min=0.1,
            help="Seconds that libvirt may take for one operation; plugging a volume includes the login to its target.",
        ),
        cfg.StrOpt(
            "python",
            default="",
            help="The Python that can import libvirt. Empty: this one, and otherwise Debian's /usr/bin/python3 (package python3-libvirt).",
        ),
    )


def _qemu_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.StrOpt("binary", default="qemu-system-x86_64", help="The QEMU to run; a name on PATH or a path."),
        cfg.IntOpt(
            "memory_mb_max", default=512, min=1, help="Most memory for one machine in MiB; a larger flavor is cut down to it."
        ),
        cfg.FloatOpt("start_timeout", default=30.0, min=0.1, help="Seconds that QEMU may take to answer after its start."),
        cfg.FloatOpt(
            "command_timeout",
            default=20.0,
            min=0.1,
            help="Seconds that a command to QEMU may take; plugging a volume includes the login to its target.",
        ),
        cfg.StrOpt(
            "kernel",
            default="",
            help="A Linux kernel for every machine to boot, with libvirt too; deploy/lab/guest.sh makes one. "
            "Empty: machines come without a guest system and are held before their first instruction.",
        ),
        cfg.StrOpt("initrd", default="", help="The initramfs that goes with `kernel`."),
        cfg.StrOpt(
            "keyrings_dir",
            default="/etc/ceph",
            help="Where this host keeps the keys of Ceph's users, each in <cluster>.client.<user>.keyring, for volumes of driver rbd. With "
            "libvirt a key that is not there is libvirt's own secret, rbd_secret_uuid of the backend.",
        ),
        cfg.StrOpt("cmdline", default="console=ttyS0 quiet panic=-1", help="The kernel's command line."),
    )


def _found(binary: str, which: Which) -> ComputeDriver:
    return "qemu" if which("tgtd") and which(binary) else "simulated"
