"""Replies that cannot be sent, deadlines through several processes, and what is left when a client or server ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from common.base.context import Context
from common.base.errors import Fault, Unavailable
from common.base.limits import CAST_RETRY_DELAY_S, MESSAGE_BYTES_MAX
from common.host.clock import SystemClock
from common.rpc.client import RpcClient, UnusableReply
from common.rpc.contract import Contract, call, cast
from common.rpc.dispatch import InvalidArguments
from common.rpc.options import RpcOptions
from common.rpc.server import RpcServer
from common.rpc.work import UnserialisableResult
from common.testing.clock import JumpingClock
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Closed, Message, MessageTooLarge
from common.wire.failure import RemoteError

CLOCK = SystemClock()
OPTIONS = RpcOptions()


class EchoAPI(Contract, Protocol, topic="echo", version="1.0"):
    @call()
    async def give(self, ctx: Context, *, what: str) -> Any: ...

    @call()
    async def number(self, ctx: Context) -> int: ...

    @call()
    async def forward(self, ctx: Context) -> float: ...

    @cast()
    async def note(self, ctx: Context) -> None: ...


GIFTS: dict[str, Any] = {"surrogate": "\ud800", "large": "x" * (MESSAGE_BYTES_MAX + 1), "small": "y"}


@dataclass
class Echo(EchoAPI):
    next: EchoAPI | None = None
    away: int = 0
    notes: list[float] = field(default_factory=list)
    clock: Any = CLOCK

    async def give(self, ctx: Context, *, what: str) -> Any:
        if what == "foreign":
            raise type("Foreign", (Fault,), {"wire": ("far.away", "Gone")})("it is gone")
        return GIFTS[what]

    async def number(self, ctx: Context) -> int:
        return "three"  # type: ignore[return-value]  # what a peer of another make may do

    async def forward(self, ctx: Context) -> float:
        if self.next is not None:
            return await self.next.within(500).forward(ctx)
        assert ctx.deadline is not None
        return ctx.deadline - CLOCK.monotonic()

    async def note(self, ctx: Context) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable(what="database", reason="away")
        self.notes.append(self.clock.monotonic())


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


def connected(stack: AsyncExitStack, bus: MemoryBus) -> MemoryTransport:
    transport = MemoryTransport(bus)
    stack.push_async_callback(transport.close)
    return transport


async def serve(stack: AsyncExitStack, bus: MemoryBus, echo: Echo, server: str = "one") -> RpcServer:
    made = RpcServer(
        connected(stack, bus), [echo], topic="echo", server=server, exchange=None, options=OPTIONS, clock=echo.clock, grace_s=2
    )
    return await stack.enter_async_context(made)


def caller(stack: AsyncExitStack, bus: MemoryBus) -> RpcClient:
    rpc = RpcClient(connected(stack, bus), options=OPTIONS, clock=CLOCK)
    stack.push_async_callback(rpc.close)
    return rpc


@pytest.mark.parametrize(
    ("what", "error"), [("surrogate", UnserialisableResult), ("large", MessageTooLarge), ("foreign", RemoteError)]
)
async def test_what_cannot_be_sent_back_is_an_error_at_the_caller_at_once(
    stack: AsyncExitStack, what: str, error: type[Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = MemoryBus(CLOCK)
    await serve(stack, bus, Echo())
    client = EchoAPI.over(caller(stack, bus))
    if error is RemoteError:
        # The class lives in this process too; a peer that does not know it is played by forgetting all of them.
        monkeypatch.setattr("common.wire.failure.known_faults", lambda: iter((Fault,)))
    async with asyncio.timeout(10):
        with pytest.raises(error) as found:
            await client.give(Context(), what=what)
        assert found.value.is_remote
        assert await client.give(Context(), what="small") == "y"


async def test_a_result_of_a_wrong_type_names_the_server_s_method() -> None:
    async with AsyncExitStack() as stack:
        bus = MemoryBus(CLOCK)
        await serve(stack, bus, Echo())
        with pytest.raises(UnusableReply, match=r"number on echo answered something else than its contract says: .*int"):
            await EchoAPI.over(caller(stack, bus)).number(Context())


async def test_a_deadline_narrows_from_call_to_call_and_never_widens(stack: AsyncExitStack) -> None:
    bus = MemoryBus(CLOCK)
    rpc = caller(stack, bus)
    await serve(stack, bus, Echo(), "last")
    await serve(stack, bus, Echo(next=EchoAPI.over(rpc).on("last")), "first")
    left_s = await EchoAPI.over(rpc).on("first").within(20).forward(Context())
    assert 10 < left_s <= 20


async def test_a_cast_that_cannot_be_served_waits_longer_each_time(stack: AsyncExitStack) -> None:
    clock = JumpingClock(jumps=True)
    bus = MemoryBus(clock)
    echo = Echo(away=3, clock=clock)
    await serve(stack, bus, echo)
    await EchoAPI.over(caller(stack, bus)).note(Context())
    async with asyncio.timeout(10):
        while not echo.notes:
            await CLOCK.sleep(0)
    assert echo.notes == [(1 + 2 + 4) * CAST_RETRY_DELAY_S]


async def test_a_closed_client_refuses_calls_and_casts_and_leaves_no_queue(stack: AsyncExitStack) -> None:
    bus = MemoryBus(CLOCK)
    await serve(stack, bus, Echo())
    rpc = caller(stack, bus)
    client = EchoAPI.over(rpc)
    assert await client.give(Context(), what="small") == "y"
    replies = rpc._reply_queue.name
    await rpc.close()
    await rpc.close()
    for work in (client.give(Context(), what="small"), client.note(Context())):
        with pytest.raises(Closed):
            await work
    assert replies not in bus._queues


async def test_a_drained_server_leaves_its_topic_queues_but_not_its_fanout_queue(stack: AsyncExitStack) -> None:
    bus = MemoryBus(CLOCK)
    server = await serve(stack, bus, Echo())
    await server.drain()
    assert set(bus._queues) == {"echo", "echo.one"}


async def test_a_drained_server_leaves_a_fanout_queue_whose_name_comes_back(stack: AsyncExitStack) -> None:
    bus = MemoryBus(CLOCK)
    options = RpcOptions(own_name=lambda: "h:p:1")
    server = RpcServer(
        connected(stack, bus), [Echo()], topic="echo", server="one", exchange=None, options=options, clock=CLOCK, grace_s=2
    )
    await stack.enter_async_context(server)
    await server.drain()
    assert set(bus._queues) == {"echo", "echo.one", "echo_fanout_h:p:1"}


class Unconfirming(MemoryTransport):
    """A bus that takes a message and never says so."""

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        await super().publish(message, timeout_s=timeout_s)
        await asyncio.Event().wait()


async def test_a_reply_ends_the_call_though_the_confirm_of_its_request_was_lost(stack: AsyncExitStack) -> None:
    bus = MemoryBus(CLOCK)
    await serve(stack, bus, Echo())
    transport = Unconfirming(bus)
    stack.push_async_callback(transport.close)
    rpc = RpcClient(transport, options=OPTIONS, clock=CLOCK)
    stack.push_async_callback(rpc.close)
    async with asyncio.timeout(10):
        assert await EchoAPI.over(rpc).give(Context(), what="small") == GIFTS["small"]


class SlowTransport(MemoryTransport):
    """A bus that takes its time to open a queue."""

    gate: asyncio.Event

    async def consume(self, *args: Any, **kwargs: Any) -> Any:
        await self.gate.wait()
        return await super().consume(*args, **kwargs)


async def test_a_client_that_is_closed_while_it_opens_leaves_no_queue_and_ends_the_call() -> None:
    bus = MemoryBus(CLOCK)
    transport = SlowTransport(bus)
    transport.gate = asyncio.Event()
    rpc = RpcClient(transport, options=OPTIONS, clock=CLOCK)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(closed_call(rpc))
        await CLOCK.sleep(0)
        await rpc.close()
        transport.gate.set()
        assert await task
    assert bus._queues == {}
    await transport.close()


async def closed_call(rpc: RpcClient) -> bool:
    try:
        await EchoAPI.over(rpc).give(Context(), what="small")
    except Closed:
        return True
    return False


@pytest.mark.parametrize("value", ["\udcff", object()])
async def test_an_argument_that_cannot_be_sent_is_named_at_the_caller(stack: AsyncExitStack, value: Any) -> None:
    bus = MemoryBus(CLOCK)
    await serve(stack, bus, Echo())
    with pytest.raises(InvalidArguments, match=r"give: argument what: .* cannot be sent"):
        await EchoAPI.over(caller(stack, bus)).give(Context(), what=value)


async def test_a_closed_client_refuses_at_once_and_does_not_ask_the_bus() -> None:
    transport = SlowTransport(MemoryBus(CLOCK))
    transport.gate = asyncio.Event()
    rpc = RpcClient(transport, options=OPTIONS, clock=CLOCK)
    await rpc.close()
    async with asyncio.timeout(10):
        assert await closed_call(rpc)
    await transport.close()
