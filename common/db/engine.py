"""The shared database: SQLite, PostgreSQL or MariaDB behind one class. Driver errors end here."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import CursorResult, Executable, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from common.base.clock import Clock
from common.base.errors import Fault
from common.base.limits import CONNECT_TIMEOUT_S, STATEMENT_TIMEOUT_S
from common.db import fence
from common.db.branch import Branch
from common.db.errors import DatabaseBusy, DatabaseNotUpgraded, DatabaseRefused, DatabaseUnavailable, fault_of
from common.db.idle import ask_the_idle
from common.db.now import SQLITE_FUNCTION, as_sqlite_text
from common.db.revisions import heads, revisions_of
from common.db.url import MYSQL, POSTGRESQL, SQLITE, Address, parse

T = TypeVar("T")

POOL_SIZE = 10
POOL_OVERFLOW = 10
POOL_RECYCLE_S = 3600
"""oslo.db's connection_recycle_time: below MariaDB's wait_timeout."""
BUSY_ATTEMPTS = 10
"""A deadlock, or a file that another process holds, is met again so often."""

_BUSY_PAUSE_S = 0.01
_READ_ONLY = "lite_read_only"
_WHEN_COMMITTED = "lite_when_committed"
_DRIVER_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError, TimeoutError)
_CONNECT_ERRORS = (*_DRIVER_ERRORS, OSError)


class Database:
    """One database with a bounded pool of connections. Made by `open_database`; `close` ends it."""

    def __init__(self, address: Address, engine: AsyncEngine, *, clock: Clock, branches: Sequence[Branch]) -> None:
        self.url = address.shown
        """The operator's URL without password and options."""
        self.dialect = address.dialect
        """sqlite, postgresql, or mysql for MariaDB and MySQL."""
        self._address = address
        self._engine = engine
        self._clock = clock
        self._branches = branches
        # SQLite has one writer at a time; waiting here is fair and costs no polling, as waiting in SQLite would.
        self._writer = asyncio.Lock()

    @asynccontextmanager
    async def begin(
        self, *, read_only: bool = False, alone: bool = False, timeout_s: float = STATEMENT_TIMEOUT_S
    ) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back when an error or a cancellation leaves it.

        read_only   a promise not to write: on SQLite such transactions do not wait for a writer
        alone       a promise of one statement that asks for its flow's fence itself
        timeout_s   longest time of the whole block, which therefore must not wait for anything but the database
        Raises DatabaseUnavailable, DatabaseBusy, DatabaseNotUpgraded, DatabaseRefused, Duplicate; Superseded when it was to write
        for a flow that this process no longer carries on (common.db.fence).
        """
        held_fence = None if read_only or alone else fence.held()
        turn = self._writer if self.dialect == SQLITE and not read_only else nullcontext()
        async with turn, self._connected() as conn:
            try:
                async with asyncio.timeout(timeout_s):
                    await conn.execution_options(**{_READ_ONLY: read_only}, **self._how(is_single=read_only or alone))
                    told: list[Callable[[], None]] = []
                    conn.info[_WHEN_COMMITTED] = told
                    async with conn.begin():
                        if held_fence is not None:
                            await fence.check(conn, held_fence)
                        yield conn
                    for callback in told:
                        callback()
            except _DRIVER_ERRORS as exc:
                raise self.fault_of(exc) from exc

    async def run(
        self, work: Callable[[AsyncConnection], Awaitable[T]], *, read_only: bool = False, alone: bool = False
    ) -> T:  # fmt: skip
        """What `work` returns, done in one transaction; done again when the database says it is busy.

        Deadlocks and serialization failures are ordinary, so `work` must have no effect but on its connection.
        Raises what `begin` raises; DatabaseBusy when the attempts are spent.
        """
        try:
            async with self.begin(read_only=read_only, alone=alone) as conn:
                return await work(conn)
        except DatabaseBusy:
            await self._clock.sleep(_BUSY_PAUSE_S)
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(BUSY_ATTEMPTS - 1),
            wait=wait_random_exponential(multiplier=0.01, max=1),
            retry=retry_if_exception_type(DatabaseBusy),
            sleep=self._clock.sleep,
            reraise=True,
        ):
            with attempt:
                async with self.begin(read_only=read_only, alone=alone) as conn:
                    return await work(conn)
        raise AssertionError("the retrying either returns or raises")

    async def execute(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> CursorResult[Any]:
        """One writing statement by itself, with its rowcount. Raises what `run` raises."""
        return await self.run(lambda conn: conn.execute(statement, parameters), alone=fence.held() is None)

    async def check(self) -> None:
        """Returns when the database answers and has every table of this program.

        Raises DatabaseUnavailable, DatabaseNotUpgraded.
        """
        wanted = heads(self._branches)
        found: frozenset[str] = frozenset()
        if self.dialect != SQLITE or self._address.path.exists():
            async with self.begin(read_only=True) as conn:
                found = await conn.run_sync(revisions_of)
        if not wanted <= found:
            raise DatabaseNotUpgraded(url=self.url, found=_revisions(found), wanted=_revisions(wanted))

    async def close(self) -> None:
        """Closes every connection. Twice is once."""
        await self._engine.dispose()

    def fault_of(self, exc: BaseException) -> Fault:
        """The fault that a driver's error is."""
        return fault_of(exc, url=self.url)

    def _how(self, *, is_single: bool) -> dict[str, Any]:
        """At READ COMMITTED each statement has a snapshot of its own: PostgreSQL need not be told where one that reads, or is alone, begins and ends."""
        return {"isolation_level": "AUTOCOMMIT"} if is_single and self.dialect == POSTGRESQL else {}

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        """A connection of the pool. One that a cancellation met within a statement is dropped by SQLAlchemy, not reused."""
        async with AsyncExitStack() as held:
            try:
                if self.dialect == SQLITE:
                    _make_private(self._address)
                async with asyncio.timeout(CONNECT_TIMEOUT_S * 2):
                    conn = await held.enter_async_context(self._engine.connect())
            except _CONNECT_ERRORS as exc:
                fault = self.fault_of(exc)
                # A wrong password or an unknown name of a database: no statement was refused, there was no contact.
                raise (
                    DatabaseUnavailable(url=self.url, reason=fault.reason) if isinstance(fault, DatabaseRefused) else fault
                ) from exc
            yield conn


