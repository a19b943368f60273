"""The migrations make exactly the tables that the code uses, forth and back, on each database."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, inspect

from cinder_lite.store import tables as cinder_tables
from common.db import migrate, tables as common_tables
from common.db.engine import Database, open_database
from common.db.errors import DatabaseNotUpgraded
from common.host.clock import SystemClock
from nova_lite.store import tables as nova_tables

CLOCK = SystemClock()
BRANCHES = (nova_tables.BRANCH, cinder_tables.BRANCH)
OURS = {"services", "flows", "journal", "leases", "outbox", "inbox", "state_history"} | {
    "instances",
    "instance_faults",
    "block_device_mapping",
    "volumes",
    "volume_attachment",
    "messages",
    "snapshots",
}


def differences(conn: Connection) -> Any:
    """What alembic would change to bring the database to the code's tables."""
    context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
    code = MetaData(naming_convention=common_tables.METADATA.naming_convention)
    for tables in (common_tables, nova_tables, cinder_tables):
        for table in tables.METADATA.sorted_tables:
            table.to_metadata(code)
    return compare_metadata(context, code)


def table_names(conn: Connection) -> set[str]:
    return set(inspect(conn).get_table_names())


async def look(url: str, at: Callable[[Connection], Any]) -> Any:
    db = open_database(url, clock=CLOCK, pooled=False)
    async with db.begin(read_only=True) as conn:
        found = await conn.run_sync(at)
    await db.close()
    return found


async def test_the_migrated_tables_are_those_of_the_code(database: Database) -> None:
    async with database.begin(read_only=True) as conn:
        assert await conn.run_sync(differences) == []


async def test_up_down_and_up_again(empty_database_url: str) -> None:
    heads = migrate.heads(BRANCHES)
    assert heads == set(ScriptDirectory.from_config(migrate.alembic_config(BRANCHES)).get_heads())
    assert await migrate.current(empty_database_url, clock=CLOCK) == set()
    assert await migrate.upgrade(empty_database_url, BRANCHES, clock=CLOCK) == heads
    assert await look(empty_database_url, table_names) == OURS | {"alembic_version"}
    assert await migrate.upgrade(empty_database_url, BRANCHES, clock=CLOCK) == heads
    assert await migrate.downgrade(empty_database_url, BRANCHES, clock=CLOCK) == set()
    assert await look(empty_database_url, table_names) == {"alembic_version"}
    assert await migrate.upgrade(empty_database_url, BRANCHES, clock=CLOCK) == heads
    assert await look(empty_database_url, differences) == []


async def test_the_services_may_be_upgraded_one_after_the_other(empty_database_url: str) -> None:
    assert await migrate.upgrade(empty_database_url, (), clock=CLOCK) == {"common_0004"}
    db = open_database(empty_database_url, clock=CLOCK, branches=BRANCHES, pooled=False)
    with pytest.raises(DatabaseNotUpgraded, match=r"revision common_0004; .*nova_0001"):
        await db.check()
    await migrate.upgrade(empty_database_url, BRANCHES, clock=CLOCK)
    await db.check()
    await db.close()


async def test_a_service_is_content_with_its_own_tables_beside_those_of_others(database_url: str) -> None:
    db = open_database(database_url, clock=CLOCK, branches=(nova_tables.BRANCH,))
    await db.check()
    await db.close()


async def test_an_upgrade_that_does_not_know_all_branches_of_the_database_says_so(database_url: str) -> None:
    with pytest.raises(migrate.MigrationFailed, match="cinder_0002"):
        await migrate.upgrade(database_url, (nova_tables.BRANCH,), clock=CLOCK)


_PROGRAM = """
import asyncio, sys
from cinder_lite.store.tables import BRANCH as cinder
from common.db.migrate import upgrade
from common.host.clock import SystemClock
from nova_lite.store.tables import BRANCH as nova
print(sorted(asyncio.run(upgrade(sys.argv[1], (nova, cinder), clock=SystemClock()))))
"""


async def test_processes_that_upgrade_at_once_take_turns(empty_database_url: str) -> None:
    argv = [sys.executable, "-c", _PROGRAM, empty_database_url]
    pipe = asyncio.subprocess.PIPE
    processes = [await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe) for _ in range(3)]
    try:
        said = await asyncio.gather(*(process.communicate() for process in processes))
    finally:
        for process in processes:
            if process.returncode is None:
                os.kill(process.pid, signal.SIGKILL)
    assert [(process.returncode, err.decode()[-2000:]) for process, (_, err) in zip(processes, said, strict=True)] == [(0, "")] * 3
    assert {out.decode().strip() for out, _ in said} == {"['cinder_0002', 'common_0004', 'nova_0001']"}
    assert await look(empty_database_url, differences) == []
