"""A private MariaDB."""

import os
import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.testing.servers.base import Server
from common.testing.servers.programs import not_found, output, program, succeeds


class MariaDbServer(Server):
    """MariaDB whose root has no password on 127.0.0.1."""

    def __init__(self, folder: Path | None = None, *, keeps_its_word: bool = False) -> None:
        super().__init__(folder, keeps_its_word=keeps_its_word)
        self.data = self.folder / "data"

    @classmethod
    def missing(cls) -> str | None:
        """Names the programs that are not there."""
        return not_found("mariadb-install-db", "mariadbd", "mariadb", "mariadb-admin")

    @classmethod
    def version(cls) -> str:
        return output([program("mariadbd"), "--version"]).split("Ver ")[1].split()[0]

    def url(self, database: str) -> str:
        """An operator's URL of one database, in the words of nova's and cinder's documentation."""
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{database}?charset=utf8mb4"

    def execute(self, sql: str) -> None:
        """One statement or several, divided by semicolons. Raises ServerFailed."""
        output([program("mariadb"), *self._login(), "-e", sql])

    def create_database(self, name: str) -> str:
        """The URL of a new database in utf8mb4."""
        self.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Gone already: nothing happens."""
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")

    def _login(self) -> list[str]:
        return ["--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", str(self.port), "-u", "root"]

    def _prepare(self) -> None:
        made = ["--no-defaults", f"--datadir={self.data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
        output([program("mariadb-install-db"), *made, *_as_own_user(), "--innodb-log-file-size=8M"])

    def _command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        settings = {
            "datadir": self.data,
            "socket": self.folder / "mariadb.sock",
            "pid-file": self.folder / "mariadb.pid",
            "bind-address": "127.0.0.1",
            "port": self.port,
            "innodb-flush-log-at-trx-commit": 2 if self.keeps_its_word else 0,
            "innodb-doublewrite": int(self.keeps_its_word),
            "innodb-flush-method": "nosync",
            "innodb-buffer-pool-size": "32M",
            "innodb-log-file-size": "8M",
            "innodb-fast-shutdown": 2,
            "max-connections": 200,
            "performance-schema": 0,
        }
        flags = [f"--{name}={value}" for name, value in settings.items()]
        return [program("mariadbd"), "--no-defaults", *flags, "--skip-name-resolve", "--skip-log-bin", *_as_own_user()], {}

    def _is_ready(self) -> bool:
        return succeeds([program("mariadb-admin"), *self._login(), "ping"])


def _as_own_user() -> list[str]:
    """MariaDB runs as root only when told so."""
    return [f"--user={pwd.getpwuid(os.geteuid()).pw_name}"]
