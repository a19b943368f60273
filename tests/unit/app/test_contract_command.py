"""`lite asyncapi` and `lite contract`: what they print, and what they say of input that is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from common.app.__main__ import app
from common.app.cli import run_cli
from tests.support.processes import Ran

Lite = Callable[..., Ran]


@pytest.fixture
def lite(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lite:
    """Run `lite` in this process."""
    monkeypatch.delenv("LITE_CONFIG_FILES", raising=False)

    def run(*words: str) -> Ran:
        code = run_cli(app, words, name="lite")
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Ran(code, out, err)

    return run


@pytest.fixture
def kept(lite: Lite, tmp_path: Path) -> Path:
    ran = lite("contract", "dump")
    assert (ran.code, ran.err) == (0, "")
    path = tmp_path / "contracts.json"
    path.write_text(ran.out)
    return path


def told(ran: Ran, code: int, *words: str) -> None:
    assert ran.code == code, (ran.out, ran.err)
    for word in words:
        assert word in ran.err


def conf(tmp_path: Path, url: str) -> str:
    path = tmp_path / "lite.conf"
    path.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\ntransport_url = {url}\n")
    return str(path)


def changed(kept: Path, tmp_path: Path, **changes: object) -> Path:
    """The kept document with another cinder.VolumeAPI.get."""
    found = json.loads(kept.read_text())
    found["contracts"]["cinder.VolumeAPI"]["methods"]["get"].update(changes)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(found))
    return path


def test_asyncapi_prints_json_or_yaml_of_the_same_document(lite: Lite) -> None:
    as_json, as_yaml = lite("asyncapi"), lite("asyncapi", "--format", "yaml")
    assert (as_json.code, as_json.err, as_yaml.code, as_yaml.err) == (0, "", 0, "")
    assert as_json.json()["asyncapi"] == "3.0.0"
    assert yaml.safe_load(as_yaml.out) == as_json.json()


def test_the_servers_are_those_of_the_configuration_without_user_and_password(lite: Lite, tmp_path) -> None:
    ran = lite("asyncapi", "--config-file", conf(tmp_path, "rabbit://u:hunter2@h1:5673,u:hunter2@h2/v"))
    assert ran.json()["servers"] == {
        "rabbit1": {"host": "h1:5673", "protocol": "amqp", "protocolVersion": "0-9-1", "pathname": "/v"},
        "rabbit2": {"host": "h2:5672", "protocol": "amqp", "protocolVersion": "0-9-1", "pathname": "/v"},
    }
    assert "hunter2" not in ran.out + ran.err
    ran = lite("asyncapi", "--config-file", conf(tmp_path, "kombu+redis://:hunter2@h1:6379/0"))
    assert ran.json()["servers"] == {"bus": {"host": "h1:6379", "protocol": "redis", "pathname": "/0"}}
    assert "hunter2" not in ran.out + ran.err


def test_contracts_that_have_not_changed_are_compatible(lite: Lite, kept: Path) -> None:
    ran = lite("contract", "check", str(kept), "--verbose")
    assert (ran.code, ran.out) == (0, "")
    assert "Nothing since" in ran.err


def test_a_breaking_change_is_one_line_and_exit_code_1(lite: Lite, kept: Path, tmp_path) -> None:
    old = changed(kept, tmp_path, arguments={"volume_id": {}}, timeout_s=5)
    ran = lite("contract", "check", str(old))
    told(ran, 1, "1 of 2 changes")
    assert ran.out == (
        "breaks old client -> new server: cinder.VolumeAPI.get(volume_id): "
        "the argument's type is narrower: volume_id: anything may come, and string is wanted\n"
    )
    assert "breaks nobody: cinder.VolumeAPI.get: its timeout_s was 5.0" in lite("contract", "check", str(old), "--verbose").out


def test_a_compatible_change_is_told_only_when_asked(lite: Lite, kept: Path, tmp_path) -> None:
    old = changed(kept, tmp_path, timeout_s=5)
    ran = lite("contract", "check", str(old))
    assert (ran.code, ran.out) == (0, "")
    ran = lite("contract", "check", str(old), "--verbose")
    assert (ran.code, ran.out.count("\n")) == (0, 1)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "lite-contracts/9"}', '{"asyncapi": "3.0.0"}', '{"format": "lite-contracts/1"}']
)
def test_what_is_no_kept_document_is_named(lite: Lite, tmp_path, text: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    told(lite("contract", "check", str(path)), 64, "old.json", "lite contract dump")


def test_a_file_that_is_not_there_or_is_a_folder_is_named(lite: Lite, tmp_path) -> None:
    told(lite("contract", "check", str(tmp_path / "no.json")), 64, "no.json")
    told(lite("contract", "check", str(tmp_path)), 64, "directory")
    told(lite("contract", "check"), 64, "OLD")
    told(lite("asyncapi", "--format", "toml"), 64, "toml", "yaml")


def test_names_in_a_file_do_not_reach_the_terminal_as_they_are(lite: Lite, kept: Path, tmp_path: Path) -> None:
    found = json.loads(kept.read_text())
    found["contracts"]["a\x1b[2J\nb"] = found["contracts"]["nova.ComputeAPI"] | {"topic": "gone"}
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(found))
    ran = lite("contract", "check", str(path))
    assert (ran.code, ran.out) == (1, "breaks old client -> new server: a\\x1b[2J\\nb: the contract is gone\n")
    found["contracts"]["a\x1b[2J\nb"]["version"] = "\x1b"
    path.write_text(json.dumps(found))
    ran = lite("contract", "check", str(path))
    told(ran, 64, "is not a version")
    assert "\x1b" not in ran.err
