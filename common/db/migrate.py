"""Brings a database to the newest tables. Several processes may try at once: they take turns."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.base.clock import Clock
from common.base.errors import Broken
from common.db.branch import Branch
from common.db.engine import Database, open_database
from common.db.errors import DatabaseBusy
from common.db.revisions import COMMON, MIGRATIONS, heads, revisions_of
from common.db.url import MYSQL, POSTGRESQL

__all__ = ["Branch", "alembic_config", "current", "downgrade", "heads", "upgrade"]

UPGRADE_TIMEOUT_S = 600.0
"""Longest upgrade, and longest wait for another process's."""

_LOCK_NAME = "lite db upgrade"
_LOCK_NUMBER = int.from_bytes(hashlib.sha256(_LOCK_NAME.encode()).digest()[:8], signed=True)


class MigrationFailed(Broken):
    """The database {url} cannot be brought to the wanted tables: {reason}"""


async def upgrade(connection: str, branches: Sequence[Branch], *, clock: Clock) -> frozenset[str]:
    """The revisions that the database has afterwards. All of them there already: nothing happens.

    Raises what `Database.begin` raises, MigrationFailed.
    """
    return await _migrate(connection, lambda conn: _alembic_upgrade(conn, branches), clock)


async def downgrade(connection: str, branches: Sequence[Branch], *, clock: Clock) -> frozenset[str]:
    """Drops every table of common's branch and of these, with all that is in them; the revisions left."""
    return await _migrate(connection, lambda conn: _alembic_downgrade(conn, branches), clock)


async def current(connection: str, *, clock: Clock) -> frozenset[str]:
    """The revisions that the database has."""
    async with _opened(connection, clock) as db, db.begin(read_only=True) as conn:
        return await conn.run_sync(revisions_of)


def alembic_config(branches: Sequence[Branch]) -> Config:
    """Alembic's settings for common's branch and these, without a file."""
    made = Config()
    made.set_main_option("path_separator", "newline")
    made.set_main_option("script_location", _escaped(MIGRATIONS))
    made.set_main_option("version_locations", "\n".join(_escaped(branch.folder) for branch in (COMMON, *branches)))
    return made


async def _migrate(connection: str, act: Callable[[Connection], None], clock: Clock) -> frozenset[str]:
    async with _opened(connection, clock) as db, db.begin(timeout_s=UPGRADE_TIMEOUT_S) as conn, _alone(db, conn):
        try:
            await conn.run_sync(act)
        except CommandError as exc:
            raise MigrationFailed(url=db.url, reason=str(exc)) from exc
        return await conn.run_sync(revisions_of)


@asynccontextmanager
async def _opened(connection: str, clock: Clock) -> AsyncIterator[Database]:
    db = open_database(connection, clock=clock, pooled=False)
    try:
        yield db
    finally:
        await asyncio.shield(db.close())


@asynccontextmanager
async def _alone(db: Database, conn: AsyncConnection) -> AsyncIterator[None]:
    """Keeps other processes' upgrades out. On SQLite the transaction itself does."""
    if db.dialect == POSTGRESQL:
        await conn.execute(text("SET LOCAL statement_timeout = 0"))
        await conn.execute(text("SET LOCAL lock_timeout = 0"))
        await conn.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})
    if db.dialect != MYSQL:
        yield
        return
    # The server's locks know no databases; the name must (64 bytes at most).
    await conn.execute(text("SET SESSION innodb_lock_wait_timeout = 600 /*M!100101 , max_statement_time = 0 */"))
    name = text("SELECT GET_LOCK(LEFT(CONCAT(:name, ' ', SHA1(DATABASE())), 64), :timeout_s)")
    if (await conn.execute(name, {"name": _LOCK_NAME, "timeout_s": int(UPGRADE_TIMEOUT_S)})).scalar_one() != 1:
        raise DatabaseBusy(url=db.url, reason="another upgrade goes on")
    yield
    # The lock ends with its connection, which is not pooled: an error needs no more.


def _alembic_upgrade(conn: Connection, branches: Sequence[Branch]) -> None:
    settings = alembic_config(branches)
    settings.attributes["connection"] = conn
    command.upgrade(settings, "heads")


def _alembic_downgrade(conn: Connection, branches: Sequence[Branch]) -> None:
    settings = alembic_config(branches)
    settings.attributes["connection"] = conn
    command.downgrade(settings, "base")


def _escaped(path: Path) -> str:
    """Alembic's settings give % a meaning."""
    return str(path).replace("%", "%%")
