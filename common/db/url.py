"""Which driver a database URL of an operator means. Pure."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from common.base.errors import Misconfigured
from common.base.limits import CONNECT_TIMEOUT_S, STATEMENT_TIMEOUT_S

SQLITE, POSTGRESQL, MYSQL = "sqlite", "postgresql", "mysql"

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mysql+aiomysql",
}
_LOCK_WAIT_S = 10
"""Longest wait for a row that another transaction holds."""
_IDLE_IN_TRANSACTION_S = 60
"""After so long the server takes back what a hung process holds."""


@dataclass(frozen=True, slots=True)
class Address:
    """A database and how to reach it.

    url            for the async driver; holds the password
    shown          the operator's URL without password and options
    dialect        sqlite, postgresql or mysql (which MariaDB is, too)
    connect_args   keyword arguments of the driver's `connect`
    """

    url: URL = field(repr=False)
    shown: str
    dialect: str
    connect_args: Mapping[str, Any] = field(repr=False)

    @property
    def path(self) -> Path:
        """SQLite's file."""
        assert self.dialect == SQLITE
        return Path(self.url.database or "")


def parse(connection: str) -> Address:
    """The address that an operator's URL means; its driver is replaced by the async one of the same database.

    Raises Misconfigured for what is no URL, an unknown dialect or option, and SQLite without a file.
    """
    try:
        url = make_url(connection)
    except (ArgumentError, ValueError):
        # The parser's own words may repeat the URL, and with it a password.
        raise Misconfigured(reason="the database connection is not a URL like postgresql://user:password@host/name") from None
    backend = url.drivername.partition("+")[0]
    if backend not in _DRIVERS:
        raise Misconfigured(reason=f"unknown database {backend!r} in the connection URL; known: {', '.join(sorted(_DRIVERS))}")
    shown = url.set(drivername=backend, query={}).render_as_string(hide_password=True)
    url = url.set(drivername=_DRIVERS[backend])
    match url.get_backend_name():
        case "sqlite":
            return _sqlite(url, shown)
        case "postgresql":
            return _postgresql(url, shown)
        case _:
            return _mysql(url, shown)


def _sqlite(url: URL, shown: str) -> Address:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise Misconfigured(reason="SQLite needs a file that all processes share, like sqlite:////var/lib/lite/lite.sqlite")
    _refuse_others(url, known=())
    # isolation_level None: Python's module leaves BEGIN to us.
    arguments = {"timeout": float(_LOCK_WAIT_S), "isolation_level": None}
    return Address(url.set(query={}), shown, SQLITE, arguments)


def _postgresql(url: URL, shown: str) -> Address:
    _refuse_others(url, known=("sslmode", "host", "application_name", "client_encoding", "connect_timeout"))
    arguments: dict[str, Any] = {
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": STATEMENT_TIMEOUT_S,
        "server_settings": {
            "application_name": _option(url, "application_name") or "lite",
            "statement_timeout": str(int(STATEMENT_TIMEOUT_S * 1000)),
            "lock_timeout": str(_LOCK_WAIT_S * 1000),
            "idle_in_transaction_session_timeout": str(_IDLE_IN_TRANSACTION_S * 1000),
        },
    }
    if (mode := _option(url, "sslmode")) is not None:
        arguments["ssl"] = mode
    host = _option(url, "host")
    return Address(url.set(query={"host": host} if host else {}), shown, POSTGRESQL, arguments)


def _mysql(url: URL, shown: str) -> Address:
    _refuse_others(url, known=("charset", "unix_socket", "ssl_ca", "connect_timeout"))
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        # MySQL's utf8 is three bytes wide and cannot hold every name; utf8mb4 holds all that utf8 does.
        "charset": "utf8mb4",
        # MariaDB reads what stands in /*M!100101 */, MySQL does not know that variable and skips it.
        "init_command": f"SET SESSION innodb_lock_wait_timeout = {_LOCK_WAIT_S}, sql_mode = 'TRADITIONAL' "
        f"/*M!100101 , max_statement_time = {STATEMENT_TIMEOUT_S:g} */",
    }
    if (path := _option(url, "unix_socket")) is not None:
        arguments["unix_socket"] = path
    if (authority := _option(url, "ssl_ca")) is not None:
        arguments["ssl"] = ssl.create_default_context(cafile=authority)
    return Address(url.set(query={}), shown, MYSQL, arguments)


def _option(url: URL, name: str) -> str | None:
    value = url.query.get(name)
    return value if isinstance(value, str) or value is None else value[-1]


def _refuse_others(url: URL, *, known: tuple[str, ...]) -> None:
    """An option that is silently dropped is worse than one that is refused."""
    others = sorted(set(url.query) - set(known))
    if others:
        told = f"known: {', '.join(known)}" if known else "there are none"
        raise Misconfigured(reason=f"unknown option {', '.join(others)} in the {url.get_backend_name()} connection URL; {told}")
