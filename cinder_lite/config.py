"""cinder.conf: the options of cinder's services and the stanzas of their backends under cinder's names."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from oslo_config import cfg

from cinder_lite.plugin import installed, plugin
from cinder_lite.storage_options import storage_options
from common.app.config import DEFAULT, Overrides, Section, Settings, load
from common.app.config_types import one_of, path_type
from common.app.options import CommonConfig, DatabaseConfig, common_sections, read_common

Driver = Literal["file", "lvm", "rbd", "fake", "plugin"]
TargetHelper = Literal["auto", "tgtadm", "lioadm", "local", "fake", "rbd"]

VOLUME_DRIVERS = {
    "cinder.volume.drivers.file.FileDriver": "file",
    "cinder.volume.drivers.lvm.LVMVolumeDriver": "lvm",
    "cinder.volume.drivers.rbd.RBDDriver": "rbd",
    "cinder.volume.drivers.fake.FakeDriver": "fake",
}
"""What volume_driver may say, beside the names of plugins -> which driver that is here."""

BUILTIN_BACKEND = "file"
"""The only backend where enabled_backends says nothing."""

Which = Callable[[str], str | None]
"""Where a program is on PATH, None: nowhere; `shutil.which`."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A stanza that enabled_backends names, with cinder's options.

    name               the stanza's; the backend is host@name on the bus
    driver             what the dotted name in volume_driver means here
    plugin             the name in volume_driver, of a third party's driver; empty: it is one of ours
    more               the options of that driver, by name
    target_helper      never "auto": that was decided when the file was read; "rbd" for driver rbd, whose hosts reach it by themselves
    file_capacity_gb   GiB that driver `file` may promise; None: what its directory's disk has
    tgt_control_port   -C of tgtd and tgtadm
    tgt_ipc_socket     TGT_IPC_SOCKET of tgtd and tgtadm; empty: the system's
    tgtd_managed       the volume service starts a tgtd of its own and stops it
    rtstool_command    what runs rtstool for target_helper lioadm; empty: this program itself
    """

    name: str
    driver: Driver
    plugin: str
    more: Mapping[str, Any]
    volume_backend_name: str
    volume_group: str
    lvm_type: Literal["default", "thin", "auto"]
    lvm_devices: Literal["device-mapper", "loop"]
    lvm_conf_file: str
    volume_clear: Literal["zero", "none"]
    volume_clear_size: int
    volume_clear_ionice: str
    rbd_pool: str
    rbd_user: str
    rbd_ceph_conf: str
    rbd_cluster_name: str
    rbd_secret_uuid: str
    rados_connect_timeout: int
    rbd_flatten_volume_from_snapshot: bool
    rbd_capacity_gb: float | None
    fake_capacity_gb: float
    fake_failures: tuple[str, ...]
    volumes_dir: Path
    target_helper: TargetHelper
    target_prefix: str
    target_ip_address: str
    target_port: int
    target_protocol: Literal["iscsi"]
    use_chap_auth: bool
    max_over_subscription_ratio: float
    reserved_percentage: int
    file_capacity_gb: float | None
    tgt_control_port: int
    tgt_ipc_socket: str
    tgtd_managed: bool
    rtstool_command: str


@dataclass(frozen=True, slots=True)
class CinderConfig:
    """Everything that cinder's services are told.

    backends   in the order of enabled_backends; at least one
    nova_control_exchange   exchange of nova's topics
    warnings   what is odd in the files, to be logged once
    """

    common: CommonConfig
    database: DatabaseConfig
    backends: tuple[Backend, ...]
    nova_control_exchange: str
    warnings: tuple[str, ...] = ()


def load_cinder(
    files: Sequence[Path] = (), *, overrides: Overrides | None = None, foreign: Sequence[Section] = (), which: Which = shutil.which
) -> CinderConfig:
    """What `files` tell cinder; later ones win, `overrides` last. Raises Misconfigured with every problem found."""
    settings = load(files, _fixed_sections(), then=_stanzas, overrides=overrides, foreign=foreign)
    common, database = read_common(settings)
    backends = tuple(_backend(settings, name, which) for name in _enabled(settings))
    return CinderConfig(
        common=common,
        database=database,
        backends=backends,
        nova_control_exchange=settings.read("nova", _Nova).control_exchange,
        warnings=(*settings.warnings, *common.bus.warnings),
    )


def cinder_sections() -> tuple[Section, ...]:
    """The sections of cinder.conf that are ours, for a sample; the stanza of a backend is shown under the name "lvm"."""
    stanza = Section(
        "lvm", _backend_options("lvm", _Named()), help="A backend: any name that enabled_backends lists.", example=True
    )
    return (*_fixed_sections(), stanza)


@dataclass(frozen=True, slots=True)
class _Default:
    enabled_backends: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Nova:
    control_exchange: str


@dataclass(frozen=True, slots=True)
class _Stanza:
    volume_driver: str
    target_helper: TargetHelper


def _fixed_sections() -> tuple[Section, ...]:
    enabled = cfg.ListOpt(
        "enabled_backends",
        default=[],
        help="Names of the stanzas that hold the backends, divided by commas. Empty: one backend named file, "
        "which keeps volumes in state_path and exports them by tgt where QEMU and tgtd are on PATH.",
    )
    nova = Section(
        "nova",
        (cfg.StrOpt("control_exchange", default="nova", help="control_exchange of the nova whose servers use the volumes."),),
        help="How to reach nova.",
    )
    return (*common_sections(control_exchange="openstack", more=(enabled,)), nova)


def _enabled(settings: Settings) -> tuple[str, ...]:
    return tuple(dict.fromkeys(settings.read(DEFAULT, _Default).enabled_backends)) or (BUILTIN_BACKEND,)


def _stanzas(settings: Settings) -> tuple[Section, ...]:
    """A section for each enabled backend; the built-in one need not stand in a file."""
    if not settings.read(DEFAULT, _Default).enabled_backends:
        return (Section(BUILTIN_BACKEND, _backend_options(BUILTIN_BACKEND, _Builtin())),)
    names = _enabled(settings)
    return tuple(Section(name, _backend_options(name, _Named()), wanted_by=f"[{DEFAULT}] enabled_backends") for name in names)


def _backend(settings: Settings, name: str, which: Which) -> Backend:
    stanza = settings.read(name, _Stanza)
    is_ours = stanza.volume_driver in VOLUME_DRIVERS.values()
    driver, foreign = (stanza.volume_driver, "") if is_ours else ("plugin", stanza.volume_driver)
    helper = _found(which) if stanza.target_helper == "auto" else stanza.target_helper
    more = {} if is_ours else {opt.dest: settings.values[name][opt.dest] for opt in plugin(foreign).options}
    return settings.read(
        name, Backend, name=name, driver=driver, plugin=foreign, more=more, target_helper="rbd" if driver == "rbd" else helper
    )


def _found(which: Which) -> TargetHelper:
    return "tgtadm" if which("tgtd") and which("qemu-system-x86_64") else "local"


@dataclass(frozen=True, slots=True)
class _Named:
    """Defaults of a stanza that somebody wrote: cinder's."""

    target_helper: TargetHelper = "tgtadm"
    target_ip_address: str = "$my_ip"
    tgtd_managed: bool = False
    tgt_ipc_socket: str = ""


