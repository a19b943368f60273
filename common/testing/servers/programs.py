"""Find and run the programs of a server."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

COMMAND_TIMEOUT_S = 60.0


class ServerFailed(RuntimeError):
    """A private server could not be started or refused a command; the text holds the end of its log."""


ADMIN_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
"""PATH and the folders of an administrator's programs, which an ordinary user's PATH leaves out."""


def not_found(*programs: str, path: str = ADMIN_PATH) -> str | None:
    """The names of the programs that are not there; None when all are."""
    absent = [name for name in programs if shutil.which(name, path=path) is None]
    return ", ".join(absent) or None


def program(name: str, *, path: str = ADMIN_PATH) -> str:
    """Where it is. Raises ServerFailed."""
    found = shutil.which(name, path=path)
    if found is None:
        raise ServerFailed(f"{name} is not on this machine")
    return found


def output(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout_s: float = COMMAND_TIMEOUT_S
) -> str:
    """What the program prints; ServerFailed with its complaint when it fails."""
    done = subprocess.run(  # noqa: S603 - the vector is ours
        argv, env={**os.environ, **(env or {})}, cwd=cwd, timeout=timeout_s, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ServerFailed(f"{Path(argv[0]).name} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def succeeds(argv: Sequence[str]) -> bool:
    """True when the program ends with status 0."""
    return subprocess.run(argv, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False).returncode == 0  # noqa: S603 - ours
