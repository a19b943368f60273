"""Connections of a pool that lay idle are asked whether they still reach the server before they are used.

SQLAlchemy's `pool_pre_ping` asks at every transaction, which over asyncpg costs three round trips, as much as the transaction itself. One
that was used a moment ago is taken at its word: when it is broken all the same, its first statement is a DatabaseUnavailable like that
of a server that went away a moment later, and SQLAlchemy then drops every connection of the pool that is older than that.
"""

from typing import Any

import asyncpg
from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError

from common.base.clock import Clock

IDLE_S = 1.0
_USED_AT = "lite_used_at"


def ask_the_idle(engine: Engine, clock: Clock) -> None:
    """From now on a connection that was not used for IDLE_S is pinged when it leaves the pool, and replaced when it does not answer."""
    broken = (engine.dialect.loaded_dbapi.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

    def on_checkin(_: Any, record: Any) -> None:
        record.info[_USED_AT] = clock.monotonic()

    def on_checkout(connection: Any, record: Any, _: Any) -> None:
        used_at = record.info.get(_USED_AT)
        if used_at is None or clock.monotonic() - used_at < IDLE_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except broken as exc:
            # The pool makes another one; if that fails too, it is the server's failure.
            raise DisconnectionError(f"no answer from a connection that was idle: {type(exc).__name__}") from exc

    event.listen(engine, "checkin", on_checkin)
    event.listen(engine, "checkout", on_checkout)
