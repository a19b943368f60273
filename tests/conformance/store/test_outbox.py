"""The outbox and the history of states on each database: with the change that they belong to, or not at all."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import delete, insert, select

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.domain.volume import Event
from cinder_lite.store.volumes import Volumes
from common.base.errors import Conflict
from common.base.limits import FAULT_TEXT_MAX, OUTBOX_BATCH
from common.db.cas import began
from common.db.engine import Database
from common.db.fence import Fence, Superseded, fenced
from common.db.journal import FlowRow, Journal, NewRow
from common.db.lease import Leases
from common.db.outbox import Letter, Outbox, waiting
from common.db.owner import Owner
from common.db.tables import leases, outbox as rows, state_history
from common.host.clock import SystemClock
from common.machine.decide import Mark

CLOCK = SystemClock()
ME = Owner(process="api.h1", home="api", boot="me")


def letter(body: str, key: str = "compute.cmp1") -> Letter:
    exchange = {"name": "nova", "kind": "topic", "durable": False, "auto_delete": False}
    return Letter(exchange=exchange, routing_key=key, body=body, headers={"x": 1}, request_id="req-1")


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database, CLOCK, owner=ME)


async def put(db: Database, box: Outbox, *letters: Letter, fault: Exception | None = None) -> None:
    """With another row, in one transaction."""
    async with db.begin() as conn:
        await conn.execute(insert(leases).values(owner="state", lease_until=CLOCK.utcnow()))
        await box.put(conn, letters)
        if fault is not None:
            raise fault


def bodies(letters: Sequence[Letter]) -> list[str]:
    return [each.body for each in letters]


# -- with the state, or not at all ------------------------------------------------------------------------------------


async def test_a_letter_is_kept_as_it_was_put(database: Database, outbox: Outbox) -> None:
    await put(database, outbox, letter("ü 1"))
    [found] = await outbox.pending()
    assert found.created_at is not None
    assert replace(found, id=0, created_at=None) == replace(letter("ü 1"), owner=str(ME))


async def test_letters_are_there_with_the_state_and_their_relay_is_told_once_they_are(database: Database, outbox: Outbox) -> None:
    told: list[int] = []
    outbox.on_put = lambda: told.append(len(told))
    async with database.begin() as conn:
        await outbox.put(conn, [letter("1")])
        assert told == []
        assert database.dialect == "sqlite" or await outbox.pending() == []
    assert told == [0]
    assert bodies(await outbox.pending()) == ["1"]


async def test_no_letter_is_there_without_the_state_and_nobody_is_told(database: Database, outbox: Outbox) -> None:
    told: list[str] = []
    outbox.on_put = lambda: told.append("put")
    with pytest.raises(ZeroDivisionError):
        await put(database, outbox, letter("1"), fault=ZeroDivisionError())
    assert await outbox.pending() == []
    assert told == []
    async with database.begin(read_only=True) as conn:
        assert (await conn.execute(select(leases))).first() is None
    await database.run(lambda conn: conn.execute(delete(leases)))
    assert told == []


async def test_no_letters_are_no_row_and_nobody_is_told(database: Database, outbox: Outbox) -> None:
    told: list[str] = []
    outbox.on_put = lambda: told.append("put")
    await put(database, outbox)
    assert told == []


async def test_a_step_s_letters_are_put_with_its_row_and_once(database: Database, outbox: Outbox) -> None:
    journal = Journal(database, CLOCK)
    await journal.open(FlowRow(id="f", saga="s", subject="x", owner=str(ME), home="api"))
    with fenced(Fence("f", 1)):
        for _ in range(2):
            await journal.append("f", [NewRow(step="a", mark=Mark.DONE, attempt=1)], seq=0, letters=[letter("1")], outbox=outbox)
    assert bodies(await outbox.pending()) == ["1"]
    with fenced(Fence("f", 0)), pytest.raises(Superseded):
        await journal.append("f", [NewRow(step="b", mark=Mark.DONE, attempt=1)], seq=1, letters=[letter("2")], outbox=outbox)
    assert bodies(await outbox.pending()) == ["1"]


# -- order, ends, owners ----------------------------------------------------------------------------------------------


async def test_letters_come_in_the_order_in_which_they_were_put_a_batch_at_a_time(database: Database, outbox: Outbox) -> None:
    number = OUTBOX_BATCH + 3
    await put(database, outbox, *(letter(str(each)) for each in range(number - 1)))
    async with database.begin() as conn:
        await outbox.put(conn, [letter(str(number - 1))])
    first = await outbox.pending()
    second = await outbox.pending(first[-1].id)
    assert len(first) == OUTBOX_BATCH
    assert bodies(first) + bodies(second) == [str(each) for each in range(number)]


async def test_sent_letters_are_gone_and_the_others_stay(database: Database, outbox: Outbox) -> None:
    await put(database, outbox, letter("1"), letter("2"), letter("3"))
    one, _, three = await outbox.pending()
    await outbox.sent([one.id, three.id])
    await outbox.sent([one.id])
    assert bodies(await outbox.pending()) == ["2"]


async def test_a_failure_is_counted_and_its_reason_kept_as_far_as_a_row_takes_it(database: Database, outbox: Outbox) -> None:
    await put(database, outbox, letter("1"))
    [found] = await outbox.pending()
    await outbox.failed(found.id, "x" * (FAULT_TEXT_MAX + 1))
    await outbox.failed(found.id, "nobody listens")
    [found] = await outbox.pending()
    assert (found.attempts, found.error) == (2, "nobody listens")
    await outbox.failed(0, "no such letter")


async def test_a_process_reads_its_own_letters_and_people_read_all(database: Database, outbox: Outbox) -> None:
    other = Outbox(database, CLOCK, owner=replace(ME, process="api.h2"))
    await put(database, outbox, letter("mine"))
    async with database.begin() as conn:
        await other.put(conn, [replace(letter("other"), request_id="req-2")])
    assert bodies(await outbox.pending()) == ["mine"]
    assert bodies(await waiting(database)) == ["mine", "other"]
    assert bodies(await waiting(database, rows.c.request_id == "req-2")) == ["other"]


async def test_the_letters_of_the_dead_of_a_home_are_taken_over_in_order_and_no_others(database: Database, outbox: Outbox) -> None:
    alive, dead, foreign = (
        Owner(process="api.h2", home="api"),
        Owner(process="api.h3", home="api"),
        Owner(process="compute.h3", home="compute.h3"),
    )
    await Leases(database).renew(str(alive))
    for owner in (dead, alive, foreign, ME, dead):
        async with database.begin() as conn:
            await Outbox(database, CLOCK, owner=owner).put(conn, [letter(owner.process)])
    assert await outbox.adopt() == 2
    assert await outbox.adopt() == 0
    assert bodies(await outbox.pending()) == ["api.h3", "api.h1", "api.h3"]
    assert bodies(await Outbox(database, CLOCK, owner=alive).pending()) == ["api.h2"]


async def test_a_process_alone_by_its_name_takes_over_its_predecessor_s_letters_at_once(database: Database) -> None:
    before, now = (Owner(process="compute.h1", home="compute.h1", is_alone=True) for _ in range(2))
    await Leases(database).renew(str(before))
    await put(database, Outbox(database, CLOCK, owner=before), letter("1"))
    assert await Outbox(database, CLOCK, owner=now).adopt() == 1


# -- what changed when ------------------------------------------------------------------------------------------------


async def history(db: Database) -> list[tuple[str, ...]]:
    query = select(state_history).order_by(state_history.c.id)
    async with db.begin(read_only=True) as conn:
        return [(row.kind, row.subject, row.event, row.state, row.flow_id) for row in await conn.execute(query)]


async def own(db: Database, event: object) -> bool:
    async with db.begin(read_only=True) as conn:
        return await began(conn, "v", event)


@pytest.fixture
async def volumes(database: Database) -> Volumes:
    made = Volumes(database, CLOCK)
    await made.create(Volume(id="v", size=1, status=VolumeStatus.CREATING))
    for flow_id in ("f1", "f2"):
        await Journal(database, CLOCK).open(FlowRow(id=flow_id, saga="s", subject="volume:v", owner=str(ME)))
    return made


async def test_each_change_of_a_state_is_in_the_history_with_the_flow_that_made_it(database: Database, volumes: Volumes) -> None:
    before = await history(database)
    await volumes.advance("v", Event.CREATED)
    with fenced(Fence("f1", 1)):
        await volumes.advance("v", Event.DELETE)
    assert (await history(database))[len(before) :] == [
        ("Volume", "v", "created", "available", None),
        ("Volume", "v", "delete", "deleting", "f1"),
    ]


async def test_a_change_that_is_refused_is_not_in_the_history(database: Database, volumes: Volumes) -> None:
    before = await history(database)
    with pytest.raises(Conflict):
        await volumes.advance("v", Event.DESTROYED)
    with fenced(Fence("f1", 0)), pytest.raises(Superseded):
        await volumes.advance("v", Event.CREATED)
    assert await history(database) == before


async def test_a_change_that_is_rolled_back_is_not_in_the_history(database: Database, volumes: Volumes) -> None:
    before = await history(database)

    async def fail(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await volumes.advance("v", Event.CREATED, also=fail)
    assert await history(database) == before
    assert (await volumes.get("v")).status is VolumeStatus.CREATING


async def test_a_flow_tells_its_own_last_change_from_anybody_else_s(database: Database, volumes: Volumes) -> None:
    with fenced(Fence("f1", 1)):
        assert not await own(database, Event.CREATED)
        await volumes.advance("v", Event.CREATED)
        assert await own(database, Event.CREATED)
        assert not await own(database, Event.DELETE)
    with fenced(Fence("f2", 1)):
        assert not await own(database, Event.CREATED)
    assert not await own(database, Event.CREATED)
    with fenced(Fence("f2", 1)):
        await volumes.advance("v", Event.DELETE)
    with fenced(Fence("f1", 1)):
        assert not await own(database, Event.CREATED)
