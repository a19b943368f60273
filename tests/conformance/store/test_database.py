"""What `Database` promises, on each of the three databases."""

import asyncio
import stat
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.base.errors import Fault
from common.db.engine import Database, open_database
from common.db.errors import DatabaseBusy, DatabaseNotUpgraded, DatabaseRefused, DatabaseUnavailable, Duplicate
from common.db.idle import IDLE_S
from common.db.tables import flows, journal
from common.host.clock import SystemClock
from common.testing.clock import JumpingClock
from common.testing.servers import MariaDbServer, PostgresServer, free_port

NOW = datetime(2026, 11, 23, 1, 2, 3, 456789)  # noqa: DTZ001 - rows hold naive UTC


def flow(name: str, **values: object) -> dict[str, object]:
    return {"id": name, "saga": "s", "subject": "x", "arguments": {"a": [1, None, "ü"]}, "owner": "h", "state": "running", **values}


async def names(db: Database) -> set[str]:
    async with db.begin(read_only=True) as conn:
        return set((await conn.execute(select(flows.c.id))).scalars())


async def test_what_a_transaction_wrote_is_there_after_it(database: Database) -> None:
    async with database.begin() as conn:
        await conn.execute(insert(flows).values(flow("one", created_at=NOW)))
    async with database.begin() as conn:
        row = (await conn.execute(select(flows))).one()
    assert (row.id, row.arguments, row.created_at, row.error) == ("one", {"a": [1, None, "ü"]}, NOW, None)


async def test_an_error_takes_the_whole_transaction_back(database: Database) -> None:
    async def fail() -> None:
        async with database.begin() as conn:
            await conn.execute(insert(flows).values(flow("one")))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await names(database) == set()


async def test_a_cancellation_takes_the_whole_transaction_back_and_the_database_stays_usable(database: Database) -> None:
    written = asyncio.Event()

    async def write() -> None:
        async with database.begin() as conn:
            await conn.execute(insert(flows).values(flow("one")))
            written.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(write())
        await written.wait()
        task.cancel()
    assert task.cancelled()
    assert await names(database) == set()
    async with database.begin() as conn:
        await conn.execute(insert(flows).values(flow("two")))
    assert await names(database) == {"two"}


async def test_a_cancellation_within_a_statement_leaves_no_lock_behind(database: Database) -> None:
    await database.run(lambda conn: conn.execute(insert(flows).values(flow("one"))))
    change = update(flows).values(owner="other")
    waiting = asyncio.Event()

    async def wait_for_the_row() -> None:
        async with database.begin() as conn:
            waiting.set()
            await conn.execute(change)
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group, database.begin() as conn:
        await conn.execute(change)
        task = group.create_task(wait_for_the_row())
        if database.dialect != "sqlite":
            await waiting.wait()
            await conn.execute(select(flows))
        task.cancel()
    assert task.cancelled()
    await database.run(lambda conn: conn.execute(change))


async def test_a_second_row_of_the_same_key_is_a_duplicate(database: Database) -> None:
    await database.run(lambda conn: conn.execute(insert(flows).values(flow("one"))))
    with pytest.raises(Duplicate) as caught:
        await database.run(lambda conn: conn.execute(insert(flows).values(flow("one"))))
    assert caught.value.code == 409


async def test_a_row_without_its_parent_is_refused_as_a_mistake_of_ours(database: Database) -> None:
    orphan = insert(journal).values(flow_id="none", seq=0, step="s", mark="begun", attempt=1, created_at=NOW)
    with pytest.raises(DatabaseRefused):
        await database.run(lambda conn: conn.execute(orphan))


async def test_the_values_of_a_refused_statement_do_not_show_in_the_error(database: Database) -> None:
    bad = insert(journal).values(flow_id="none", seq=0, step="hunter2", mark="begun", attempt=1, created_at=NOW)
    with pytest.raises(Fault) as caught:
        await database.run(lambda conn: conn.execute(bad))
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.__cause__)


async def test_work_that_meets_a_busy_database_is_done_again(database: Database) -> None:
    attempts = 0

    async def work(_: object) -> int:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise DatabaseBusy(url=database.url, reason="a deadlock")
        return attempts

    assert await database.run(work) == 3


