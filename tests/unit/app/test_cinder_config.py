"""cinder.conf as cinder's operators write it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cinder_lite.config import CinderConfig, cinder_sections, load_cinder
from common.app.config_sample import sample
from common.base.errors import Misconfigured

ARTICLE = """\
[DEFAULT]
enabled_backends = lvm
[lvm]
iscsi_helper=lioadm
volume_driver=cinder.volume.drivers.lvm.LVMVolumeDriver
volume_backend_name=lvm
volume_group=cinder-volumes
"""


def on_path(*programs: str) -> Callable[[str], str | None]:
    return lambda program: f"/usr/bin/{program}" if program in programs else None


@pytest.fixture
def cinder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], CinderConfig]:
    monkeypatch.chdir(tmp_path)

    def cinder(text: str) -> CinderConfig:
        Path("cinder.conf").write_text(text)
        return load_cinder([Path("cinder.conf")], overrides={"DEFAULT": {"state_path": "/state", "my_ip": "10.0.0.4"}})

    return cinder


Cinder = Callable[[str], CinderConfig]


def test_the_stanza_of_the_article_is_read_as_it_stands(cinder: Cinder) -> None:
    config = cinder(ARTICLE)
    (backend,) = config.backends
    assert (backend.name, backend.driver, backend.target_helper) == ("lvm", "lvm", "lioadm")
    assert (backend.volume_backend_name, backend.volume_group) == ("lvm", "cinder-volumes")
    assert (backend.target_prefix, backend.target_ip_address, backend.target_port) == (
        "iqn.2010-10.org.openstack:",
        "10.0.0.4",
        3260,
    )
    assert (backend.target_protocol, backend.use_chap_auth, backend.tgtd_managed) == ("iscsi", True, False)
    assert config.warnings == ("cinder.conf:4: [lvm] iscsi_helper is deprecated, use target_helper",)
    assert config.common.control_exchange == "openstack"


def test_two_backends_keep_their_order_and_their_own_options(cinder: Cinder) -> None:
    config = cinder("[DEFAULT]\nenabled_backends = lvm, file1\n[file1]\nfile_capacity_gb = 2.5\n[lvm]\ntarget_port = 3261\n")
    lvm, file1 = config.backends
    assert (lvm.name, lvm.target_port, lvm.file_capacity_gb, lvm.volume_backend_name) == ("lvm", 3261, None, "lvm")
    assert (file1.name, file1.target_port, file1.file_capacity_gb, file1.driver) == ("file1", 3260, 2.5, "file")
    assert (file1.target_helper, file1.volumes_dir) == ("tgtadm", Path("/state/volumes/file1"))


def test_a_backend_named_twice_is_one(cinder: Cinder) -> None:
    assert [backend.name for backend in cinder("[DEFAULT]\nenabled_backends = a, a\n[a]\n").backends] == ["a"]


@pytest.mark.parametrize(
    "old", ["iscsi_target_prefix=iqn.x:", "iscsi_ip_address=10.1.1.1", "iscsi_port=4000", "iscsi_protocol=iscsi"]
)
def test_the_names_of_older_releases_are_taken(cinder: Cinder, old: str) -> None:
    key, _, value = old.partition("=")
    config = cinder(f"[DEFAULT]\nenabled_backends = a\n[a]\n{old}\n")
    today = {"iscsi_port": "target_port", "iscsi_protocol": "target_protocol"}.get(key, key.replace("iscsi_target", "target"))
    today = today.replace("iscsi_ip", "target_ip")
    assert str(getattr(config.backends[0], today)) == value
    assert config.warnings == (f"cinder.conf:4: [a] {key} is deprecated, use {today}",)


def test_a_backend_that_no_file_describes_is_refused(cinder: Cinder) -> None:
    with pytest.raises(Misconfigured) as caught:
        cinder("[DEFAULT]\nenabled_backends = lvm\n[lwm]\n")
    assert str(caught.value) == (
        "Configuration: [DEFAULT] enabled_backends names lvm, but no file has a section [lvm]; is [lwm] meant?"
    )
    with pytest.raises(Misconfigured) as caught:
        cinder("[DEFAULT]\nenabled_backends = lvm\n")
    assert str(caught.value) == (
        "Configuration: [DEFAULT] enabled_backends names lvm, but no file has a section [lvm]; add it, or take lvm out"
    )


def test_an_unknown_driver_is_refused_with_the_known_ones(cinder: Cinder) -> None:
    with pytest.raises(Misconfigured) as caught:
        cinder(ARTICLE.replace("lvm.LVMVolumeDriver", "zfs.ZFSDriver"))
    assert str(caught.value) == (
        "Configuration: cinder.conf:5: [lvm] volume_driver: found 'cinder.volume.drivers.zfs.ZFSDriver', wanted one of "
        "cinder.volume.drivers.file.FileDriver, cinder.volume.drivers.lvm.LVMVolumeDriver, cinder.volume.drivers.rbd.RBDDriver, "
        "cinder.volume.drivers.fake.FakeDriver"
    )


def test_a_mistyped_option_of_a_backend_is_refused(cinder: Cinder) -> None:
    with pytest.raises(Misconfigured) as caught:
        cinder(ARTICLE.replace("volume_group", "volumegroup").replace("iscsi_helper", "iscsi_hlper"))
    assert str(caught.value) == (
        "Configuration: 2 problems\n"
        "  cinder.conf:4: [lvm] iscsi_hlper: unknown option; did you mean target_helper?\n"
        "  cinder.conf:7: [lvm] volumegroup: unknown option; did you mean volume_group?"
    )


@pytest.mark.parametrize(
    ("programs", "helper"),
    [
        (("tgtd", "qemu-system-x86_64"), "tgtadm"),
        (("tgtd",), "local"),
        (("qemu-system-x86_64",), "local"),
        ((), "local"),
    ],
)
def test_without_a_word_there_is_one_backend_with_the_best_target_that_the_machine_has(
    programs: tuple[str, ...], helper: str
) -> None:
    (backend,) = load_cinder(which=on_path(*programs), overrides={"DEFAULT": {"state_path": "/state"}}).backends
    assert (backend.name, backend.driver, backend.target_helper) == ("file", "file", helper)
    assert (backend.tgtd_managed, backend.tgt_ipc_socket, backend.target_ip_address) == (True, "/state/tgt/socket", "127.0.0.1")


def test_the_built_in_backend_can_be_adjusted_without_being_enabled(cinder: Cinder) -> None:
    (backend,) = cinder("[file]\ntarget_helper = local\nfile_capacity_gb = 3\n").backends
    assert (backend.target_helper, backend.file_capacity_gb) == ("local", 3.0)


def test_the_sample_is_a_file_that_changes_nothing(cinder: Cinder) -> None:
    text = sample(cinder_sections())
    assert "#[lvm]" in text
    assert "# Deprecated name: iscsi_helper." in text
    assert replace(cinder(text), warnings=()) == cinder("")
