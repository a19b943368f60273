"""A process's connection to the bus: `async with connect(url, serving=[...], host="cmp1") as rpc`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from common.base.clock import Clock
from common.rpc.client import RpcClient
from common.rpc.contract import contract_of
from common.rpc.counts import Counts
from common.rpc.inbox import Inbox
from common.rpc.middleware import ClientMiddleware, ServerMiddleware
from common.rpc.options import RpcOptions
from common.rpc.server import RpcServer
from common.transport.port import Transport


@dataclass(frozen=True, slots=True)
class Serving:
    """Endpoints to serve together. `topic`: another one than the contract's (cinder-volume.<host>@<backend>)."""

    endpoints: Sequence[object]
    server: str
    topic: str | None = None
    exchange: str | None = None


@asynccontextmanager
async def client(
    transport: Transport, *, clock: Clock, options: RpcOptions, middleware: Sequence[ClientMiddleware] = (),
    counts: Counts | None = None,
) -> AsyncIterator[RpcClient]:  # fmt: skip
    """A client over `transport`, closed at the end; the transport stays open."""
    rpc = RpcClient(transport, options=options, clock=clock, middleware=middleware, counts=counts)
    try:
        yield rpc
    finally:
        await rpc.close()


@asynccontextmanager
async def serving(
    transport: Transport, *servers: Serving, clock: Clock, options: RpcOptions, grace_s: float,
    middleware: Sequence[ServerMiddleware] = (), counts: Counts | None = None, inbox: Inbox | None = None,
) -> AsyncIterator[None]:  # fmt: skip
    """`servers` run inside the block and are drained at its end, the last one first.

    middleware, counts   those of the process: every server has them
    inbox                what all servers of these topics share, in whatever process, for exactly-once methods
    """
    async with AsyncExitStack() as stack:
        for server in servers:
            route = contract_of(server.endpoints[0]).__rpc_route__
            await stack.enter_async_context(
                RpcServer(
                    transport,
                    server.endpoints,
                    topic=server.topic or route.topic,
                    server=server.server,
                    exchange=server.exchange or route.exchange,
                    options=options,
                    clock=clock,
                    grace_s=grace_s,
                    middleware=middleware,
                    counts=counts,
                    inbox=inbox,
                )
            )
        yield
