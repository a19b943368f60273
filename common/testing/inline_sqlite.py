"""SQLite within the event loop: one database in memory, no thread, no greenlet, and transactions that take turns.

`InlineEngine` stands where `common.db.engine` has SQLAlchemy's AsyncEngine. A transaction without other waits never yields to the
loop. One that is held up in the middle (its process stands still) keeps the others waiting, as SQLite's lock does, for as long as
SQLite's own patience.
"""

import asyncio
import sqlite3
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache, cached_property
from typing import Any, TypeVar

from sqlalchemy import Connection, Executable, create_engine
from sqlalchemy.engine import URL, Dialect, Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from common.base.clock import Clock
from common.db.now import SQLITE_FUNCTION, as_sqlite_text
from common.testing.fate import Kind
from common.testing.plans import Planner, Unplanned
from common.testing.process import Process

T = TypeVar("T")

PATIENCE_S = 10.0
"""Longest wait for another transaction; then the database is busy."""

_ADDRESS = URL.create("sqlite", database="simulated")


class InlineDatabase:
    """The database of one world. `image` is what `sqlite3.Connection.serialize` of an empty one gave, `clock` the time in it."""

    def __init__(self, image: bytes, clock: Clock) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None, cached_statements=1024)
        self.raw.deserialize(image)
        self.raw.execute("PRAGMA foreign_keys = ON")
        self.raw.create_function(SQLITE_FUNCTION, 1, lambda plus_s: as_sqlite_text(clock.utcnow() + timedelta(seconds=plus_s)))
        self.planner = _shared()[2]
        self.holder: InlineConnection | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    @cached_property
    def connection(self) -> Connection:
        """SQLAlchemy's, for what has no plan. Its own transaction is begun once and means nothing: BEGIN and COMMIT are said here."""
        (dialect, compiled, _), raw = _shared(), self.raw
        engine = Engine(StaticPool(lambda: raw, dialect=dialect), dialect, _ADDRESS, hide_parameters=True)  # type: ignore[arg-type]  # a DBAPI connection is what it is
        engine._compiled_cache = compiled
        connection = engine.connect()
        connection.begin()
        return connection

    def close(self) -> None:
        """A connection that is not closed would be remembered by SQLAlchemy, and with it everything."""
        if "connection" in self.__dict__:
            self.connection.close()
        self.raw.close()

    async def wait(self) -> None:
        """Until the transaction that runs is over, or for PATIENCE_S."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(woken)
        await asyncio.wait([woken], timeout=PATIENCE_S)

    def release(self) -> None:
        """Nobody has a transaction: whoever waits may try."""
        self.holder = None
        waiting, self._waiting = self._waiting, deque()
        for woken in waiting:
            if not woken.done():
                woken.set_result(None)


class InlineEngine:
    """One process's way to the database. At its death its transaction is rolled back."""

    def __init__(self, database: InlineDatabase, process: Process) -> None:
        self._database = database
        self._process = process
        process.hold(self)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["InlineConnection"]:
        await self._process.living()
        yield InlineConnection(self._database, self._process)

    async def dispose(self) -> None:
        """There is no pool."""

    def drop(self) -> None:
        """Its process is dead."""
        if (holder := self._database.holder) is not None and holder.process is self._process:
            holder.end("ROLLBACK")


class InlineConnection:
    """As much of SQLAlchemy's AsyncConnection as one transaction needs."""

    def __init__(self, database: InlineDatabase, process: Process) -> None:
        self.process = process
        self._database = database
        self._begin = "BEGIN IMMEDIATE"
        self.info: dict[str, Any] = {}
        self._tables: Counter[str] = Counter()

    async def execution_options(self, **options: Any) -> "InlineConnection":
        if any(options.values()):
            self._begin = "BEGIN"
        return self

    async def execute(self, statement: Executable, parameters: Any = None) -> Any:
        """SQLAlchemy's own result, all of whose rows are there; Changed for a statement that has none."""
        if self._database.holder is not self:
            await self.process.living()
            raise _failure("SQLITE_IOERR", "the transaction is gone")
        if (table := getattr(statement, "table", None)) is not None:
            self._tables[table.name] += 1
        try:
            return self._database.planner.run(self._database.raw, statement, parameters)
        except Unplanned:
            return self._database.connection.execute(statement, parameters)

    async def run_sync(self, work: Callable[[Connection], T]) -> T:
        return work(self._database.connection)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[None]:
        await self._take_turn()
        try:
            yield
            await self._commit()
        finally:
            if self._database.holder is self:
                self.end("ROLLBACK")

    def end(self, sql: str) -> None:
        """COMMIT or ROLLBACK, and let others have their turn."""
        self._database.raw.execute(sql)
        self.process.outside(self._database.release)

    async def _take_turn(self) -> None:
        """Raises SQLITE_BUSY when others have it for too long."""
        await self.process.living()
        end = self.process.clock.monotonic() + PATIENCE_S
        while self._database.holder is not None:
            if self.process.clock.monotonic() >= end:
                raise _failure("SQLITE_BUSY", "database is locked")
            await self._database.wait()
            await self.process.living()
        self._database.raw.execute(self._begin)
        self._database.holder = self

    async def _commit(self) -> None:
        if not self._tables:
            self.end("COMMIT")
            return
        if delay_s := self.process.fate.delay_s(Kind.COMMIT, 0.0):
            await asyncio.sleep(delay_s)
            await self.process.living()
        crossing = self.process.cross(Kind.COMMIT, "+".join(sorted(self._tables)))
        fault = self.process.suffer(crossing, crossing.before)
        await self.process.living()
        if fault is not None:
            self.end("ROLLBACK")
            raise _failure("SQLITE_BUSY", "database is locked") if fault == "busy" else _failure("SQLITE_IOERR", "disk I/O error")
        self.end("COMMIT")
        fault = self.process.suffer(crossing, crossing.after)
        await self.process.living()
        if fault is not None:
            raise _failure("SQLITE_IOERR", "disk I/O error")


def _failure(name: str, text: str) -> OperationalError:
    """SQLAlchemy's form of an error of SQLite's of that name."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    return OperationalError(None, None, error)


@cache
def _shared() -> tuple[Dialect, Any, Planner]:
    """The dialect and the compiled statements of this interpreter: compiling them anew for each world costs more than running them."""
    first = create_engine("sqlite://")
    with first.connect():
        return first.dialect, first._compiled_cache, Planner(first.dialect)
