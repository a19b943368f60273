"""The queries that run all the time find their rows by an index, among thousands of flows that have ended, on each database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import fence
from common.db.busy import busy
from common.db.cas import began
from common.db.engine import Database
from common.db.fence import Fence
from common.db.journal import Journal
from common.db.lease import Leases
from common.db.outbox import Outbox
from common.db.owner import Owner
from common.db.tables import flows, journal as entries, outbox as letters, state_history
from common.host.clock import SystemClock

ENDED, OPEN = 3000, 5
LEASES = "held"
"""What statements call the table of leases; it has as many rows as there are processes, and may be read from end to end."""
CLOCK = SystemClock()
ME = Owner(process="api.h1", home="api", boot="me")
DEAD = "api.h0#dead"

Statement = tuple[str, Any]


async def fill(db: Database) -> None:
    now = CLOCK.utcnow()
    names = [f"f{number}" for number in range(ENDED + OPEN)]
    state = {True: "completed", False: "running"}
    rows = [
        {
            "id": name, "saga": "s", "subject": f"x:{name}", "arguments": {}, "request_id": f"req-{name}", "home": "api", "owner": DEAD,
            "fence": 1, "state": state[number < ENDED], "created_at": now, "updated_at": now,
        }
        for number, name in enumerate(names)
    ]  # fmt: skip
    steps = [{"flow_id": name, "seq": 0, "step": "a", "mark": "done", "attempt": 1, "created_at": now} for name in names]
    changes = [{"kind": "X", "subject": name, "event": "e", "state": "s", "flow_id": name, "created_at": now} for name in names]
    posted = [
        {"home": home, "owner": owner, "routing_key": "k", "body": "", "created_at": now}
        for home, owner, number in (("other", "other.h1#1", 500), ("api", str(ME), 3), ("api", DEAD, 3))
        for _ in range(number)
    ]
    async with db.begin() as conn:
        for table, values in ((flows, rows), (entries, steps), (state_history, changes), (letters, posted)):
            await conn.execute(insert(table), values)
        tables = ("flows", "journal", "state_history", "outbox", "leases")
        for name in tables:
            await conn.execute(text(f"ANALYZE {'TABLE ' if db.dialect == 'mysql' else ''}{name}"))


@pytest.fixture
async def full(database: Database) -> Database:
    await fill(database)
    await Leases(database).renew("api.h2#1")
    return database


@contextmanager
def noted(db: Database) -> Iterator[list[Statement]]:
    """Inside, each statement that goes to the database is in the list."""
    found: list[Statement] = []

    def note(conn: object, cursor: object, statement: str, parameters: Any, *_: object) -> None:
        found.append((statement, parameters))

    event.listen(db._engine.sync_engine, "before_cursor_execute", note)
    yield found
    event.remove(db._engine.sync_engine, "before_cursor_execute", note)


async def scans(conn: AsyncConnection, dialect: str, statement: Statement) -> list[str]:
    """What of its plan reads a table or an index from end to end."""
    explain = {"postgresql": "EXPLAIN (FORMAT JSON) ", "mysql": "EXPLAIN ", "sqlite": "EXPLAIN QUERY PLAN "}[dialect]
    rows = (await conn.exec_driver_sql(explain + statement[0], statement[1])).mappings().all()
    match dialect:
        case "postgresql":
            return [str(node) for node in nodes(rows[0]["QUERY PLAN"][0]["Plan"]) if is_scan(node)]
        case "mysql":
            return [str(dict(row)) for row in rows if row["type"] in {"ALL", "index"} and row["table"] != LEASES]
        case _:
            return [row["detail"] for row in rows if row["detail"].startswith("SCAN") and LEASES not in row["detail"]]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def is_scan(node: dict[str, Any]) -> bool:
    """True for one that reads all rows, be it in the order of an index."""
    return (
        "Scan" in node["Node Type"]
        and node["Node Type"] != "Bitmap Heap Scan"
        and node.get("Alias") != LEASES
        and "Index Cond" not in node
    )


async def test_no_query_that_runs_all_the_time_reads_a_table_from_end_to_end(full: Database) -> None:
    journal, outbox = Journal(full, CLOCK), Outbox(full, CLOCK, owner=ME)

    with noted(full) as said:
        left = await journal.left_behind(ME)
        assert len(left) == OPEN
        assert await journal.adopt(left[0], ME) == 2
        assert len(await journal.entries("f7")) == 1
        assert await journal.flow("f7") is not None
        assert await journal.was_done("req-f7", "s", "x:f7")
        assert len(await outbox.pending()) == 3
        assert await outbox.adopt() == 3
        async with full.begin(read_only=True) as conn:
            await fence.check(conn, Fence(left[1].id, 1))
            assert not await began(conn, "f7", "e")
    statements = [
        each for each in said if each[0].startswith(("SELECT flows", "SELECT journal", "SELECT outbox", "SELECT state", "UPDATE"))
    ]
    assert len(statements) == 9
    async with full.begin() as conn:
        found = {each[0]: await scans(conn, full.dialect, each) for each in statements}
    assert {statement: plan for statement, plan in found.items() if plan} == {}


async def test_what_is_busy_is_found_by_an_index_among_all_flows_that_ever_were(full: Database) -> None:
    with noted(full) as said:
        async with full.begin(read_only=True) as conn:
            await busy(conn)
    statements = [each for each in said if each[0].startswith("SELECT flows")]
    assert len(statements) == 3
    async with full.begin() as conn:
        found = {each[0]: await scans(conn, full.dialect, each) for each in statements}
    assert {statement: plan for statement, plan in found.items() if plan} == {}


async def rows_read(db: Database, statement: Statement) -> int:
    """Rows of flows that the database looked at for the statement."""
    async with db.begin(read_only=True) as conn:
        if db.dialect == "postgresql":
            plan = (await conn.exec_driver_sql("EXPLAIN (ANALYZE, FORMAT JSON) " + statement[0], statement[1])).scalar_one()
            return sum(looked_at(node) for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") == "flows")
        await conn.exec_driver_sql("FLUSH STATUS")
        (await conn.exec_driver_sql(*statement)).all()
        found = await conn.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'")
        return sum(
            int(row.Value)
            for row in found
            if row.Variable_name in {"Handler_read_next", "Handler_read_rnd_next", "Handler_read_prev"}
        )


def looked_at(node: dict[str, Any]) -> int:
    return int(node["Actual Rows"]) + sum(int(node.get(f"Rows Removed by {why}", 0)) for why in ("Filter", "Index Recheck"))


async def test_looking_for_what_was_left_behind_costs_by_the_open_flows_not_by_all_there_ever_were(full: Database) -> None:
    """SQLite does not count what it reads: its plan must say that both columns are looked up."""
    with noted(full) as said:
        assert len(await Journal(full, CLOCK).left_behind(ME)) == OPEN
    [statement] = [each for each in said if each[0].startswith("SELECT flows")]
    if full.dialect == "sqlite":
        async with full.begin(read_only=True) as conn:
            rows = await conn.exec_driver_sql("EXPLAIN QUERY PLAN " + statement[0], statement[1])
            assert any("INDEX ix_flows_home_state (home=? AND state=?)" in row.detail for row in rows)
        return
    assert OPEN <= await rows_read(full, statement) <= 4 * OPEN
