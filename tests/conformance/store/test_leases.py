"""Leases and the clock that they go by, on each database."""

import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, text, update

from common.base.limits import LEASES_KEPT_S
from common.db.engine import Database, open_database
from common.db.lease import Leases
from common.db.now import database_time
from common.db.tables import leases
from common.host.clock import SystemClock
from common.testing.clock import JumpingClock

ME = "nova-api.h1#1"


async def now(db: Database, plus_s: float = 0.0, *, zone: str | None = None) -> datetime:
    async with db.begin(read_only=True) as conn:
        if zone is not None:
            await conn.execute(text(zone))
        found = (await conn.execute(select(database_time(plus_s)))).scalar_one()
        assert isinstance(found, datetime)
        return found


async def lease_until(db: Database) -> dict[str, datetime]:
    async with db.begin(read_only=True) as conn:
        return {row.owner: row.lease_until for row in await conn.execute(select(leases))}


async def test_the_database_s_time_is_utc_with_fractions_and_as_many_seconds_away_as_asked(database: Database) -> None:
    for plus_s in (0.0, 15.0, -86400.0, 0.25):
        earliest = SystemClock().utcnow()
        found = await now(database, plus_s) - timedelta(seconds=plus_s)
        assert earliest - timedelta(milliseconds=5) <= found <= SystemClock().utcnow() + timedelta(milliseconds=5)


async def test_the_database_s_time_is_utc_whatever_zone_its_session_has(database: Database) -> None:
    zones = {"postgresql": "SET TIME ZONE 'Asia/Tokyo'", "mysql": "SET time_zone = '+09:00'", "sqlite": "SELECT 1"}
    found = await now(database, zone=zones[database.dialect])
    assert abs(found - SystemClock().utcnow()) < timedelta(minutes=1)


async def test_a_statement_compares_rows_with_the_time_at_which_it_runs(database: Database) -> None:
    await Leases(database, lease_s=3600).renew(ME)
    async with database.begin(read_only=True) as conn:
        for plus_s, is_over in ((3500, False), (3700, True)):
            found = (await conn.execute(select(leases.c.lease_until < database_time(plus_s)))).scalar_one()
            assert bool(found) is is_over


async def test_a_process_lives_while_its_lease_does_and_no_other_process_by_it(database: Database) -> None:
    held = Leases(database)
    assert not await held.is_alive(ME)
    await held.renew(ME)
    assert await held.is_alive(ME)
    assert not await held.is_alive("nova-api.h1#2")


async def test_renewing_moves_the_end_and_keeps_one_row(database: Database) -> None:
    await Leases(database, lease_s=10).renew(ME)
    first = await lease_until(database)
    await Leases(database, lease_s=1000).renew(ME)
    second = await lease_until(database)
    assert list(first) == list(second) == [ME]
    assert second[ME] - first[ME] > timedelta(seconds=900)


async def test_a_process_that_renews_many_times_at_once_has_one_lease(database: Database) -> None:
    held = Leases(database)
    await asyncio.gather(*(held.renew(ME) for _ in range(10)))
    assert list(await lease_until(database)) == [ME]


async def test_a_lease_that_ran_out_is_had_again_by_renewing_it(database: Database) -> None:
    await Leases(database, lease_s=-1).renew(ME)
    assert not await Leases(database).is_alive(ME)
    await Leases(database).renew(ME)
    assert await Leases(database).is_alive(ME)


async def test_a_released_lease_is_gone_and_releasing_it_twice_is_once(database: Database) -> None:
    held = Leases(database)
    await held.renew(ME)
    await held.renew("other")
    await held.release(ME)
    await held.release(ME)
    assert not await held.is_alive(ME)
    assert await held.is_alive("other")


async def test_a_sweep_forgets_the_long_dead_alone(database: Database) -> None:
    for owner, ended_s in (("alive", -10.0), ("dead", 60.0), ("long dead", LEASES_KEPT_S + 60)):
        await Leases(database, lease_s=-ended_s).renew(owner)
    await Leases(database).sweep()
    assert set(await lease_until(database)) == {"alive", "dead"}


async def test_a_process_whose_own_clock_is_wrong_is_judged_by_the_database_s(database: Database, database_url: str) -> None:
    """On SQLite the two are the same clock, that of the one machine."""
    if database.dialect == "sqlite":
        pytest.skip("SQLite's clock is the program's")
    wrong = open_database(database_url, clock=JumpingClock())
    assert abs(JumpingClock().utcnow() - SystemClock().utcnow()) > timedelta(hours=1)
    await Leases(wrong).renew(ME)
    assert await Leases(database).is_alive(ME)
    assert await Leases(wrong).is_alive(ME)
    await database.run(lambda conn: conn.execute(update(leases).values(lease_until=database_time(-1))))
    assert not await Leases(wrong).is_alive(ME)
    await wrong.close()


async def test_a_lease_runs_out_when_its_time_has_passed(sqlite_database: Database) -> None:
    clock = JumpingClock()
    db = open_database(f"sqlite:///{sqlite_database._address.path}", clock=clock)
    held = Leases(db, lease_s=15)
    await held.renew(ME)
    await clock.advance(14.9)
    assert await held.is_alive(ME)
    await clock.advance(0.2)
    assert not await held.is_alive(ME)
    await db.close()
