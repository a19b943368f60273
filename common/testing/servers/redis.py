"""A private redis."""

import socket
from collections.abc import Mapping, Sequence

from common.testing.servers.base import Server
from common.testing.servers.programs import not_found, output, program

_DATABASES = 1000


class RedisServer(Server):
    """redis without a password, that writes nothing to the disk unless it is told to.

    appendonly   whether what it holds outlives `kill`
    """

    appendonly: bool = False
    _next = 0

    @classmethod
    def missing(cls) -> str | None:
        """Names the program that is not there."""
        return not_found("redis-server")

    @classmethod
    def version(cls) -> str:
        return output([program("redis-server"), "--version"]).partition("v=")[2].split()[0]

    def url(self, database: int = 0) -> str:
        """A transport_url of ours, of one of its databases."""
        return f"kombu+redis://127.0.0.1:{self.port}/{database}"

    def fresh_url(self) -> str:
        """The URL of a database that nobody has used. There are a thousand."""
        self._next += 1
        return self.url(self._next % _DATABASES)

    def _prepare(self) -> None:
        """It makes its files itself."""

    def _command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": self.folder,
            "databases": _DATABASES,
            "save": "",
            "appendonly": "yes" if self.appendonly else "no",
            "appendfsync": "always",
            "daemonize": "no",
        }
        return [program("redis-server"), *(word for name, value in settings.items() for word in (f"--{name}", str(value)))], {}

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
