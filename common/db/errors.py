"""What can go wrong with the shared database, and which fault each driver's error becomes."""

from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
    TimeoutError as PoolTimeoutError,
)

from common.base.errors import Broken, Conflict, Fault, Misconfigured, Unavailable
from common.base.limits import CONNECT_TIMEOUT_S, STATEMENT_TIMEOUT_S


class DatabaseUnavailable(Unavailable):
    """The database {url} is not available: {reason}"""


class DatabaseBusy(Unavailable):
    """The database {url} is busy: {reason}"""


class DatabaseNotUpgraded(Misconfigured):
    """The database {url} has {found}; this program needs {wanted}. Run: lite db upgrade"""


class DatabaseRefused(Broken):
    """The database {url} refused a statement: {reason}"""


class Duplicate(Conflict):
    """A row with the same key is in the database {url} already: {reason}"""


_UNIQUE = {"23505", 1062, "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}
"""PostgreSQL SQLSTATE (appendix A), MariaDB error number, SQLite's name: all of a unique key."""
_BUSY = {"40001", "40P01", "55P03", 1020, 1205, 1213}
"""Serialization failure, deadlock, lock not available; MariaDB: record changed, lock wait timeout, deadlock."""
_NO_TABLE = {"42P01", "42703", 1146, 1054}
"""A table or a column that is not there."""
_GONE = {"57014", "57P01", "57P02", "57P03", 1053, 1317, 1927, 1969, 2003, 2006, 2013, 2014}
"""The server shuts down, was killed or cut us off; or the statement ran out of time."""


def fault_of(exc: BaseException, *, url: str) -> Fault:
    """The fault that a driver's error is. Texts hold what the server said, but neither statements nor their values."""
    if isinstance(exc, DBAPIError):
        code, reason = _code(exc.orig), _said(exc.orig)
        if code in _NO_TABLE or reason.startswith(("no such table", "no such column")):
            return DatabaseNotUpgraded(url=url, found=f"not every table ({reason})", wanted="all of them")
        return _class_of(exc, code)(url=url, reason=reason)
    if isinstance(exc, PoolTimeoutError):
        return DatabaseUnavailable(url=url, reason=f"no connection of this process came free within {CONNECT_TIMEOUT_S:g} s")
    if isinstance(exc, SQLAlchemyError):
        return DatabaseRefused(url=url, reason=type(exc).__name__)
    # Of a first contact or of a socket: these do not come through SQLAlchemy's mapping.
    reason = f"no answer within {STATEMENT_TIMEOUT_S:g} s" if isinstance(exc, TimeoutError) else _said(exc)
    return DatabaseUnavailable(url=url, reason=reason)


def _class_of(exc: DBAPIError, code: str | int | None) -> type[Fault]:
    if code in _UNIQUE:
        return Duplicate
    if code in _BUSY or _is_locked(code):
        return DatabaseBusy
    # A broken foreign key or an empty column is a mistake of this program, though MariaDB's class for it says otherwise.
    is_operational = isinstance(exc, InterfaceError | OperationalError) and not isinstance(exc, IntegrityError)
    return DatabaseUnavailable if code in _GONE or exc.connection_invalidated or is_operational else DatabaseRefused


def _code(error: BaseException | None) -> str | int | None:
    """Error number of aiomysql, SQLSTATE of asyncpg, error name of sqlite3; None when it has none."""
    first = error.args[0] if error is not None and error.args else None
    if isinstance(first, int):
        return first
    code: str | None = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
    return code


def _is_locked(code: str | int | None) -> bool:
    return isinstance(code, str) and code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _said(error: BaseException | None) -> str:
    """The first line of the server's words."""
    if error is None:
        return "no reason given"
    if isinstance(error.args[0] if error.args else None, int):
        text = str(error.args[1]) if len(error.args) > 1 else str(error)
    else:
        text = str(error).rpartition("'>: ")[2]
    return text.strip().partition("\n")[0] or type(error).__name__
