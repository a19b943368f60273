"""A private PostgreSQL."""

import os
import pwd
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from common.testing.servers.base import Server
from common.testing.servers.programs import ADMIN_PATH, ServerFailed, output, program, succeeds


class PostgresServer(Server):
    """PostgreSQL that trusts every local connection. As root it runs as user postgres, because it refuses root."""

    def __init__(self, folder: Path | None = None, *, keeps_its_word: bool = False) -> None:
        super().__init__(folder, keeps_its_word=keeps_its_word)
        self.data = self.folder / "data"

    @classmethod
    def missing(cls) -> str | None:
        """Names the program that is not there."""
        if _postgres_bin() is None:
            return "postgres (looked for /usr/lib/postgresql/*/bin/postgres and on PATH)"
        if os.geteuid() == 0 and (shutil.which("setpriv") is None or _postgres_user() is None):
            return "setpriv and a user named postgres: PostgreSQL refuses to run as root"
        return None

    @classmethod
    def version(cls) -> str:
        return output([_postgres_program("postgres"), "--version"]).split()[2]

    def url(self, database: str = "postgres") -> str:
        """An operator's URL of one database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str) -> None:
        """One statement outside a transaction, in the database `postgres`. Raises ServerFailed."""
        psql = [_postgres_program("psql"), "-X", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", "postgres"]
        output([*psql, "-v", "ON_ERROR_STOP=1", "-c", sql])

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """The URL of a new database, a copy of `template`, to which nobody may be connected meanwhile."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Gone already: nothing happens."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    @classmethod
    def _suits(cls, folder: Path) -> bool:
        # Another user cannot enter a folder below one of root's own, such as pytest's.
        return os.geteuid() != 0 and super()._suits(folder)

    def _prepare(self) -> None:
        if (user := _other_user()) is not None:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        arguments = ["-D", str(self.data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        output([*_as_postgres(), _postgres_program("initdb"), *arguments, "--no-instructions"], cwd=self.folder)

    def _command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "synchronous_commit": "on" if self.keeps_its_word else "off",
            "full_page_writes": "on" if self.keeps_its_word else "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
            "autovacuum": "off",
        }
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*_as_postgres(), _postgres_program("postgres"), "-D", str(self.data), "-p", str(self.port), *flags], {}

    def _is_ready(self) -> bool:
        return succeeds([_postgres_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-d", "postgres"])

    def stop(self) -> None:
        """A fast shutdown: sessions are cut."""
        self._end(signal.SIGINT)
        super().stop()

    def kill(self) -> None:
        """As a power cut: its backends die too, each of which has a session of its own and would outlive it by a query."""
        postmaster = None if self._process is None else self._process.pid
        backends = [] if postmaster is None else _stopped_with_children(postmaster)
        super().kill()
        for pid in backends:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _stopped_with_children(pid: int) -> list[int]:
    """The children of a process, which from now on makes no more."""
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, signal.SIGSTOP)
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _postgres_bin() -> Path | None:
    """The folder of the newest installed PostgreSQL's programs."""
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "postgres").exists()]
    if versions:
        return max(versions, key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0)
    on_path = shutil.which("postgres", path=ADMIN_PATH)
    return Path(on_path).resolve().parent if on_path else None


def _postgres_program(name: str) -> str:
    folder = _postgres_bin()
    if folder is None:
        raise ServerFailed("postgres is not on this machine")
    return str(folder / name)


def _postgres_user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None


def _other_user() -> pwd.struct_passwd | None:
    """The user to change to; None: we are an ordinary user ourselves."""
    return _postgres_user() if os.geteuid() == 0 else None


def _as_postgres() -> list[str]:
    if _other_user() is None:
        return []
    return [program("setpriv"), "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