@dataclass(frozen=True, slots=True)
class _Builtin(_Named):
    """Defaults of the built-in backend: it is for one host, so its target listens there only, and nobody else starts a tgtd for it."""

    target_helper: TargetHelper = "auto"
    target_ip_address: str = "127.0.0.1"
    tgtd_managed: bool = True
    tgt_ipc_socket: str = "$state_path/tgt/socket"


def _backend_options(name: str, default: _Named) -> tuple[cfg.Opt, ...]:
    return (
        *_storage_options(name),
        *storage_options(),
        *_target_options(default),
        *_tgt_options(default),
        *_lio_options(),
        *_plugin_options(),
    )


def _plugin_options() -> tuple[cfg.Opt, ...]:
    """Of every plugin: which driver a stanza has is not known before its options are read."""
    return tuple(opt for name in installed() for opt in plugin(name).options)


def _storage_options(name: str) -> tuple[cfg.Opt, ...]:
    return (
        cfg.Opt(
            "volume_driver",
            type=one_of(VOLUME_DRIVERS | {name: name for name in installed()}),
            default="cinder.volume.drivers.file.FileDriver",
            help="What keeps the volumes: files in a directory, logical volumes of LVM, images of a Ceph pool, or a plugin.",
        ),
        cfg.StrOpt("volume_backend_name", default=name, help="Name of this backend for schedulers and volume types."),
        cfg.Opt(
            "volumes_dir",
            type=path_type(),
            default=f"$state_path/volumes/{name}",
            help="Directory of this backend's own files; driver file keeps its volumes there.",
        ),
        cfg.FloatOpt(
            "file_capacity_gb",
            min=0,
            help="GiB that driver file may promise. Empty: what the disk under volumes_dir has.",
        ),
        cfg.FloatOpt(
            "max_over_subscription_ratio",
            default=1.0,
            min=1.0,
            help="How many times its size a thin backend may be promised. Above 1 it can run full under its volumes; cinder's default is 20.",
        ),
        cfg.IntOpt("reserved_percentage", default=0, min=0, max=100, help="Part of the backend that is kept free, in percent."),
    )


