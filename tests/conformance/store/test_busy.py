"""What reconcilers leave alone, as it stands in the tables that everybody writes."""

from datetime import timedelta

from sqlalchemy import update

from common.base.ids import new_uuid
from common.db.busy import busy, settling_context, time_of
from common.db.engine import Database
from common.db.journal import FlowRow, Journal
from common.db.outbox import Letter, Outbox
from common.db.owner import Owner
from common.db.tables import flows
from common.host.clock import SystemClock

CLOCK = SystemClock()
ME = Owner(process="api.h1", home="api")


async def begin(
    db: Database, flow_id: str, subject: str, *, saga: str = "boot", state: str = "running", ago_s: float = 0, **fields
) -> None:
    await Journal(db, CLOCK).open(FlowRow(id=flow_id, saga=saga, subject=subject, owner="o", **fields))
    at = CLOCK.utcnow() - timedelta(seconds=ago_s)
    change = update(flows).where(flows.c.id == flow_id).values(state=state, updated_at=at)
    await db.run(lambda conn: conn.execute(change))


async def found(db: Database, *names: str) -> list[bool]:
    async with db.begin(read_only=True) as conn:
        at_work = await busy(conn)
    return [name in at_work for name in names]


async def test_the_subject_of_a_flow_that_runs_or_is_parked_is_busy(database: Database) -> None:
    names = [new_uuid() for _ in range(5)]
    for name, state in zip(names, ["running", "parked", "completed", "compensated", "abandoned"], strict=True):
        await begin(database, name, f"volume:{name}", state=state)
    assert await found(database, *names) == [True, True, False, False, False]


async def test_what_the_arguments_of_a_client_s_request_name_is_busy_and_of_no_other_flow(database: Database) -> None:
    server, volume, other = new_uuid(), new_uuid(), new_uuid()
    await begin(
        database, "r", f"server:{server}", saga="request_attach", arguments={"volume_id": volume, "instance": {"uuid": server}}
    )
    await begin(database, "d", f"volume:{new_uuid()}", saga="detach_volume", arguments={"instance_uuid": other})
    assert await found(database, server, volume, other) == [True, True, False]


async def test_what_a_letter_names_that_waits_is_busy_whoever_sends_it(database: Database) -> None:
    volume = new_uuid()
    letter = Letter(exchange=None, routing_key="k", body=f'{{"args": {{"volume": {{"id": "{volume}"}}}}}}', headers={})
    outbox = Outbox(database, CLOCK, owner=ME)
    await database.run(lambda conn: outbox.put(conn, [letter]))
    assert await found(database, volume, new_uuid()) == [True, False]
    await outbox.sent([each.id for each in await outbox.pending()])
    assert await found(database, volume) == [False]


async def test_more_letters_than_can_be_looked_at_make_everything_busy(database: Database, monkeypatch) -> None:
    monkeypatch.setattr("common.db.busy.RECONCILE_LETTERS_MAX", 1)
    letters = [Letter(exchange=None, routing_key="k", body="{}", headers={}) for _ in range(2)]
    await database.run(lambda conn: Outbox(database, CLOCK, owner=ME).put(conn, letters))
    assert await found(database, new_uuid()) == [True]


async def test_a_mending_that_was_turned_back_rests_longer_each_time(database: Database) -> None:
    name, other = new_uuid(), new_uuid()
    for number, ago_s in enumerate((60, 30, 15)):
        ctx = settling_context()
        await begin(database, f"remove_disk:{number}:{ctx.message_id}", f"volume:{name}", state="compensated", ago_s=ago_s)
    await begin(database, f"remove_disk:x:{settling_context().message_id}", f"volume:{other}", state="compensated", ago_s=15)
    assert await found(database, name, other) == [True, False]


async def test_the_database_s_time_is_near(database: Database) -> None:
    async with database.begin(read_only=True) as conn:
        there = await time_of(conn)
    assert there.tzinfo is None
    assert abs((there - CLOCK.utcnow()).total_seconds()) < 60
