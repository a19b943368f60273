"""What the Tab key gives: in bash itself, and by the protocol between a shell and the commands."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cinder_lite.__main__ import app as cinder
from common.app.__main__ import app as lite
from common.app.cli import run_cli
from nova_lite.__main__ import app as nova

APPS = {"lite": lite, "nova-lite": nova, "cinder-lite": cinder}
Offered = Callable[[str], list[str]]


@pytest.fixture
def offered(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Offered:
    """What `lite` offers behind a line that ends where the cursor stands, as bash asks for it."""

    def ask(line: str) -> list[str]:
        monkeypatch.setenv("_LITE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - (not line.endswith(" "))))
        assert run_cli(lite, [], name="lite") == 0
        out, err = capsys.readouterr()
        assert err == ""
        return sorted(out.split())

    return ask


def test_commands_are_offered_on_every_level(offered: Offered) -> None:
    assert offered("lite ") == [
        "asyncapi", "bus", "config", "contract", "db", "demo", "dlq", "doctor", "driver", "failpoints", "flow", "notify", "rpc", "up", "where",
    ]  # fmt: skip
    assert offered("lite r") == ["rpc"]
    assert offered("lite rpc ") == ["call", "cast", "fanout", "listen", "ping"]
    assert offered("lite contract c") == ["check"]
    assert offered("lite asyncapi --format ") == ["json", "yaml"]
    assert offered("lite config sample ") == ["cinder", "nova"]


def test_topics_are_those_of_the_contracts_that_have_methods_for_the_command(offered: Offered) -> None:
    assert offered("lite rpc call ") == ["cinder-api", "cinder-volume", "compute", "nova-api"]
    assert offered("lite rpc call c") == ["cinder-api", "cinder-volume", "compute"]
    for command in ("cast", "fanout"):
        assert offered(f"lite rpc {command} ") == ["cinder-scheduler", "cinder-volume", "compute", "nova-api"]


def test_methods_are_those_of_the_topic_s_contract(offered: Offered) -> None:
    assert offered("lite rpc call nova-api get") == ["get", "get_all"]
    assert offered("lite rpc cast compute ") == [
        "attach_volume",
        "build_and_run_instance",
        "detach_volume",
        "external_instance_event",
        "reboot_instance",
        "start_instance",
        "stop_instance",
        "terminate_instance",
    ]
    assert offered("lite rpc fanout cinder-volume p") == ["publish_service_capabilities"]


def test_methods_of_one_server_and_of_a_namespace_are_offered_too(offered: Offered) -> None:
    assert offered("lite rpc call compute.cmp1 ") == ["reserve_block_device_name"]
    assert offered("lite rpc call cinder-volume.host@gold in") == ["initialize_connection"]
    assert offered("lite rpc call compute --namespace probe ") == ["about", "verify_pattern", "write_pattern"]


def test_nothing_is_offered_for_a_topic_that_nobody_has(offered: Offered) -> None:
    assert offered("lite rpc call computer ") == []
    assert offered("lite rpc call nova-api.") == []


@pytest.mark.parametrize("name", APPS)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_for_the_shell_that_is_named_and_nothing_else_is_printed(
    capsys: pytest.CaptureFixture[str], name: str, shell: str
) -> None:
    assert run_cli(APPS[name], ["--show-completion", shell], name=name) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"_{name.replace('-', '_').upper()}_COMPLETE=complete_{shell}" in out
    assert out.startswith({"bash": "_", "zsh": "#compdef ", "fish": "complete "}[shell])


@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
def test_an_unknown_shell_is_refused_with_those_that_are_known(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert run_cli(lite, [option, "tcsh"], name="lite") == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert "'tcsh' is not known; known: bash, zsh, fish" in err


def test_the_script_is_installed_for_the_shell_that_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_cli(lite, ["--install-completion", "zsh"], name="lite") == 0
    assert "zsh" in capsys.readouterr().out
    assert "#compdef lite" in (tmp_path / ".zfunc" / "_lite").read_text()
    assert ".zfunc" in (tmp_path / ".zshrc").read_text()
    assert not (tmp_path / ".bashrc").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("name", "words", "found"),
    [
        ("lite", ("rpc", "call", "nova-api", "get_"), "get_all"),
        ("nova-lite", ("volume-att",), "volume-attach"),
        ("cinder-lite", ("serv",), "service-list"),
    ],
)
def test_bash_completes_with_the_script_that_is_printed(name: str, words: tuple[str, ...], found: str) -> None:
    function = f"_{name.replace('-', '_')}_completion"
    script = (
        f'eval "$({name} --show-completion bash)"; complete -p {name} >&2; COMP_WORDS=({name} {" ".join(words)}); '
        f"COMP_CWORD={len(words)}; {function} {name}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    ran = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=50, env={"PATH": path}, check=True
    )
    assert found in ran.stdout.split()
    assert all(word.startswith(words[-1]) for word in ran.stdout.split())
    assert ran.stderr == f"complete -o default -F {function} {name}\n"