def _target_options(default: _Named) -> tuple[cfg.Opt, ...]:
    return (
        cfg.StrOpt(
            "target_helper",
            default=default.target_helper,
            choices=["tgtadm", "lioadm", "local", "fake", "auto"],
            deprecated_name="iscsi_helper",
            help="What exports the volumes: tgt, LIO, nothing (for machines on this host), or a stand-in for tests. "
            "auto: tgtadm where tgtd and QEMU are on PATH, otherwise local.",
        ),
        cfg.StrOpt(
            "target_prefix",
            default="iqn.2010-10.org.openstack:",
            deprecated_name="iscsi_target_prefix",
            help="What the iSCSI name of every volume begins with.",
        ),
        cfg.HostAddressOpt(
            "target_ip_address",
            default=default.target_ip_address,
            deprecated_name="iscsi_ip_address",
            help="Address that the target listens on and that compute hosts connect to.",
        ),
        cfg.PortOpt("target_port", default=3260, deprecated_name="iscsi_port", help="Port that the target listens on."),
        cfg.StrOpt(
            "target_protocol",
            default="iscsi",
            choices=["iscsi"],
            deprecated_name="iscsi_protocol",
            help="Protocol between compute hosts and the target.",
        ),
        cfg.BoolOpt("use_chap_auth", default=True, help="Every export gets a user and a password of its own."),
    )


def _tgt_options(default: _Named) -> tuple[cfg.Opt, ...]:
    return (
        cfg.BoolOpt(
            "tgtd_managed",
            default=default.tgtd_managed,
            help="The volume service starts a tgtd of its own when it starts, and stops it when it ends. "
            "Not beside a tgtd of the system with the same control port and socket.",
        ),
        cfg.IntOpt("tgt_control_port", default=0, min=0, max=32767, help="Control port of tgtd, its option -C."),
        cfg.Opt(
            "tgt_ipc_socket",
            type=path_type(),
            default=default.tgt_ipc_socket,
            help="Socket of tgtd, its variable TGT_IPC_SOCKET; tgtd adds its control port to the name. Empty: the system's.",
        ),
    )


def _lio_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.StrOpt(
            "rtstool_command",
            default="",
            help="What runs rtstool for target_helper lioadm, such as: sudo -n cinder-lite rtstool. It needs root. "
            "Empty: cinder-lite itself, with the rights that the volume service has.",
        ),
    )
