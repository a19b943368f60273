"""Who is at work on what: running and parked flows, messages that wait to be sent, and mendings that failed a moment ago."""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.base.context import Context
from common.base.ids import new_hex
from common.base.limits import (
    RECONCILE_FAILURES_KEPT_S,
    RECONCILE_INTERVAL_S,
    RECONCILE_LETTERS_MAX,
    RECONCILE_REST_MAX_S,
)
from common.base.retry import Retry
from common.base.settling import Busy
from common.db.journal import FlowState
from common.db.now import database_time
from common.db.tables import flows, outbox

REQUESTS = "request_"
"""How the names of those sagas begin that work for a client on what their arguments name."""
_SETTLING = "settle-"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = select(database_time())
_LETTERS = select(outbox.c.body).limit(RECONCILE_LETTERS_MAX + 1)
_IN_STATE = select(flows.c.saga, flows.c.subject, flows.c.arguments).where(flows.c.state == bindparam("in_state"))
_FAILED = (
    select(flows.c.subject, func.count().label("failures"), func.max(flows.c.updated_at).label("last"))
    .where(
        flows.c.state == FlowState.COMPENSATED,
        flows.c.id.contains(f":{_SETTLING}", autoescape=True),
        flows.c.updated_at > database_time(-RECONCILE_FAILURES_KEPT_S),
    )
    .group_by(flows.c.subject)
)
_REST = Retry(first_delay_s=RECONCILE_INTERVAL_S, factor=2.0, delay_s_max=RECONCILE_REST_MAX_S)


def settling_context() -> Context:
    """The context of a mending. Its flow's id tells that it is one."""
    return Context(is_admin=True, message_id=f"{_SETTLING}{new_hex()}")


async def time_of(conn: AsyncConnection) -> datetime:
    """Now, by the database's clock."""
    found: datetime = (await conn.execute(_TIME)).scalar_one()
    return found


async def busy(conn: AsyncConnection) -> Busy:
    """What no reconciler may touch now.

    The subject of every flow that runs or is parked; what the arguments of a client's request name, while that runs; what a letter
    of anybody's outbox names; and for a while the subject of a mending that was turned back.
    """
    letters = (await conn.execute(_LETTERS)).scalars().all()
    if len(letters) > RECONCILE_LETTERS_MAX:
        return Busy(is_everything=True)
    texts: list[str] = []
    for state in (FlowState.RUNNING, FlowState.PARKED):  # one by one: of two states at once SQLite thinks that they are half of all
        rows = await conn.execute(_IN_STATE, {"in_state": state})
        texts += [f"{row.subject} {json.dumps(row.arguments)}" if row.saga.startswith(REQUESTS) else row.subject for row in rows]
    return Busy(frozenset(_named(texts)) | frozenset(_named(letters)) | frozenset(_named(await _resting(conn))))


async def _resting(conn: AsyncConnection) -> list[str]:
    """Subjects whose mending was turned back so lately that it is not yet tried again."""
    now = await time_of(conn)
    rows = (await conn.execute(_FAILED)).all()
    return [row.subject for row in rows if (now - row.last).total_seconds() < _REST.delay_s(row.failures)]


def _named(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from _ID.findall(text)
