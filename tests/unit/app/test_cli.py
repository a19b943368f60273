"""What people and scripts get from a command."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from common.app.cli import print_json, print_properties, print_table, run_cli
from common.base.errors import Fault, NotFound, Timeout

app = typer.Typer()


@app.command()
def fail(kind: str) -> None:
    errors: dict[str, BaseException] = {
        "fault": NotFound(kind="Volume", name="v1"),
        "timeout": Timeout(what="nova-api", timeout_s=2.0),
        "group": ExceptionGroup("g", [Fault(reason="inner")]),
        "secret": Fault(reason="cannot reach rabbit://u:hunter2@h/"),
        "bug": RuntimeError("oops"),
        "interrupt": KeyboardInterrupt(),
        "exit": typer.Exit(3),
        "quit": SystemExit(4),
        "abort": typer.Abort(),
    }
    raise errors[kind]


@app.command()
def boot(name: str, *, count: int = 1, debug: bool = False) -> None:
    sys.stdout.write(f"{name} {count} {debug}\n")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITE_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def test_a_command_that_works_ends_with_0_and_leaves_stderr_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(app, ["boot", "vm1", "--count", "2"], name="lite") == 0
    assert capsys.readouterr() == ("vm1 2 False\n", "")


@pytest.mark.parametrize(
    ("kind", "code", "stderr"),
    [
        ("fault", 1, "error: Volume v1 could not be found.\n"),
        (
            "timeout",
            2,
            "error: nova-api gave no answer within 2 s. It may still happen: look at its state before you repeat it.\n",
        ),
        ("group", 1, "error: Something failed: inner\n"),
        ("secret", 1, "error: Something failed: cannot reach rabbit://u:***@h/\n"),
        ("bug", 70, "error: RuntimeError: oops (this is a bug); LITE_DEBUG=1 shows where\n"),
        ("interrupt", 130, "\n"),
        ("exit", 3, ""),
        ("quit", 4, ""),
        ("abort", 130, ""),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(capsys: pytest.CaptureFixture[str], kind: str, code: int, stderr: str) -> None:
    assert run_cli(app, ["fail", kind], name="lite") == code
    out, err = capsys.readouterr()
    assert (out, err.strip("\n")) == ("", stderr.strip("\n"))


def test_a_bug_shows_its_traceback_when_debugging(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITE_DEBUG", "1")
    assert run_cli(app, ["fail", "bug"], name="lite") == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_fault_shows_no_traceback_even_when_debugging(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITE_DEBUG", "1")
    assert run_cli(app, ["fail", "fault"], name="lite") == 1
    assert capsys.readouterr().err == "error: Volume v1 could not be found.\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["boott", "x"], "error: No such command 'boott'. Did you mean 'boot'?"),
        (["boot", "x", "--coun", "2"], "error: No such option: --coun (Possible options: --count)"),
        (["boot"], "error: Missing argument 'name'."),
        (["boot", "x", "--count", "two"], "error: Invalid value for '--count': "),
    ],
)
def test_a_usage_error_is_64_and_names_what_is_near(capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    assert run_cli(app, argv, name="lite") == 64
    out, err = capsys.readouterr()
    assert out == ""
    usage, hint, last = err.splitlines()[0], err.splitlines()[-2], err.splitlines()[-1]
    assert usage.startswith("Usage: lite")
    assert hint.startswith("Try 'lite")
    assert last.lower().startswith(message.lower())


def test_an_interrupted_and_a_piped_command_end_as_a_shell_expects(tmp_path: Path) -> None:
    script = tmp_path / "command.py"
    script.write_text(
        "import sys, signal, typer\n"
        "from common.app.cli import run_cli\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def talk() -> None:\n"
        "    for _ in range(200_000): print('x' * 50)\n"
        "@app.command()\n"
        "def wait() -> None:\n"
        "    print('ready', flush=True)\n"
        "    signal.pause()\n"
        "sys.exit(run_cli(app))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    talk = subprocess.Popen([sys.executable, script, "talk"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert talk.stdout
    assert talk.stderr
    with talk, talk.stdout, talk.stderr:
        talk.stdout.readline()
        talk.stdout.close()
        assert (talk.stderr.read(), talk.wait(20)) == (b"", 141)

    wait = subprocess.Popen([sys.executable, script, "wait"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert wait.stdout
    assert wait.stderr
    with wait, wait.stdout, wait.stderr:
        wait.stdout.readline()
        wait.send_signal(signal.SIGINT)
        assert (wait.stderr.read().strip(), wait.wait(20)) == (b"", 130)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Pipe(io.StringIO):
    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a read-only property serves the reader
        return self._encoding


def test_a_piped_table_is_ascii_and_cuts_nothing() -> None:
    out = Pipe()
    print_table(("ID", "Name"), [("1", "x" * 300), ("2", None), (3, ["a", 1])], file=out)
    lines = out.getvalue().splitlines()
    assert out.getvalue().isascii()
    assert lines[0] == f"+----+{'-' * 302}+"
    assert lines[1] == f"| ID | Name{' ' * 297}|"
    assert [line.split()[1] for line in lines if line.startswith("| ")] == ["ID", "1", "2", "3"]
    assert f"| 1  | {'x' * 300} |" in lines
    assert len({len(line) for line in lines}) == 1


def test_a_table_for_an_ascii_reader_escapes_what_that_cannot_show() -> None:
    out = Pipe("ascii")
    print_table(("Name",), [("café",)], file=out)
    assert "caf\\xe9" in out.getvalue()


def test_a_cell_cannot_steer_the_terminal_nor_the_table() -> None:
    out = Pipe()
    print_table(("Name",), [("\x1b[31m[bold]red\nnext",)], file=out)
    assert "| \\x1b[31m[bold]red\\nnext |" in out.getvalue()


def test_on_a_terminal_a_long_cell_is_folded_not_cut() -> None:
    out = Terminal()
    print_table(("ID", "Name"), [("1", "x" * 300)], file=out)
    assert out.getvalue().count("x") == 300
    assert max(len(line) for line in out.getvalue().splitlines() if "\x1b" not in line) <= 80


def test_properties_are_a_table_of_two_columns() -> None:
    out = Pipe()
    print_properties({"id": "7", "attached": True}, file=out)
    assert out.getvalue() == (
        "+----------+-------+\n| Property | Value |\n+----------+-------+\n| id       | 7     |\n| attached | True  |\n+----------+-------+\n"
    )


def test_json_is_json() -> None:
    out = Pipe("ascii")
    print_json({"name": "café", "path": Path("/x")}, file=out)
    assert out.getvalue().isascii()
    assert json.loads(out.getvalue()) == {"name": "café", "path": "/x"}
