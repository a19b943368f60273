"""What a client's request came to, written down: accepted with what it changes, or refused before that is told.

A request may be with two processes at once, when the bus gave it again because the first one lost its connection. Whichever decides first
stands: what one has refused, the other can no longer accept. Each decision is a row of flows: of a request that is a flow itself, the
flow; else one that has ended from the start.
"""

from collections.abc import Awaitable
from typing import TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.app.post import Writing
from common.base.context import Context
from common.base.errors import Invalid
from common.base.ids import same_uuid
from common.db.journal import FlowRow, FlowState, Journal
from common.db.owner import Owner
from common.flow.runner import RefusedBefore

R = TypeVar("R")


class _DecidedBefore(Exception):
    """No fault: what was to be changed is not, and why stands in the row."""


def request_id_of(name: str, ctx: Context) -> str:
    """Of the row of a request: the same message again is the same request."""
    return f"{name}:{same_uuid(ctx.message_id)}"


class Decisions:
    """One process's. `name` is what was asked for: "request_detach"."""

    def __init__(self, journal: Journal, owner: Owner) -> None:
        self._journal = journal
        self._owner = owner

    def accepting(self, ctx: Context, name: str, subject: str) -> Writing:
        """To be written with what the request changes, inside `decided`: nothing is changed for one that was decided before."""
        row = self._row(ctx, name, FlowState.COMPLETED, subject=subject)

        async def write(conn: AsyncConnection) -> None:
            try:
                await self._journal.enter(conn, row)
            except IntegrityError as exc:
                raise _DecidedBefore from exc

        return write

    async def decided(self, ctx: Context, name: str, work: Awaitable[R]) -> R | None:
        """What `work` returns, which accepts the request. None: it was accepted before.

        Raises what `work` does: Invalid only once nobody can accept the request any more; RefusedBefore.
        """
        try:
            return await work
        except _DecidedBefore:
            row = await self._journal.flow(request_id_of(name, ctx))
            if row is not None and row.is_refusal:
                raise RefusedBefore(reason=row.error or "") from None
        except Invalid as exc:
            if exc.retryable or await self.refuse(ctx, name, str(exc)):
                raise
        return None

    async def refuse(self, ctx: Context, name: str, reason: str) -> bool:
        """True when nobody can accept the request any more; False when somebody has. One without an id is nobody else's."""
        if ctx.message_id is None:
            return True
        row = self._row(ctx, name, FlowState.COMPENSATED, error=reason)
        if await self._journal.open(row):
            return True
        found = await self._journal.flow(row.id)
        return found is not None and found.is_refusal

    def _row(self, ctx: Context, name: str, state: FlowState, *, subject: str = "", error: str | None = None) -> FlowRow:
        return FlowRow(
            id=request_id_of(name, ctx),
            saga=name,
            subject=subject,
            context=ctx.without_deadline().to_dict(),
            request_id=ctx.request_id,
            home=self._owner.home,
            owner=str(self._owner),
            state=state,
            error=error,
        )
