"""Commands that are read when they are asked for."""

import subprocess
import sys

import pytest
from typer.main import get_command

from common.app.__main__ import Commands, app
from common.app.cli import run_cli


@pytest.mark.parametrize("name", Commands.later)
def test_the_list_says_of_each_command_what_its_own_help_says(name: str) -> None:
    group = get_command(app)
    assert isinstance(group, Commands)
    command = group.get_command(None, name)
    own = " ".join((command.help or "").split())
    assert own.startswith(Commands.later[name].help.removesuffix("."))


def test_a_mistyped_command_is_told_the_one_it_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(app, ["docter"], name="lite") != 0
    assert "Did you mean 'doctor'?" in capsys.readouterr().err


def test_help_waits_for_no_library_of_the_database_or_the_bus() -> None:
    code = (
        "import sys\nfrom common.app.__main__ import app\nfrom common.app.cli import run_cli\nrun_cli(app, ['--help'])\n"
        "print([name for name in ('sqlalchemy', 'alembic', 'kombu', 'aio_pika') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_a_service_starts_without_what_only_a_migration_needs() -> None:
    code = "import sys\nimport cinder_lite.service.wiring, nova_lite.service.wiring\nprint('alembic' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout == "False\n"