def when_committed(conn: AsyncConnection, callback: Callable[[], None]) -> None:
    """Call `callback` once the transaction that `Database.begin` gave is committed, and never when it is not."""
    conn.info[_WHEN_COMMITTED].append(callback)


def open_database(connection: str, *, clock: Clock, branches: Sequence[Branch] = (), pooled: bool = True) -> Database:
    """The database of an operator's URL; nothing is contacted yet.

    branches   the services' migrations that `check` asks for, besides common's own
    pooled     False: a connection lives for one transaction
    Raises Misconfigured.
    """
    address = parse(connection)
    sizes: dict[str, Any] = {
        "pool_size": POOL_SIZE,
        "max_overflow": POOL_OVERFLOW,
        "pool_timeout": CONNECT_TIMEOUT_S,
        "pool_use_lifo": True,
        "pool_recycle": POOL_RECYCLE_S if address.dialect == MYSQL else -1,
    }
    isolation: dict[str, Any] = {"isolation_level": "READ COMMITTED"} if address.dialect in {POSTGRESQL, MYSQL} else {}
    engine = create_async_engine(
        address.url,
        connect_args=dict(address.connect_args),
        hide_parameters=True,
        **(sizes if pooled else {"poolclass": NullPool}),
        **isolation,
    )
    if address.dialect == SQLITE:
        event.listen(engine.sync_engine, "connect", _sqlite_set_up(clock))
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    else:
        ask_the_idle(engine.sync_engine, clock)
    return Database(address, engine, clock=clock, branches=tuple(branches))


def _make_private(address: Address) -> None:
    """SQLite's file and folder, for this user only. The file's companions (-wal, -shm) take its mode."""
    path = address.path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _sqlite_set_up(clock: Clock) -> Callable[[Any, object], None]:
    def now(plus_s: float) -> str:
        return as_sqlite_text(clock.utcnow() + timedelta(seconds=plus_s))

    def set_up(dbapi_connection: Any, _: object) -> None:
        cursor = dbapi_connection.cursor()
        for name, value in (("journal_mode", "WAL"), ("synchronous", "FULL"), ("foreign_keys", "ON")):
            cursor.execute(f"PRAGMA {name} = {value}")
        cursor.close()
        dbapi_connection.create_function(SQLITE_FUNCTION, 1, now)

    return set_up


def _begin_sqlite(conn: Any) -> None:
    """A transaction that begins by reading and goes on to write may fail in the middle; one that begins as a writer waits."""
    conn.exec_driver_sql("BEGIN" if conn.get_execution_options().get(_READ_ONLY) else "BEGIN IMMEDIATE")


def _revisions(found: frozenset[str]) -> str:
    return f"revision {', '.join(sorted(found))}" if found else "no tables of ours"