class ImpatientClock(SystemClock):
    """Remembers how long it was to sleep, and does not."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)


async def test_work_is_given_up_when_the_database_stays_busy(tmp_path: Path) -> None:
    clock = ImpatientClock()
    db = open_database(f"sqlite:///{tmp_path}/lite.sqlite", clock=clock)
    attempts = 0

    async def work(_: object) -> None:
        nonlocal attempts
        attempts += 1
        raise DatabaseBusy(url=db.url, reason="a deadlock")

    with pytest.raises(DatabaseBusy):
        await db.run(work)
    await db.close()
    assert attempts == 10
    assert len(clock.slept) == 9
    assert max(clock.slept) <= 1


async def test_two_transactions_that_wait_for_each_other_both_end_well(database: Database) -> None:
    """A deadlock on PostgreSQL and MariaDB; on SQLite the second waits for the first."""
    for name in ("one", "two"):
        async with database.begin() as conn:
            await conn.execute(insert(flows).values(flow(name)))
    both = asyncio.Barrier(2)
    first_tries = {"one", "two"}

    async def touch(mine: str, other: str) -> None:
        async def work(conn: AsyncConnection) -> None:
            await conn.execute(update(flows).where(flows.c.id == mine).values(error=mine))
            if mine in first_tries and database.dialect != "sqlite":
                first_tries.discard(mine)
                await both.wait()
            await conn.execute(update(flows).where(flows.c.id == other).values(error=mine))

        await database.run(work)

    async with asyncio.TaskGroup() as group:
        group.create_task(touch("one", "two"))
        group.create_task(touch("two", "one"))


async def test_many_increments_at_once_lose_none(database: Database) -> None:
    await database.run(lambda conn: conn.execute(insert(flows).values(flow("one", error="0"))))

    async def increment(conn: AsyncConnection) -> None:
        count = (await conn.execute(select(flows.c.error).with_for_update())).scalar_one()
        await conn.execute(update(flows).values(error=str(int(count) + 1)))

    async with asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(database.run(increment))
    async with database.begin() as conn:
        assert (await conn.execute(select(flows.c.error))).scalar_one() == "40"


async def test_a_transaction_of_sqlite_begins_as_a_writer_and_is_not_overtaken_by_another_process(tmp_path: Path) -> None:
    """Two `Database`s on one file stand for two processes: each has its own lock for writers."""
    url = f"sqlite:///{tmp_path}/lite.sqlite"
    one, two = (open_database(url, clock=SystemClock()) for _ in range(2))
    async with one.begin() as conn:
        await conn.execute(text("CREATE TABLE t (x)"))
    async with asyncio.TaskGroup() as group, one.begin() as conn:
        await conn.execute(text("SELECT x FROM t"))
        other = group.create_task(two.run(lambda conn: conn.execute(text("INSERT INTO t VALUES (2)"))))
        assert await asyncio.wait([other], timeout=0.2) == (set(), {other})
        await conn.execute(text("INSERT INTO t VALUES (1)"))
    async with two.begin(read_only=True) as conn:
        assert list((await conn.execute(text("SELECT x FROM t"))).scalars()) == [1, 2]
    await one.close()
    await two.close()


async def test_a_transaction_that_takes_too_long_is_ended_and_rolled_back(database: Database) -> None:
    async def linger() -> None:
        async with database.begin(timeout_s=0.05) as conn:
            await conn.execute(insert(flows).values(flow("one")))
            await asyncio.Event().wait()

    with pytest.raises(DatabaseUnavailable, match="no answer within"):
        await linger()
    assert await names(database) == set()


async def test_a_read_sees_only_what_was_committed(database: Database) -> None:
    async with database.begin() as conn:
        await conn.execute(insert(flows).values(flow("one")))
        assert await names(database) == set()
    assert await names(database) == {"one"}


async def test_an_upgraded_database_passes_the_check(database: Database) -> None:
    await database.check()


async def test_an_empty_database_is_told_to_be_upgraded(empty_database_url: str) -> None:
    db = open_database(empty_database_url, clock=SystemClock())
    try:
        with pytest.raises(DatabaseNotUpgraded, match=r"has no tables of ours; .*common_0004.* Run: lite db upgrade"):
            await db.check()
        with pytest.raises(DatabaseNotUpgraded, match="Run: lite db upgrade"):
            await db.run(lambda conn: conn.execute(select(flows)))
    finally:
        await db.close()


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
async def test_a_server_that_is_not_there_is_unavailable_and_the_password_stays_secret(scheme: str) -> None:
    db = open_database(f"{scheme}://u:hunter2@127.0.0.1:{free_port()}/db", clock=SystemClock())
    with pytest.raises(DatabaseUnavailable) as caught:
        await db.check()
    await db.close()
    assert "hunter2" not in str(caught.value)
    assert "***" in str(caught.value)


@pytest.mark.parametrize("server_fixture", ["postgres_server", "mariadb_server"])
async def test_a_database_name_that_the_server_does_not_know_is_unavailable(
    request: pytest.FixtureRequest, server_fixture: str
) -> None:
    server: PostgresServer | MariaDbServer = request.getfixturevalue(server_fixture)
    db = open_database(server.url("nowhere"), clock=SystemClock())
    with pytest.raises(DatabaseUnavailable, match="nowhere"):
        await db.check()
    await db.close()


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    db = open_database(f"sqlite:///{tmp_path}/file/lite.sqlite", clock=SystemClock())
    with pytest.raises(DatabaseUnavailable):
        await db.run(lambda conn: conn.execute(text("SELECT 1")))
    await db.close()


async def test_the_file_and_folder_of_sqlite_are_for_their_user_only(tmp_path: Path) -> None:
    path = Path(tmp_path) / "made" / "lite.sqlite"
    db = open_database(f"sqlite:///{path}", clock=SystemClock())
    async with db.begin() as conn:
        await conn.execute(text("CREATE TABLE t (x)"))
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    await db.close()
    assert modes == {"lite.sqlite": 0o600, "lite.sqlite-wal": 0o600, "lite.sqlite-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_the_isolation_is_read_committed_and_waits_are_bounded_by_the_server(database: Database) -> None:
    def settings(conn: Connection) -> list[str]:
        queries = {
            "postgresql": ["SHOW transaction_isolation", "SHOW statement_timeout", "SHOW lock_timeout"],
            "mysql": ["SELECT @@tx_isolation", "SELECT @@max_statement_time", "SELECT @@innodb_lock_wait_timeout"],
            "sqlite": ["PRAGMA journal_mode", "PRAGMA busy_timeout", "PRAGMA foreign_keys"],
        }
        return [str(conn.exec_driver_sql(query).scalar_one()) for query in queries[database.dialect]]

    wanted = {
        "postgresql": ["read committed", "30s", "10s"],
        "mysql": ["READ-COMMITTED", "30.0", "10"],
        "sqlite": ["wal", "10000", "1"],
    }
    async with database.begin() as conn:
        assert await conn.run_sync(settings) == wanted[database.dialect]


@pytest.mark.real("postgresql")
async def test_a_server_that_dies_and_returns_is_used_again(tmp_path: Path) -> None:
    async with PostgresServer(tmp_path) as server:
        db = open_database(server.url(), clock=SystemClock())
        await db.run(lambda conn: conn.execute(text("SELECT 1")))
        await asyncio.to_thread(server.kill)
        with pytest.raises(DatabaseUnavailable):
            await db.run(lambda conn: conn.execute(text("SELECT 1")))
        await asyncio.to_thread(server.start)
        await db.run(lambda conn: conn.execute(text("SELECT 1")))
        await db.close()


CUTS = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mysql": "SELECT concat('KILL ', id) FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
}


async def cut_connections(url: str) -> None:
    """Those of everybody else, by the server itself."""
    other = open_database(url, clock=SystemClock())
    async with other.begin() as conn:
        for found in (await conn.execute(text(CUTS[other.dialect]))).scalars().all():
            if other.dialect == "mysql":
                await conn.execute(text(found))
    await other.close()


@pytest.mark.parametrize("idle_s", [IDLE_S, IDLE_S / 2])
async def test_a_connection_that_broke_while_it_lay_idle_is_replaced_unseen_and_any_other_after_one_refusal(
    empty_database_url: str, idle_s: float
) -> None:
    clock = JumpingClock()
    db = open_database(empty_database_url, clock=clock)

    async def ask() -> None:
        async with db.begin() as conn:
            await conn.execute(text("SELECT 1"))

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(ask())
    if db.dialect != "sqlite":
        await cut_connections(empty_database_url)
    await clock.advance(idle_s)
    with nullcontext() if db.dialect == "sqlite" or idle_s == IDLE_S else pytest.raises(DatabaseUnavailable):
        await ask()
    await ask()
    await db.close()
