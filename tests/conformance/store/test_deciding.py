"""What one process has said of a request, no other can take back: on each database."""

import asyncio
from collections.abc import Awaitable
from datetime import datetime

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.app.deciding import Decisions, request_id_of
from common.app.post import together
from common.base.context import Context
from common.base.errors import Conflict, Invalid, Unavailable
from common.base.ids import RequestId
from common.db.engine import Database
from common.db.journal import FlowState, Journal
from common.db.outbox import Outbox
from common.db.owner import Owner
from common.db.tables import state_history
from common.flow.runner import RefusedBefore
from common.host.clock import SystemClock
from common.transport.port import Unroutable

NAME = "request_delete"
REQUEST_ID = RequestId("req-1")
CTX = Context(message_id="m1", request_id=REQUEST_ID)
NO = Conflict(kind="Volume", name="v1", found="attaching", expected="available")


class Process:
    """One that was given the request. `accept` and `refuse` are what its handler comes to."""

    def __init__(self, database: Database, number: int = 0) -> None:
        self.database = database
        self.journal = Journal(database, SystemClock())
        owner = Owner(process=f"api.h{number}", home="api")
        self.decisions = Decisions(self.journal, owner)
        self.outbox = Outbox(database, SystemClock(), owner=owner)

    async def accept(self, ctx: Context = CTX) -> str | None:
        return await self.decisions.decided(ctx, NAME, self._change(ctx))

    async def refuse(self, error: Invalid = NO, ctx: Context = CTX) -> str | None:
        return await self.decisions.decided(ctx, NAME, _fail(error))

    async def _change(self, ctx: Context) -> str:
        row = {"kind": "volume", "subject": "v1", "event": "delete", "state": "deleting", "created_at": datetime(2026, 1, 1)}  # noqa: DTZ001

        async def change(conn: AsyncConnection) -> None:
            await conn.execute(insert(state_history).values(row))

        await self.database.run(together(change, self.decisions.accepting(ctx, NAME, "volume:v1")))
        return "changed"


async def _fail(error: Invalid) -> str:
    raise error


async def changes(database: Database) -> int:
    async with database.begin(read_only=True) as conn:
        found: int = (await conn.execute(select(func.count()).select_from(state_history))).scalar_one()
    return found


async def test_an_accepted_request_is_a_flow_that_has_ended(database: Database) -> None:
    here = Process(database)
    assert await here.accept() == "changed"
    row = await here.journal.flow(request_id_of(NAME, CTX))
    assert row is not None
    assert (row.saga, row.subject, row.state, row.request_id) == (NAME, "volume:v1", FlowState.COMPLETED, "req-1")
    assert not row.is_refusal
    assert await here.journal.left_behind(Owner(process="api.h0", home="api")) == []


async def test_what_was_accepted_is_not_done_again_and_not_refused(database: Database) -> None:
    one, other = Process(database), Process(database, 1)
    await one.accept()
    for again in (one.accept(), other.accept(), one.refuse(), other.refuse()):
        assert await again is None
    assert await changes(database) == 1


async def test_what_was_refused_is_not_done(database: Database) -> None:
    one, other = Process(database), Process(database, 1)
    for process in (one, other, one):
        with pytest.raises(Conflict, match="wanted: available"):
            await process.refuse()
    for process in (one, other):
        with pytest.raises(RefusedBefore, match="Volume v1 is in state attaching; wanted: available"):
            await process.accept()
    assert await changes(database) == 0
    row = await one.journal.flow(request_id_of(NAME, CTX))
    assert row is not None
    assert row.is_refusal


@pytest.mark.parametrize("round_", range(5))
async def test_of_two_that_decide_at_once_the_first_one_s_word_is_everybody_s(database: Database, round_: int) -> None:
    processes = [Process(database, number) for number in range(6)]
    words: list[Awaitable[str | None]] = []
    for number, process in enumerate(processes):
        words.append(process.accept() if (number + round_) % 2 else process.refuse())
    came = await asyncio.gather(*words, return_exceptions=True)
    done = await changes(database)
    assert done == came.count("changed")
    refused = [word for word in came if isinstance(word, Conflict | RefusedBefore)]
    assert (done, len(refused)) in {(1, 0), (0, len(processes))}, came


async def test_another_message_is_another_request(database: Database) -> None:
    here = Process(database)
    with pytest.raises(Conflict):
        await here.refuse()
    assert await here.accept(Context(message_id="m2", request_id=REQUEST_ID)) == "changed"


async def test_a_reason_that_may_pass_forbids_nothing(database: Database) -> None:
    here = Process(database)
    with pytest.raises(Unroutable):
        await here.refuse(Unroutable(address="cinder-volume"))
    with pytest.raises(Unavailable):
        await here.decisions.decided(CTX, NAME, _fail(Unavailable(what="the bus", reason="rain")))  # type: ignore[arg-type]  # any fault
    assert await here.accept() == "changed"


async def test_a_request_without_an_id_is_decided_each_time_it_comes(database: Database) -> None:
    here, ctx = Process(database), Context(request_id=REQUEST_ID)
    with pytest.raises(Conflict):
        await here.refuse(ctx=ctx)
    assert [await here.accept(ctx), await here.accept(ctx)] == ["changed", "changed"]
