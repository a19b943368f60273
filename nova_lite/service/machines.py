"""Which hypervisor stands behind the port, by nova.conf; a part of the wiring."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import assert_never

import structlog

from common.base.clock import Clock
from common.base.errors import Misconfigured
from nova_lite.config import NovaConfig, VirtType
from nova_lite.errors import HypervisorUnavailable
from nova_lite.ports.hypervisor import Hypervisor
from nova_lite.virt.fake import FakeHypervisor
from nova_lite.virt.guest import GuestSystem
from nova_lite.virt.libvirt import LibvirtHypervisor
from nova_lite.virt.libvirt_xml import LibvirtOptions
from nova_lite.virt.qemu import QemuHypervisor
from nova_lite.virt.qemu_argv import QemuOptions
from nova_lite.virt.simulated import SimulatedHypervisor

KVM = Path("/dev/kvm")

_log = structlog.get_logger(__name__)


async def chosen_hypervisor(config: NovaConfig, clock: Clock, *, kvm: Path = KVM) -> Hypervisor:
    """The hypervisor of compute_driver. Raises Misconfigured when a program, a file or a binding that it needs is not there."""
    state_path = config.common.state_path / config.common.host
    match config.compute_driver:
        case "qemu":
            if shutil.which(config.qemu.binary) is None:
                raise Misconfigured(
                    reason=f"[DEFAULT] compute_driver is qemu.QemuDriver, and {config.qemu.binary} is not on PATH: "
                    "install qemu-system-x86, or name it in [qemu] binary"
                )
            return QemuHypervisor(state_path, clock, await asyncio.to_thread(_qemu_options, config, kvm))
        case "libvirt":
            options = await asyncio.to_thread(_libvirt_options, config, kvm)
            return await _reached(LibvirtHypervisor(state_path, clock, options, host=config.common.host))
        case "simulated":
            return SimulatedHypervisor(state_path, clock)
        case "fake":
            return FakeHypervisor()
        case unknown:
            assert_never(unknown)


def usable_virt_type(wanted: VirtType, kvm: Path = KVM) -> VirtType:
    """`wanted`, or qemu where it is kvm and /dev/kvm is not this process's to use: that is logged."""
    if wanted == "qemu" or os.access(kvm, os.R_OK | os.W_OK):
        return wanted
    why = "may not be opened by this user" if kvm.exists() else "is not there"
    _log.warning("KVM cannot be used, machines are translated by QEMU (TCG), which is slow", virt_type="kvm", reason=f"{kvm} {why}")
    return "qemu"


def guest_system(config: NovaConfig) -> GuestSystem | None:
    """What machines boot. Raises Misconfigured for a kernel without an initrd, and for files that are not there."""
    qemu = config.qemu
    if not qemu.kernel and not qemu.initrd:
        return None
    for option, path in (("kernel", qemu.kernel), ("initrd", qemu.initrd)):
        if not path:
            raise Misconfigured(reason=f"[qemu] {option} is empty, and kernel and initrd go together: set both or neither")
        if not os.access(path, os.R_OK):
            raise Misconfigured(reason=f"[qemu] {option} is {path}, which cannot be read; deploy/lab/guest.sh makes one")
    return GuestSystem(kernel=qemu.kernel, initrd=qemu.initrd, cmdline=qemu.cmdline)


async def _reached(hypervisor: LibvirtHypervisor) -> LibvirtHypervisor:
    """A libvirtd that is down comes up again; a binding that is not installed does not."""
    try:
        _log.info("libvirt answers", **await hypervisor.about())
    except HypervisorUnavailable as exc:
        _log.warning("libvirt does not answer yet", reason=str(exc))
    return hypervisor


def _qemu_options(config: NovaConfig, kvm: Path) -> QemuOptions:
    return QemuOptions(
        binary=config.qemu.binary,
        accel="kvm" if usable_virt_type(config.libvirt.virt_type, kvm) == "kvm" else "tcg",
        memory_mib_max=config.qemu.memory_mb_max,
        guest=guest_system(config),
        keyrings=Path(config.qemu.keyrings_dir),
        spawn_timeout_s=config.qemu.start_timeout,
        command_timeout_s=config.qemu.command_timeout,
        detach_timeout_s=config.libvirt.device_detach_timeout,
    )


def _libvirt_options(config: NovaConfig, kvm: Path) -> LibvirtOptions:
    return LibvirtOptions(
        connection_uri=config.libvirt.connection_uri,
        virt_type=usable_virt_type(config.libvirt.virt_type, kvm),
        memory_mib_max=config.qemu.memory_mb_max,
        guest=guest_system(config),
        keyrings=Path(config.qemu.keyrings_dir),
        python=config.libvirt.python or None,
        command_timeout_s=config.libvirt.command_timeout,
        detach_timeout_s=config.libvirt.device_detach_timeout,
    )
