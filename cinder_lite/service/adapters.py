"""Which driver and target stand behind the ports of a backend, as its stanza says."""

import shlex
from pathlib import Path
from typing import assert_never

from cinder_lite.config import Backend
from cinder_lite.drivers.fake import FakeDriver
from cinder_lite.drivers.fake_script import fake_script
from cinder_lite.drivers.file import FileDriver, FileOptions
from cinder_lite.drivers.lvm import LvmDriver, LvmOptions
from cinder_lite.drivers.lvm_bytes import Clearing
from cinder_lite.drivers.rbd import RbdDriver, RbdOptions
from cinder_lite.drivers.rbd_commands import Rbd
from cinder_lite.plugin import plugin
from cinder_lite.ports.driver import VolumeDriver
from cinder_lite.ports.target import Target
from cinder_lite.targets.fake import FakeTarget
from cinder_lite.targets.lio import OWN_RTSTOOL, LioOptions, LioTarget
from cinder_lite.targets.local import LocalTarget
from cinder_lite.targets.rbd import RbdAccess, RbdTarget
from cinder_lite.targets.tgt import TgtOptions, TgtTarget
from cinder_lite.targets.tgtd import TgtDaemon
from common.base.clock import Clock
from common.base.errors import Misconfigured

Adapters = tuple[VolumeDriver, Target]


def adapters_of(backend: Backend, clock: Clock, *, my_ip: str) -> Adapters:
    """Raises Misconfigured for a stanza that asks for what cannot be."""
    return driver_of(backend), target_of(backend, clock, my_ip=my_ip)


def driver_of(backend: Backend) -> VolumeDriver:
    match backend.driver:
        case "file":
            options = FileOptions(
                volumes_dir=backend.volumes_dir,
                volume_backend_name=backend.volume_backend_name,
                capacity_gb=backend.file_capacity_gb,
                max_over_subscription_ratio=backend.max_over_subscription_ratio,
                reserved_percentage=backend.reserved_percentage,
            )
            return FileDriver(options)
        case "lvm":
            return LvmDriver(lvm_options(backend))
        case "rbd":
            return RbdDriver(_rbd_options(backend))
        case "fake":
            return _fake(backend)
        case "plugin":
            made: VolumeDriver = plugin(backend.plugin).open(backend, backend.more)
            return made
        case unknown:
            assert_never(unknown)


def target_of(backend: Backend, clock: Clock, *, my_ip: str) -> Target:
    match backend.target_helper:
        case "tgtadm":
            return TgtTarget(_tgt_options(backend), clock)
        case "local":
            return LocalTarget(backend.volumes_dir, my_ip=my_ip)
        case "fake":
            return FakeTarget()
        case "lioadm":
            return LioTarget(_lio_options(backend), clock)
        case "rbd":
            return RbdTarget(backend.volumes_dir, _rbd_access(backend), clock)
        case "auto":
            raise AssertionError("decided when the file was read")
        case unknown:
            assert_never(unknown)


def daemon_of(backend: Backend, clock: Clock) -> TgtDaemon:
    # One that outlived a killed cinder-volume is taken over, with every session on it.
    return TgtDaemon(_tgt_options(backend), clock, adopt=True)


def lvm_options(backend: Backend) -> LvmOptions:
    conf = Path(backend.lvm_conf_file) if backend.lvm_conf_file else None
    if conf is not None and conf.name != "lvm.conf":
        raise Misconfigured(reason=f"[{backend.name}] lvm_conf_file is {conf}; LVM reads files named lvm.conf only")
    return LvmOptions(
        volume_group=backend.volume_group,
        volume_backend_name=backend.volume_backend_name,
        lvm_type=backend.lvm_type,
        devices=backend.lvm_devices,
        links_dir=backend.volumes_dir,
        system_dir=conf.parent if conf else None,
        clearing=Clearing(backend.volume_clear, backend.volume_clear_size, backend.volume_clear_ionice),
        max_over_subscription_ratio=backend.max_over_subscription_ratio,
        reserved_percentage=backend.reserved_percentage,
    )


def rbd_of(backend: Backend) -> Rbd:
    return Rbd(
        pool=backend.rbd_pool,
        user=backend.rbd_user,
        conf=Path(backend.rbd_ceph_conf) if backend.rbd_ceph_conf else None,
        cluster=backend.rbd_cluster_name,
        connect_timeout_s=backend.rados_connect_timeout,
    )


def _rbd_options(backend: Backend) -> RbdOptions:
    return RbdOptions(
        rbd_of(backend),
        volume_backend_name=backend.volume_backend_name,
        flattens=backend.rbd_flatten_volume_from_snapshot,
        capacity_gb=backend.rbd_capacity_gb,
        max_over_subscription_ratio=backend.max_over_subscription_ratio,
        reserved_percentage=backend.reserved_percentage,
    )


def _rbd_access(backend: Backend) -> RbdAccess:
    rbd = rbd_of(backend)

    async def monitors() -> list[tuple[str, str]]:
        return [(monitor.host, monitor.port) for monitor in await rbd.monitors()]

    return RbdAccess(
        backend.rbd_pool,
        backend.rbd_user,
        backend.rbd_cluster_name,
        backend.rbd_secret_uuid,
        monitors=monitors,
        watchers=rbd.watchers,
    )


def _fake(backend: Backend) -> FakeDriver:
    try:
        script = fake_script(backend.fake_failures)
    except ValueError as exc:
        raise Misconfigured(reason=f"[{backend.name}] fake_failures: {exc}") from exc
    return FakeDriver(backend.volume_backend_name, total_capacity_gb=backend.fake_capacity_gb, script=script)


def _tgt_options(backend: Backend) -> TgtOptions:
    return TgtOptions(
        portal_ip=backend.target_ip_address,
        portal_port=backend.target_port,
        control_port=backend.tgt_control_port,
        ipc_socket=Path(backend.tgt_ipc_socket) if backend.tgt_ipc_socket else None,
        target_prefix=backend.target_prefix,
    )


def _lio_options(backend: Backend) -> LioOptions:
    try:
        command = tuple(shlex.split(backend.rtstool_command))
    except ValueError as exc:
        reason = f"[{backend.name}] rtstool_command {backend.rtstool_command!r} is no command: {exc}"
        raise Misconfigured(reason=reason) from exc
    return LioOptions(
        portal_ip=backend.target_ip_address,
        portal_port=backend.target_port,
        target_prefix=backend.target_prefix,
        rtstool=command or OWN_RTSTOOL,
    )
