"""A process's connection to the bus: `async with connect(url, serving=[...], host="cmp1") as rpc`."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from common.base.clock import Clock
from common.base.failpoints import OFF, Failpoints
from common.base.limits import DRAIN_TIMEOUT_S
from common.host.clock import SystemClock
from common.rpc.contract import contract_of
from common.rpc.counts import Counts
from common.rpc.inbox import Inbox
from common.rpc.middleware import ClientMiddleware, ServerMiddleware
from common.rpc.options import RpcOptions
from common.transport.port import Transport

if TYPE_CHECKING:
    from common.rpc.client import RpcClient
    from common.transport.memory import MemoryBuses
    from common.transport.rabbit_settings import RabbitSettings

_DEFAULTS = RpcOptions()
_CLOCK = SystemClock()
_BUSES: "WeakKeyDictionary[asyncio.AbstractEventLoop, MemoryBuses]" = WeakKeyDictionary()
"""What `memory://` means to all connects of one event loop, and for as long as it lives."""


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
) -> "AsyncIterator[RpcClient]":  # fmt: skip
    """A client over `transport`, closed at the end; the transport stays open."""
    from common.rpc.client import RpcClient  # noqa: PLC0415  # who only serves needs none of it

    rpc = RpcClient(transport, options=options, clock=clock, middleware=middleware, counts=counts)
    try:
        yield rpc
    finally:
        await rpc.close()


@asynccontextmanager
async def serving(
    transport: Transport, *servers: Serving, clock: Clock, options: RpcOptions, grace_s: float,
    middleware: Sequence[ServerMiddleware] = (), counts: Counts | None = None, inbox: Inbox | None = None,
    failpoints: Failpoints = OFF,
) -> AsyncIterator[None]:  # fmt: skip
    """`servers` run inside the block and are drained at its end, the last one first.

    middleware, counts   those of the process: every server has them
    inbox                what all servers of these topics share, in whatever process, for exactly-once methods
    """
    from common.rpc.server import RpcServer  # noqa: PLC0415  # who only calls needs none of it

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
                    failpoints=failpoints,
                )
            )
        yield


@asynccontextmanager
async def connect(
    url: str, *, serving: Sequence[object] = (), host: str | None = None, options: RpcOptions = _DEFAULTS,
    rabbit: "RabbitSettings | None" = None, buses: "MemoryBuses | None" = None, clock: Clock = _CLOCK,
    grace_s: float = DRAIN_TIMEOUT_S, connection_name: str | None = None, client_middleware: Sequence[ClientMiddleware] = (),
    server_middleware: Sequence[ServerMiddleware] = (), counts: Counts | None = None, inbox: Inbox | None = None,
) -> "AsyncIterator[RpcClient]":  # fmt: skip
    """A client on a bus of its own connection, with servers that run inside the block; at its end they drain and all is closed.

    url               one of common.transport.url.SCHEMES; `memory://name` is one bus for all connects of this event loop
    serving           servers of contracts, those of one topic together; or `Serving` for another topic, exchange or server name
    host              the server name of them; None: this machine's name
    rabbit            how `rabbit://` is connected to
    buses             other buses for `memory://`
    grace_s           how long requests in hand may take to end
    connection_name   how the broker's lists call this process; None: the first topic and the host, or "client.<host>"
    counts, inbox     as for `serving`; the client has the counts too
    Raises Misconfigured for a URL of no known form, BusUnavailable when nobody answers there, TypeError for what serves nothing.
    """
    from common.transport.url import open_transport  # noqa: PLC0415  # adapters are imported when they are asked for

    name = host or socket.gethostname()
    servers = _grouped(serving, name)
    topic = _topic(servers[0]) if servers else "client"
    async with AsyncExitStack() as stack:
        transport = await open_transport(
            url,
            clock=clock,
            connection_name=connection_name or f"{topic}.{name}",
            buses=buses or _buses(clock),
            **({} if rabbit is None else {"rabbit": rabbit}),
        )
        stack.push_async_callback(transport.close)
        rpc = await stack.enter_async_context(
            client(transport, clock=clock, options=options, middleware=client_middleware, counts=counts)
        )
        await stack.enter_async_context(
            _all_served(
                transport,
                *servers,
                clock=clock,
                options=options,
                grace_s=grace_s,
                middleware=server_middleware,
                counts=counts,
                inbox=inbox,
            )
        )
        yield rpc


_all_served = serving  # connect has a parameter of that name


def _grouped(endpoints: Sequence[object], server: str) -> list[Serving]:
    """Contracts of one topic and exchange on one server, in the order in which they were given."""
    found: list[Serving] = []
    together: dict[tuple[str, str | None], list[object]] = {}
    for each in endpoints:
        if isinstance(each, Serving):
            found.append(each)
            continue
        route = contract_of(each).__rpc_route__
        if (route.topic, route.exchange) not in together:
            together[route.topic, route.exchange] = []
            found.append(Serving(together[route.topic, route.exchange], server))
        together[route.topic, route.exchange].append(each)
    return found


def _topic(serving: Serving) -> str:
    return serving.topic or contract_of(serving.endpoints[0]).__rpc_route__.topic


def _buses(clock: Clock) -> "MemoryBuses":
    from common.transport.memory import MemoryBuses  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    if loop not in _BUSES:
        _BUSES[loop] = MemoryBuses(clock)
    return _BUSES[loop]
