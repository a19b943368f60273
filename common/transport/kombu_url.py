"""From a `kombu+<kombu URL>` to what makes a kombu connection."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from kombu.connection import Connection
from kombu.transport import virtual

from common.base.errors import Misconfigured
from common.transport.kombu_folder import FOLDER, FolderTransport
from common.transport.rabbit_url import without_password

_PREFIX = "kombu+"
_SQL = ("sqla", "sqlalchemy")
_EXTRAS = {"redis": "kombu-redis", "psycopg": "kombu-postgresql", "pymysql": "kombu-mysql"}
"""Module of a driver and the extra of this project that installs it."""

_KombuConnection: Any = Connection
"""kombu's types say nothing."""


def connector(url: str) -> tuple[Callable[[], Any], bool]:
    """What makes a kombu connection for that URL, and whether all that come by it share queues and bindings.

    Raises Misconfigured, also when the driver is not installed: it then names the extra that brings it.
    """
    inner = url.removeprefix(_PREFIX)
    scheme = inner.partition("://")[0].partition("+")[0]
    match scheme:
        case "filesystem":
            return _folder(inner), True
        case "redis" | "rediss":
            transport = _imported(url, "redis", "common.transport.kombu_redis").RedisTransport
            _check_redis(url)
            return lambda: _KombuConnection(inner, transport=transport), True
        case _ if scheme in _SQL:
            return _sql(url, inner), True
        case _:
            _check_virtual(url, inner, scheme)
            return lambda: _KombuConnection(inner), False


def folder_of(url: str) -> Path | None:
    """The folder that a transport_url names; None for another kind of bus. Raises Misconfigured."""
    inner = url.removeprefix(_PREFIX)
    parts = urlsplit(inner)
    if url == inner or parts.scheme != "filesystem":
        return None
    folder = unquote(parts.path)
    if parts.netloc or not folder.strip("/"):
        raise Misconfigured(reason=f"transport_url {url} names no folder; wanted: {_PREFIX}filesystem:///absolute/folder")
    return Path(folder)


def _folder(url: str) -> Callable[[], Any]:
    folder = str(folder_of(f"{_PREFIX}{url}"))
    options = {
        FOLDER: folder,
        "data_folder_in": f"{folder}/messages",
        "data_folder_out": f"{folder}/messages",
        "control_folder": f"{folder}/control",
    }
    return lambda: _KombuConnection("filesystem://", transport=FolderTransport, transport_options=options)


def _check_redis(url: str) -> None:
    try:
        parts = urlsplit(url)
        number = parts.path.strip("/")
        is_good = (not number or number.isdecimal()) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_good = False
    if not is_good:
        # Without the parser's words: they may repeat the text it stumbled over, perhaps a password.
        raise Misconfigured(reason=f"transport_url {without_password(url)} is not {_PREFIX}redis://user:password@host:port/number")


def _sql(url: str, inner: str) -> Callable[[], Any]:
    sql = import_module("common.transport.kombu_sql")
    database = inner.partition("+")[2]
    driver = sql.driver_of(database)
    if driver is None:
        wanted = f"{_PREFIX}sqla+sqlite:////absolute/file or {_PREFIX}sqla+postgresql://user:password@host/database"
        raise Misconfigured(reason=f"transport_url {without_password(url)} is no database; wanted: {wanted}")
    _imported(url, driver, driver)
    return lambda: _KombuConnection("memory://", transport=sql.SqlTransport, transport_options={sql.DATABASE: database})


def _imported(url: str, driver: str, module: str) -> Any:
    try:
        import_module(driver)
    except ImportError as exc:
        extra = _EXTRAS.get(driver.partition(".")[0])
        help_ = f"pip install 'nova-cinder-lite[{extra}]'" if extra else f"install {driver}"
        reason = f"transport_url {without_password(url)} needs the Python package {driver}, which is not installed: {help_}"
        raise Misconfigured(reason=reason) from exc
    return import_module(module)


def _check_virtual(url: str, inner: str, scheme: str) -> None:
    try:
        if not issubclass(_KombuConnection(inner).get_transport_cls(), virtual.Transport):
            reason = f"transport_url {without_password(url)}: kombu's {scheme} speaks AMQP itself; write rabbit:// for RabbitMQ"
            raise Misconfigured(reason=reason)
    except (KeyError, ImportError, ValueError) as exc:
        reason = f"transport_url {without_password(url)}: kombu cannot use {scheme} here: {exc}"
        raise Misconfigured(reason=reason) from exc
