"""Which hypervisor nova.conf chooses, and what is said when something that it needs is not there."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from common.base.errors import Misconfigured
from common.host.clock import SystemClock
from nova_lite.config import NovaConfig, load_nova
from nova_lite.service.machines import chosen_hypervisor, guest_system, usable_virt_type
from nova_lite.virt.guest import GuestSystem


def config(folder: Path, driver: str = "qemu.QemuDriver", **sections: dict[str, str]) -> NovaConfig:
    return load_nova((), overrides={"DEFAULT": {"state_path": str(folder), "compute_driver": driver}, **sections})


@pytest.mark.parametrize(
    ("driver", "kind"), [("qemu.QemuDriver", "qemu"), ("simulated.SimulatedDriver", "simulated"), ("fake.FakeDriver", "fake")]
)
async def test_each_driver_is_what_its_name_says(tmp_path: Path, driver: str, kind: str) -> None:
    program = tmp_path / "qemu"
    program.touch(mode=0o755)
    chosen = await chosen_hypervisor(config(tmp_path, driver, qemu={"binary": str(program)}), SystemClock())
    assert chosen.kind == kind


async def test_a_qemu_that_is_not_installed_stops_the_service_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        Misconfigured, match=r"qemu-of-nowhere is not on PATH: install qemu-system-x86, or name it in \[qemu\] binary"
    ):
        await chosen_hypervisor(config(tmp_path, qemu={"binary": "qemu-of-nowhere"}), SystemClock())


async def test_libvirt_without_its_binding_stops_the_service_and_without_its_daemon_does_not(tmp_path: Path) -> None:
    python = tmp_path / "python"
    for answer, is_fatal in (
        ('{"missing": "no libvirt"}', True),
        ('{"error": {"code": 38, "domain": 7, "message": "no daemon"}}', False),
    ):
        python.write_text(f"#!/bin/sh\ncat > /dev/null\necho '{answer}'\n")
        python.chmod(0o755)
        found = config(tmp_path, "libvirt.LibvirtDriver", libvirt={"python": str(python)})
        if is_fatal:
            with pytest.raises(Misconfigured, match="install the package python3-libvirt"):
                await chosen_hypervisor(found, SystemClock())
            continue
        with capture_logs() as logs:
            assert (await chosen_hypervisor(found, SystemClock())).kind == "libvirt"
        assert "no daemon" in logs[0]["reason"]


def test_kvm_that_cannot_be_used_is_said_and_translation_takes_its_place(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert usable_virt_type("kvm", tmp_path / "absent") == "qemu"
    assert logs[0]["log_level"] == "warning"
    assert "is not there" in logs[0]["reason"]


def test_kvm_that_can_be_used_is_used_and_translation_never_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch()
    with capture_logs() as logs:
        assert usable_virt_type("kvm", tmp_path / "kvm") == "kvm"
        assert usable_virt_type("qemu", tmp_path / "absent") == "qemu"
    assert logs == []


def test_a_guest_system_is_two_files_that_can_be_read_or_none(tmp_path: Path) -> None:
    kernel, initrd = tmp_path / "k", tmp_path / "i"
    kernel.touch()
    assert guest_system(config(tmp_path)) is None
    with pytest.raises(Misconfigured, match=r"\[qemu\] initrd is empty, and kernel and initrd go together"):
        guest_system(config(tmp_path, qemu={"kernel": str(kernel)}))
    both = config(tmp_path, qemu={"kernel": str(kernel), "initrd": str(initrd), "cmdline": "quiet"})
    with pytest.raises(Misconfigured, match=r"\[qemu\] initrd is .*/i, which cannot be read"):
        guest_system(both)
    initrd.touch()
    assert guest_system(both) == GuestSystem(str(kernel), str(initrd), "quiet")
