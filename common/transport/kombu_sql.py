"""kombu's SQLAlchemy transport, on `common.transport.sql_store`. PostgreSQL needs psycopg (the extra `kombu-postgresql`)."""

from typing import Any

import sqlalchemy
from kombu.transport import virtual
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from common.transport.kombu_store import ANSWER_TIMEOUT_S, Store, StoreChannel
from common.transport.sql_store import READS, SqlStore

_KombuTransport: Any = virtual.Transport
"""kombu's types say nothing. Its own SQLAlchemy transport defines tables when it is imported; ours has others."""

DATABASE = "database"
"""The transport option that names the database."""
_DRIVERS = {"sqlite": "sqlite3", "postgresql": "psycopg", "postgres": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}


def driver_of(database: str) -> str | None:
    """The module that reaches the database of that URL; None when it is no URL of one that is known."""
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        return None
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        return None
    return _DRIVERS.get(url.drivername.partition("+")[0])


def open_engine(database: str) -> Engine:
    """One connection, for one thread, that waits no longer than ANSWER_TIMEOUT_S for an answer."""
    url = make_url(database)
    backend = "postgresql" if url.drivername.startswith("postgres") else url.get_backend_name()
    whole_s = int(ANSWER_TIMEOUT_S)
    words: dict[str, Any]
    match backend:
        case "sqlite":
            url, words = url.set(drivername="sqlite"), {"timeout": ANSWER_TIMEOUT_S, "isolation_level": None}
        case "postgresql":
            url = url.set(drivername="postgresql+psycopg")
            ms = whole_s * 1000
            words = {
                "connect_timeout": whole_s,
                "tcp_user_timeout": ms,
                "options": f"-c statement_timeout={ms} -c lock_timeout={ms} -c idle_in_transaction_session_timeout={ms * 5}",
            }
        case _:
            url = url.set(drivername="mysql+pymysql")
            words = {"connect_timeout": whole_s, "read_timeout": whole_s, "write_timeout": whole_s}
    engine = _engine(url, words)
    if backend == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _engine(url: URL, words: dict[str, Any]) -> Engine:
    level: dict[str, Any] = {} if url.get_backend_name() == "sqlite" else {"isolation_level": "READ COMMITTED"}
    return create_engine(url, connect_args=words, pool_size=1, max_overflow=0, pool_pre_ping=True, hide_parameters=True, **level)


def _prepare_sqlite(connection: Any, _: object) -> None:
    """Readers and a writer do not wait for each other; what was committed outlives every process, not a power cut."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    """Lock before the first look: two that look at once would both write what they saw."""
    if not connection.get_execution_options().get(READS):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


class SqlChannel(StoreChannel):
    """A kombu channel whose queues are a `SqlStore`'s."""

    expected_errors = (OSError, SQLAlchemyError)

    def open_store(self) -> Store:
        self._engine = open_engine(self.connection.client.transport_options[DATABASE])
        store = SqlStore(self._engine)
        store.create()
        return store

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._engine.dispose()


class SqlTransport(_KombuTransport):  # type: ignore[misc]  # as said above
    """What `kombu.Connection` is given instead of the name `sqla`."""

    Channel = SqlChannel
    driver_type = "sql"
    driver_name = "sqlalchemy"
    connection_errors = (OSError, SQLAlchemyError)
    channel_errors = (*_KombuTransport.channel_errors,)

    def driver_version(self) -> str:
        return sqlalchemy.__version__
