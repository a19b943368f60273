"""What is not done yet, as `lite doctor` reads it from the tables that everybody writes."""

from datetime import timedelta

from sqlalchemy import update

from common.db.engine import Database
from common.db.inbox import SqlInbox
from common.db.journal import FlowRow, Journal
from common.db.open_work import OpenWork
from common.db.tables import flows, inbox
from common.host.clock import SystemClock

CLOCK = SystemClock()


async def begin(db: Database, name: str, *, state: str = "running", age_s: float = 0, **fields) -> None:
    """A flow that last changed when it was begun, `age_s` ago."""
    await Journal(db, CLOCK).open(FlowRow(id=name, saga="boot", subject=f"server:{name}", owner="o", **fields))
    at = CLOCK.utcnow() - timedelta(seconds=age_s)
    change = update(flows).where(flows.c.id == name).values(state=state, created_at=at, updated_at=at)
    await db.run(lambda conn: conn.execute(change))


async def test_flows_that_run_or_wait_for_a_person_are_open_the_oldest_first(database: Database) -> None:
    for age_s, (name, state) in enumerate(
        {"new": "running", "done": "completed", "undone": "compensated", "old": "parked"}.items()
    ):
        await begin(database, name, state=state, age_s=age_s)
    found = await OpenWork(database, CLOCK).flows()
    assert [(flow.id, flow.state, flow.subject) for flow in found] == [
        ("old", "parked", "server:old"),
        ("new", "running", "server:new"),
    ]


async def test_what_changed_since_then_or_runs_and_is_young_is_moving(database: Database) -> None:
    work, now = OpenWork(database, CLOCK), CLOCK.utcnow()
    await begin(database, "young", age_s=10, arguments={"volume_id": "v-1"})
    await begin(database, "old", age_s=100)
    await begin(database, "ended-before", state="completed", age_s=10)
    await begin(database, "ended-now", state="completed", age_s=1)
    found = await work.moving(since=now - timedelta(seconds=5), younger_than_s=60)
    assert {text.split()[0] for text in found} == {"server:young", "server:ended-now"}
    assert any("v-1" in text for text in found)


async def set_row(db: Database, name: str, **values) -> None:
    await db.run(lambda conn: conn.execute(update(inbox).where(inbox.c.id == name).values(**values)))


async def test_requests_that_are_held_for_long_are_told_by_their_owner(database: Database) -> None:
    box, now = SqlInbox(database, CLOCK), CLOCK.utcnow()
    for name, owner in (("held", "a"), ("done", "b"), ("new", "c"), ("lost", "d")):
        await box.begin(name, owner=owner)
    await box.finish("done", owner="b", body=None)
    long_ago = now - timedelta(seconds=100)
    await set_row(database, "held", created_at=long_ago)
    await set_row(database, "done", created_at=long_ago)
    await set_row(database, "lost", created_at=long_ago, lease_until=long_ago)
    assert await OpenWork(database, CLOCK).held(before=now - timedelta(seconds=60)) == ["a"]


async def test_nothing_is_open_in_a_new_database(database: Database) -> None:
    work, now = OpenWork(database, CLOCK), CLOCK.utcnow()
    assert await work.flows() == []
    assert await work.outbox(before=now) == []
    assert await work.held(before=now) == []
    assert await work.moving(since=now, younger_than_s=60) == []
