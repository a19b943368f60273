"""What carries a process's flows: it owns them by a lease, sends what they promise, and takes over those that nobody has any more."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from common.app.deciding import Decisions
from common.app.post import Post
from common.base.clock import Clock
from common.base.failpoints import Failpoints
from common.db.engine import Database
from common.db.fence import Fence, fenced
from common.db.journal import Journal
from common.db.lease import Leases
from common.db.outbox import Outbox
from common.db.owner import Owner
from common.flow.keeper import Keeper
from common.flow.relay import Relay
from common.flow.runner import Runner
from common.rpc.client import RpcClient
from common.rpc.middleware import Incoming
from common.transport.port import Transport


@dataclass(frozen=True, slots=True)
class Carrier:
    """Made by `carrying`. Tell `runner` which flows it knows, then enter `at_work`, and serve inside."""

    runner: Runner
    post: Post
    decisions: Decisions
    _keeper: Keeper
    _relay: Relay

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """The lease is held, and what predecessors left is in line before anything new. Raises what the database does."""
        await self._keeper.begin()
        async with alongside(self._keeper.run()), alongside(self._relay.run()):
            yield

    async def sweep(self) -> None:
        """Forget what is of no use any more. Raises what the database does."""
        await self._keeper.sweep()

    def hand_back(self) -> None:
        """The process is told to stop: flows end where they are between two steps."""
        self.runner.hand_back()


@asynccontextmanager
async def carrying(
    owner: Owner, *, database: Database, transport: Transport, rpc: RpcClient, clock: Clock, failpoints: Failpoints
) -> AsyncIterator[Carrier]:
    """A carrier for the block; at its end every flow has stopped, and what is not done may be taken over at once."""
    outbox = Outbox(database, clock, owner=owner)
    relay = Relay(outbox, transport, clock=clock, failpoints=failpoints)
    outbox.on_put = relay.poke
    journal = Journal(database, clock)
    runner = Runner(journal, clock=clock, owner=owner, failpoints=failpoints, outbox=outbox)
    keeper = Keeper(Leases(database), runner, outbox, relay, owner=owner, clock=clock)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(keeper.end)
        await stack.enter_async_context(runner)
        yield Carrier(runner, Post(rpc, outbox), Decisions(journal, owner), keeper, relay)


async def for_the_caller(request: Incoming, proceed: Callable[[Incoming], Awaitable[Any]]) -> Any:
    """Server middleware: what an endpoint writes for a flow's step is refused once that flow is another process's, or has ended."""
    with fenced(Fence.parse(request.ctx.fence) if request.ctx.fence else None):
        return await proceed(request)


@asynccontextmanager
async def alongside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """`work` runs while the block does and is cancelled at its end; if it fails, the block does."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        finally:
            task.cancel()
