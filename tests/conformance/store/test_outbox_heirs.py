"""The outbox's table, on each database."""

from common.db.engine import Database
from common.db.outbox import Letter, Outbox
from common.db.owner import Owner
from common.host.clock import SystemClock


async def _put(database: Database, outbox: Outbox) -> int:
    """The id of a new letter."""
    async with database.begin() as conn:
        await outbox.put(conn, [Letter(exchange=None, routing_key="q", body="{}", headers={})])
    return (await outbox.pending())[-1].id


async def test_striking_off_a_letter_that_another_process_had_struck_off_strikes_off_no_other(database: Database) -> None:
    """As a process does that stood still between sending and striking off: its lease was over, and its letters another's."""
    slow = Outbox(database, SystemClock(), owner=Owner(process="p.1", home="p", boot="slow"))
    heir = Outbox(database, SystemClock(), owner=Owner(process="p.2", home="p", boot="heir"))
    sent = await _put(database, slow)
    assert await heir.adopt() == 1
    await heir.sent([sent])
    new = await _put(database, slow)
    await slow.sent([sent])
    assert [letter.id for letter in await slow.pending()] == [new]
