"""The suite of `common.rpc.inbox.Inbox`: the numbers are those of its promises."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from common.base.clock import Clock
from common.db.engine import Database, open_database
from common.db.inbox import SqlInbox
from common.host.clock import SystemClock
from common.rpc.inbox import Inbox
from common.testing.inbox import MemoryInbox
from common.wire.callee import Answer, Entry, Standing

LEASE_S = 15.0
ANSWER = '{"result": "é"}'.encode()


class HandClock(SystemClock):
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def monotonic(self) -> float:
        return self.passed_s

    def utcnow(self) -> datetime:
        return datetime(2026, 11, 24) + timedelta(seconds=self.passed_s)  # noqa: DTZ001 - rows hold naive UTC


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """One more kind than there are databases."""
    return str(request.param)


@pytest.fixture
async def inbox(database_kind: str, request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Inbox]:
    if database_kind == "memory":
        yield MemoryInbox(clock, lease_s=LEASE_S)
        return
    database = open_database(request.getfixturevalue("database_url"), clock=clock)
    yield SqlInbox(database, clock, lease_s=LEASE_S)
    await database.close()


async def test_1_of_many_who_begin_one_request_at_once_one_is_told_that_it_is_new(inbox: Inbox) -> None:
    entries = await asyncio.gather(*(inbox.begin("m", owner=f"server{number}") for number in range(10)))
    new = [entry for entry in entries if entry.standing is Standing.NEW]
    assert len(new) == 1
    assert {entry.owner for entry in entries} == {new[0].owner}
    assert sum(entry.standing is Standing.HELD for entry in entries) == 9


async def test_2_the_others_wait_for_the_first_and_get_its_answer(inbox: Inbox, clock: HandClock) -> None:
    await inbox.begin("m", owner="a")
    for _ in range(3):
        clock.passed_s += LEASE_S - 1
        assert await inbox.renew("m", owner="a")
        assert (await inbox.begin("m", owner="b")).standing is Standing.HELD
    await inbox.finish("m", owner="a", body=ANSWER)
    assert await inbox.begin("m", owner="b") == Entry(Standing.DONE, "a", Answer(ANSWER))
    clock.passed_s += 1000
    assert (await inbox.begin("m", owner="c")).standing is Standing.DONE


async def test_2_a_cast_s_answer_is_empty(inbox: Inbox) -> None:
    await inbox.begin("m", owner="a")
    await inbox.finish("m", owner="a", body=None)
    assert await inbox.begin("m", owner="b") == Entry(Standing.DONE, "a", Answer(None))


async def test_3_after_the_lease_it_is_lost_and_never_new_again(inbox: Inbox, clock: HandClock) -> None:
    await inbox.begin("m", owner="a")
    clock.passed_s += LEASE_S
    for owner in ("b", "a", "c"):
        assert await inbox.begin("m", owner=owner) == Entry(Standing.LOST, "a")


async def test_4_who_lost_the_lease_cannot_renew_it_but_may_still_say_what_it_came_to(inbox: Inbox, clock: HandClock) -> None:
    await inbox.begin("m", owner="a")
    clock.passed_s += LEASE_S + 1
    assert not await inbox.renew("m", owner="a")
    await inbox.finish("m", owner="b", body=b"not mine")
    assert (await inbox.begin("m", owner="b")).standing is Standing.LOST
    await inbox.finish("m", owner="a", body=b"late")
    assert await inbox.begin("m", owner="b") == Entry(Standing.DONE, "a", Answer(b"late"))


async def test_nobody_renews_what_another_began_or_what_is_done(inbox: Inbox) -> None:
    await inbox.begin("m", owner="a")
    assert not await inbox.renew("m", owner="b")
    assert not await inbox.renew("other", owner="a")
    await inbox.finish("m", owner="a", body=None)
    assert not await inbox.renew("m", owner="a")


async def test_ids_of_any_length_are_told_apart(inbox: Inbox) -> None:
    one, two = "x" * 300 + "1", "x" * 300 + "2"
    assert (await inbox.begin(one, owner="a")).standing is Standing.NEW
    assert (await inbox.begin(two, owner="a")).standing is Standing.NEW
    assert (await inbox.begin(one, owner="b")).standing is Standing.HELD


async def test_a_sweep_drops_what_is_older_than_any_caller_s_patience(sqlite_database: Database, clock: HandClock) -> None:
    inbox = SqlInbox(sqlite_database, clock, lease_s=LEASE_S)
    await inbox.begin("old", owner="a")
    clock.passed_s += 100
    await inbox.begin("young", owner="a")
    assert await inbox.sweep(kept_s=50) == 1
    assert (await inbox.begin("young", owner="b")).standing is Standing.HELD
    assert (await inbox.begin("old", owner="b")).standing is Standing.NEW
