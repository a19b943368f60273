"""lite driver certify, as an author of a driver runs it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from oslo_config import cfg

from cinder_lite import plugin as plugins
from cinder_lite.certify.benches.fake import FakeBench
from cinder_lite.certify.certifying import certified
from cinder_lite.certify.report import as_text
from cinder_lite.config import Backend, load_cinder
from cinder_lite.contract import Volume
from cinder_lite.drivers.fake import FakeDriver
from cinder_lite.plugin import Plugin
from common.base.errors import Misconfigured
from common.host.clock import SystemClock
from common.testing.servers import free_port
from tests.support.processes import commanded

FAKE = "volume_driver = cinder.volume.drivers.fake.FakeDriver\ntarget_helper = fake\nfake_capacity_gb = 10\n"


def conf(folder: Path, stanza: str) -> Path:
    path = folder / "cinder.conf"
    path.write_text(f"[DEFAULT]\nstate_path = {folder}/state\nenabled_backends = mine\n[mine]\n{stanza}")
    return path


async def test_a_sound_backend_is_certified_with_reports(tmp_path: Path) -> None:
    files = [conf(tmp_path, FAKE)]
    junit, html = tmp_path / "junit.xml", tmp_path / "report.html"
    ran = await commanded("lite", "driver", "certify", "mine", "--junit", str(junit), "--html", str(html), files=files)
    assert (ran.code, ran.out.splitlines()[-1].partition("; ")[0]) == (0, "mine (driver fake, target fake): certified")
    assert "the target was not tried" in ran.out
    cases = ET.fromstring(junit.read_text()).findall("./testsuite[@name='driver']/testcase")
    assert len(cases) == len(ran.err.splitlines()) == 79
    assert "certified" in html.read_text()


async def test_a_backend_that_breaks_its_word_is_not_certified_and_the_status_says_so(tmp_path: Path) -> None:
    files = [conf(tmp_path, f"{FAKE}fake_failures = delete_volume:after\n")]
    ran = await commanded("lite", "driver", "certify", "mine", "--port", "driver", "--only", "deleted", files=files)
    assert ran.code == 1
    assert "FAILED  driver 2 nothing is left of a deleted volume" in ran.out
    assert ran.err.splitlines()[-1].startswith("error: Backend mine is not certified: ")


@pytest.mark.parametrize(
    ("words", "stanza", "says"),
    [
        (("yours",), FAKE, "there is no backend yours; enabled_backends names mine"),
        (("mine", "--port", "nova"), FAKE, "found 'nova', wanted driver, target or both"),
        (("mine",), f"{FAKE}fake_failures = creat_volume\n", "names no verb of a volume driver"),
        (("mine",), f"{FAKE}fake_failure = x\n", "unknown option; did you mean fake_failures?"),
        (("mine", "--junit", "/nowhere/x.xml", "--only", "nothing of the kind"), FAKE, "cannot be written to /nowhere/x.xml"),
    ],
)
async def test_a_slip_is_named(tmp_path: Path, words: tuple[str, ...], stanza: str, says: str) -> None:
    ran = await commanded("lite", "driver", "certify", *words, files=[conf(tmp_path, stanza)])
    assert ran.code != 0
    assert says in ran.err
    assert "Traceback" not in ran.err


async def test_the_specifications_are_listed() -> None:
    lines = (await commanded("lite", "driver", "specifications")).out.splitlines()
    assert "driver 2 a volume in use is not deleted" in lines
    assert "target 4 removing what is gone changes nothing" in lines
    assert len(lines) >= 119


class ForgetfulDriver(FakeDriver):
    """A third party's, with a bug: what was deleted is still listed."""

    async def delete_volume(self, volume: Volume) -> None:
        await super().delete_volume(volume)
        self.forgotten = {volume.name}

    async def list_volumes(self) -> set[str]:
        return await super().list_volumes() | getattr(self, "forgotten", set())


async def _bench(driver: FakeDriver) -> FakeBench:
    return FakeBench(driver)


def _open(backend: Backend, options: Mapping[str, Any]) -> ForgetfulDriver:
    return ForgetfulDriver(backend.volume_backend_name, total_capacity_gb=options["acme_capacity_gb"])


ACME = Plugin(_open, options=(cfg.FloatOpt("acme_capacity_gb", default=10.0),), bench=_bench)


async def test_a_driver_of_a_third_party_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cinder_lite.config", "cinder_lite.plugin"):
        monkeypatch.setattr(f"{module}.installed", lambda: {"acme.AcmeDriver": lambda: ACME})
    stanza = "volume_driver = acme.AcmeDriver\ntarget_helper = fake\nacme_capacity_gb = 12\n"
    config = load_cinder([conf(tmp_path, stanza)])
    assert (config.backends[0].plugin, config.backends[0].more) == ("acme.AcmeDriver", {"acme_capacity_gb": 12.0})
    report = await certified(config.backends[0], ["driver"], SystemClock(), my_ip="127.0.0.1", only="deleted")
    assert "FAILED  driver 7 every volume is listed and a deleted one no longer" in as_text(report)
    assert report.leaks


def test_an_entry_point_that_is_no_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "installed", lambda: {"acme.AcmeDriver": lambda: 7})
    with pytest.raises(Misconfigured, match=r"entry point acme.AcmeDriver of cinder_lite.drivers is int"):
        plugins.plugin("acme.AcmeDriver")


@pytest.mark.real("tgt")
@pytest.mark.timeout(120)
async def test_files_on_a_tgtd_of_its_own_are_certified_as_driver_and_target(tmp_path: Path) -> None:
    stanza = (
        f"file_capacity_gb = 10\ntgtd_managed = true\ntarget_ip_address = 127.0.0.1\ntarget_port = {free_port()}\n"
        f"tgt_ipc_socket = {tmp_path}/tgt\n"
    )
    ran = await commanded("lite", "driver", "certify", "mine", "--only", "gone", files=[conf(tmp_path, stanza)])
    assert (ran.code, ran.err.count("  ok  ")) == (0, ran.err.count("\n")), ran.err + ran.out
    assert "(driver file, target tgt): certified" in ran.out
    assert "target 4 removing what is gone" in ran.err
