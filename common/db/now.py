"""The database's clock, in SQL: whatever several processes must agree on is measured by it, and never by two hosts' own clocks.

SQLite has no clock that a test could hold; there `open_database` gives it the program's, which is that of the one machine.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Double, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

SQLITE_FUNCTION = "lite_now"
"""lite_now(seconds): the time of day plus `seconds`, as SQLAlchemy keeps a DateTime in SQLite."""


class database_time(FunctionElement[datetime]):  # noqa: N801  # reads as the SQL function that it is
    """Naive UTC time, `plus_s` seconds from now, by the database's clock at this statement; a bindparam is given with its execution."""

    inherit_cache = True
    type = DateTime()

    def __init__(self, plus_s: float | ColumnElement[float] = 0.0) -> None:
        super().__init__(plus_s if isinstance(plus_s, ColumnElement) else literal(plus_s, Double()))


NOW = database_time()


def as_sqlite_text(moment: datetime) -> str:
    """What `lite_now` gives for a moment."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


@compiles(database_time, "sqlite")
def _sqlite(element: database_time, compiler: Any, **kw: Any) -> str:
    return f"{SQLITE_FUNCTION}({compiler.process(element.clauses, **kw)})"


@compiles(database_time, "postgresql")
def _postgresql(element: database_time, compiler: Any, **kw: Any) -> str:
    return f"((clock_timestamp() AT TIME ZONE 'UTC') + make_interval(secs => {compiler.process(element.clauses, **kw)}))"


@compiles(database_time, "mysql")
@compiles(database_time, "mariadb")
def _mysql(element: database_time, compiler: Any, **kw: Any) -> str:
    # The time at which the statement began: one that waits for a lock takes its lease for a little shorter than it is.
    return f"TIMESTAMPADD(MICROSECOND, ROUND(1000000 * {compiler.process(element.clauses, **kw)}), UTC_TIMESTAMP(6))"
