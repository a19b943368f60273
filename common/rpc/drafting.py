"""A client whose casts are written down instead of being sent: for those who send them with something else, or later.

drafting = Drafting(rpc)
compute = ComputeManagerAPI.over(drafting)
with drafting.collected() as drafts:
await compute.on("cmp1").attach_volume(ctx, instance=server, bdm=mapping)
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from common.base.context import Context
from common.rpc.client import RpcClient
from common.rpc.contract import Method, Route
from common.transport.port import Message


@dataclass(frozen=True, slots=True)
class Draft:
    """A cast that was not sent, and for which request it was to be."""

    message: Message
    request_id: str


class Drafting:
    """Implements `common.rpc.contract.Sender`. Calls, and casts outside of `collected`, are mistakes: RuntimeError."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc
        self._drafts: ContextVar[list[Draft] | None] = ContextVar("drafts", default=None)

    @contextmanager
    def collected(self) -> Iterator[list[Draft]]:
        """Casts of this task inside the block are in the list, in their order."""
        drafts: list[Draft] = []
        token = self._drafts.set(drafts)
        try:
            yield drafts
        finally:
            self._drafts.reset(token)

    async def call(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> Any:  # noqa: ARG002  # the port
        raise RuntimeError(f"{method.name} on {route} waits for an answer: it cannot be sent later")

    async def cast(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> None:
        drafts = self._drafts.get()
        if drafts is None:
            raise RuntimeError(f"{method.name} to {route} is drafted outside of `collected`: nobody would send it")
        drafts.append(Draft(self._rpc.draft(route, method, ctx, arguments), ctx.request_id))
