"""nova.conf as nova's operators write it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from common.app.config_sample import sample
from common.base.errors import Misconfigured
from nova_lite.config import NovaConfig, load_nova, nova_sections

Nova = Callable[[str], NovaConfig]


@pytest.fixture
def nova(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nova:
    monkeypatch.chdir(tmp_path)

    def nova(text: str) -> NovaConfig:
        Path("nova.conf").write_text(text)
        return load_nova([Path("nova.conf")], overrides={"DEFAULT": {"state_path": "/state"}})

    return nova


def test_without_a_word_nova_has_novas_defaults(nova: Nova) -> None:
    config = nova("")
    assert (config.common.control_exchange, config.cinder_control_exchange) == ("nova", "openstack")
    assert (config.max_disk_devices_to_attach, config.libvirt.device_detach_timeout) == (-1, 20.0)
    assert config.initiatorname_file == Path("/state/initiatorname.iscsi")
    assert config.qemu.binary == "qemu-system-x86_64"


@pytest.mark.parametrize(
    ("word", "driver"),
    [
        ("qemu.QemuDriver", "qemu"),
        ("simulated.SimulatedDriver", "simulated"),
        ("fake.FakeDriver", "fake"),
        ("libvirt.LibvirtDriver", "libvirt"),
        ("nova.virt.libvirt.LibvirtDriver", "libvirt"),
    ],
)
def test_a_compute_driver_is_named_as_nova_names_it(nova: Nova, word: str, driver: str) -> None:
    assert nova(f"[DEFAULT]\ncompute_driver = {word}\n").compute_driver == driver


def test_an_unknown_compute_driver_is_refused_with_the_known_ones(nova: Nova) -> None:
    with pytest.raises(Misconfigured) as caught:
        nova("[DEFAULT]\ncompute_driver = xenapi.XenAPIDriver\n")
    assert str(caught.value) == (
        "Configuration: nova.conf:2: [DEFAULT] compute_driver: found 'xenapi.XenAPIDriver', wanted one of auto, qemu.QemuDriver, "
        "simulated.SimulatedDriver, fake.FakeDriver, libvirt.LibvirtDriver, nova.virt.fake.FakeDriver, nova.virt.libvirt.LibvirtDriver"
    )


@pytest.mark.parametrize(
    ("programs", "driver"),
    [
        ({"tgtd", "qemu-system-x86_64"}, "qemu"),
        ({"tgtd"}, "simulated"),
        ({"qemu-system-x86_64"}, "simulated"),
        (set(), "simulated"),
    ],
)
def test_auto_takes_qemu_where_it_and_its_target_are_there(programs: set[str], driver: str) -> None:
    assert load_nova(which=lambda name: name if name in programs else None).compute_driver == driver


def test_the_options_of_the_other_sections_are_read(nova: Nova) -> None:
    config = nova(
        "[DEFAULT]\ninitiatorname_file = /etc/iscsi/initiatorname.iscsi\n[cinder]\ncontrol_exchange = cinder\n"
        "[compute]\nmax_disk_devices_to_attach = 4\n[libvirt]\ndevice_detach_timeout = 5\n[qemu]\nbinary = /opt/qemu\n"
    )
    assert config.initiatorname_file == Path("/etc/iscsi/initiatorname.iscsi")
    assert (config.cinder_control_exchange, config.max_disk_devices_to_attach, config.libvirt.device_detach_timeout) == (
        "cinder",
        4,
        5.0,
    )
    assert config.qemu.binary == "/opt/qemu"


def test_the_sample_is_a_file_that_changes_nothing(nova: Nova) -> None:
    assert nova(sample(nova_sections())) == nova("")
