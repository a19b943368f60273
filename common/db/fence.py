"""Fences: what a process writes for a flow that was taken over by another one is refused, however late it comes.

Whoever takes a flow over raises flows.fence. Every writing transaction of the flow's work begins by asking for the number that the
worker holds (`Database.begin` does it), and locks that row, so that no takeover falls between the question and the commit. The fence
travels with calls to other services in the request context: what they write for the caller is asked about in the same way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.base.errors import Conflict
from common.db.tables import flows

RUNNING = "running"

_STANDS = (
    select(flows.c.id)
    .where(flows.c.id == bindparam("flow_id"), flows.c.fence == bindparam("number"), flows.c.state == RUNNING)
    .with_for_update(read=True)
)


class Superseded(Conflict):
    """Flow {flow_id} has ended or is carried on by another process: what was to be done for it under fence {fence} is not done."""


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to act for a flow: it holds while the flow runs and its fence has this number."""

    flow_id: str
    number: int

    def __str__(self) -> str:
        return f"{self.flow_id}#{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for what is none."""
        flow_id, mark, number = text.rpartition("#")
        return cls(flow_id, int(number)) if mark and number.isascii() and number.isdigit() else None


_HELD: ContextVar[Fence | None] = ContextVar("fence", default=None)


def held() -> Fence | None:
    """Under which fence the running task works."""
    return _HELD.get()


@contextmanager
def fenced(fence: Fence | None) -> Iterator[None]:
    """Inside, and in tasks begun inside, every writing transaction asks for `fence` first; None: for none."""
    token = _HELD.set(fence)
    try:
        yield
    finally:
        _HELD.reset(token)


async def check(conn: AsyncConnection, fence: Fence) -> None:
    """Returns when the flow still runs under that number, and until the transaction ends nobody can change it. Raises Superseded."""
    if (await conn.execute(_STANDS, {"flow_id": fence.flow_id, "number": fence.number})).first() is None:
        raise Superseded(flow_id=fence.flow_id, fence=fence.number)
