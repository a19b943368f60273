"""Calls, casts and fanout between clients and servers on the memory bus."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import pytest

from common.base.context import Context
from common.base.errors import NotFound, Timeout, Unavailable
from common.base.retry import Retry
from common.host.clock import SystemClock
from common.rpc.client import NobodyListens, RpcClient
from common.rpc.contract import Contract, Kind, Method, Route, call, cast
from common.rpc.dispatch import InvalidArguments
from common.rpc.options import RpcOptions
from common.rpc.server import RpcServer
from common.rpc.session import Serving, serving
from common.rpc.topology import topic_exchange
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Closed, Message
from common.wire.failure import NoSuchMethod, UnsupportedVersion
from common.wire.messages import Request, encode_request

CLOCK = SystemClock()


class Thing(msgspec.Struct, frozen=True):
    name: str
    size: int = 1


class Broken(Exception):
    """Of no peer's acquaintance."""


class ThingAPI(Contract, Protocol, topic="things", version="1.3"):
    @call()
    async def grow(self, ctx: Context, *, thing: Thing, by: int = 1) -> Thing: ...

    @call()
    async def fail(self, ctx: Context, *, how: str) -> Any: ...

    @call(since="1.2")
    async def wait(self, ctx: Context) -> float: ...

    @cast()
    async def note(self, ctx: Context, *, word: str) -> None: ...


@dataclass
class Things(ThingAPI):
    name: str = "one"
    notes: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    faults: list[Exception] = field(default_factory=list)

    async def grow(self, ctx: Context, *, thing: Thing, by: int = 1) -> Thing:
        return Thing(f"{thing.name} by {self.name}", thing.size + by)

    async def fail(self, ctx: Context, *, how: str) -> Any:
        match how:
            case "fault":
                raise NotFound(kind="Thing", name="x")
            case "bug":
                raise Broken("secret words")
            case "unsendable":
                return object()
            case _:
                return "text"

    async def wait(self, ctx: Context) -> float:
        self.begun.set()
        await self.gate.wait()
        return (ctx.deadline or 0) - CLOCK.monotonic()

    async def note(self, ctx: Context, *, word: str) -> None:
        self.begun.set()
        if self.faults:
            raise self.faults.pop()
        self.notes.append(word)
        if word == "slow":
            await self.gate.wait()


@dataclass
class Bus:
    memory: MemoryBus = field(default_factory=lambda: MemoryBus(CLOCK))
    options: RpcOptions = field(default_factory=RpcOptions)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def transport(self) -> MemoryTransport:
        made = MemoryTransport(self.memory, name="test")
        self.stack.push_async_callback(made.close)
        return made

    async def client(self) -> RpcClient:
        made = RpcClient(await self.transport(), options=self.options, clock=CLOCK)
        self.stack.push_async_callback(made.close)
        return made

    async def serve(self, *endpoints: object, server: str = "host1", grace_s: float = 5.0) -> RpcServer:
        made = RpcServer(
            await self.transport(),
            endpoints,
            topic="things",
            server=server,
            exchange=None,
            options=self.options,
            clock=CLOCK,
            grace_s=grace_s,
        )
        return await self.stack.enter_async_context(made)


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    made = Bus()
    async with made.stack:
        yield made


@asynccontextmanager
async def running(*awaitables: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await CLOCK.sleep(0)


async def test_a_call_gives_the_typed_result(bus: Bus) -> None:
    await bus.serve(Things())
    things = ThingAPI.over(await bus.client())
    assert await things.grow(Context(), thing=Thing("a"), by=4) == Thing("a by one", 5)
    assert await things.on("host1").grow(Context(), thing=Thing("a")) == Thing("a by one", 2)


async def test_a_call_to_one_server_reaches_that_one(bus: Bus) -> None:
    for name in ("one", "two"):
        await bus.serve(Things(name), server=name)
    things = ThingAPI.over(await bus.client())
    for name in ("one", "two", "one"):
        assert (await things.on(name).grow(Context(), thing=Thing("a"))).name == f"a by {name}"


async def test_a_fanout_reaches_every_server_and_a_cast_one(bus: Bus) -> None:
    servers = [Things("one"), Things("two")]
    for server in servers:
        await bus.serve(server, server=server.name)
    things = ThingAPI.over(await bus.client())
    await things.everywhere().note(Context(), word="all")
    await until(lambda: all(server.notes == ["all"] for server in servers))
    await things.note(Context(), word="any")
    await until(lambda: sum(len(server.notes) for server in servers) == 3)
    with pytest.raises(ValueError, match="every server"):
        await things.everywhere().grow(Context(), thing=Thing("a"))


async def test_errors_arrive_as_what_they_are(bus: Bus) -> None:
    await bus.serve(Things())
    things = ThingAPI.over(await bus.client())
    with pytest.raises(NotFound, match="Thing x could not be found") as found:
        await things.fail(Context(), how="fault")
    assert found.value.is_remote
    for how, said in (("bug", "nobody foresaw"), ("unsendable", "returned what cannot be sent")):
        with pytest.raises(Exception, match=said) as bug:
            await things.fail(Context(), how=how)
        assert "secret words" not in str(bug.value)


async def test_a_call_to_nobody_fails_at_once(bus: Bus) -> None:
    things = ThingAPI.over(await bus.client())
    for client in (things, things.on("nowhere")):
        with pytest.raises(NobodyListens, match="Nobody listens on things"):
            await client.grow(Context(), thing=Thing("a"))
        with pytest.raises(NobodyListens):
            await client.note(Context(), word="x")


def test_who_finds_nobody_to_ask_is_not_told_that_the_thing_is_not_there() -> None:
    """A detachment took a volume for gone, since its cinder-volume was away for a second."""
    assert not issubclass(NobodyListens, NotFound)
    assert NobodyListens.retryable


async def test_a_wrong_argument_is_named_before_and_behind_the_wire(bus: Bus) -> None:
    await bus.serve(Things())
    rpc = await bus.client()
    things: Any = ThingAPI.over(rpc)
    with pytest.raises(TypeError, match="no argument 'how'"):
        await things.grow(Context(), thing=Thing("a"), how=1)
    with pytest.raises(TypeError, match="'thing' is missing"):
        await things.grow(Context())
    assert await raw(rpc, "grow", {"thing": {"name": "a"}, "by": 2}) == {"name": "a by one", "size": 3}
    for args, words in (
        ({}, "thing is missing"),
        ({"thing": {"name": 5}}, "argument thing"),
        ({"thing": {"name": "a"}, "x": 1}, "no argument x"),
    ):
        with pytest.raises(InvalidArguments, match=words):
            await raw(rpc, "grow", args)


async def raw(rpc: RpcClient, method: str, args: Mapping[str, Any], version: str = "1.0") -> Any:
    spec = Method(name=method, kind=Kind.CALL, version=version, parameters={}, optional=frozenset(), result=Any)
    return await rpc.call(Route(topic="things", version=version), spec, Context(), args)


async def test_versions_and_methods_that_are_not_served_have_oslo_s_errors(bus: Bus) -> None:
    await bus.serve(Things())
    rpc = await bus.client()
    with pytest.raises(UnsupportedVersion):
        await raw(rpc, "grow", {}, version="2.0")
    with pytest.raises(UnsupportedVersion):
        await raw(rpc, "grow", {}, version="1.4")
    for name in ("nope", "_handle", "over", "notes"):
        with pytest.raises(NoSuchMethod):
            await raw(rpc, name, {}, version="1.3")


async def test_a_call_ends_at_its_timeout_and_a_late_reply_is_dropped(bus: Bus) -> None:
    server = Things()
    await bus.serve(server)
    rpc = await bus.client()
    things = ThingAPI.over(rpc)
    with pytest.raises(Timeout, match=r"wait on things gave no answer within 0\.05 s"):
        await things.within(0.05).wait(Context())
    server.gate.set()
    await until(lambda: rpc._in_flight.late == 1)
    assert len(rpc._in_flight) == 0


async def test_the_callee_knows_how_long_its_caller_waits(bus: Bus) -> None:
    server = Things()
    server.gate.set()
    await bus.serve(server)
    things = ThingAPI.over(await bus.client())
    assert 0 < await things.within(30).wait(Context()) <= 30
    assert 0 < await things.wait(Context().until(CLOCK.monotonic() + 2)) <= 2
    with pytest.raises(Timeout):
        await things.wait(Context().until(CLOCK.monotonic() - 1))


async def test_a_thousand_calls_at_once_each_get_their_own_answer(bus: Bus) -> None:
    await bus.serve(Things())
    things = ThingAPI.over(await bus.client())
    found = await asyncio.gather(*(things.grow(Context(), thing=Thing(str(n)), by=n) for n in range(1000)))
    assert [thing.size for thing in found] == list(range(1, 1001))


async def test_cancelling_a_caller_leaves_nothing_in_flight(bus: Bus) -> None:
    server = Things()
    await bus.serve(server)
    rpc = await bus.client()
    async with running(ThingAPI.over(rpc).wait(Context())) as [task]:
        await server.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(rpc._in_flight) == 0
    server.gate.set()


async def test_closing_a_client_ends_its_calls(bus: Bus) -> None:
    server = Things()
    await bus.serve(server)
    rpc = await bus.client()
    async with running(ThingAPI.over(rpc).wait(Context())) as [task]:
        await server.begun.wait()
        await rpc.close()
        with pytest.raises(Closed):
            await task
    server.gate.set()


async def publish(bus: Bus, body: bytes) -> None:
    transport = await bus.transport()
    await transport.publish(Message(topic_exchange(bus.options, None), "things", body, mandatory=True), timeout_s=5)


async def test_a_duplicate_is_executed_once(bus: Bus) -> None:
    server = Things()
    await bus.serve(server)
    body = encode_request(Request("note", {"word": "x"}, unique_id="u1", version="1.3"))
    for _ in range(3):
        await publish(bus, body)
    await publish(bus, encode_request(Request("note", {"word": "end"}, unique_id="u2", version="1.3")))
    await until(lambda: server.notes[-1:] == ["end"])
    assert server.notes == ["x", "end"]


async def test_garbage_is_refused_and_the_server_lives(bus: Bus) -> None:
    server = Things()
    await bus.serve(server)
    for body in (b"", b"\xff", b'{"oslo.version":"3.0","oslo.message":"{}"}', b"[]"):
        await publish(bus, body)
    await ThingAPI.over(await bus.client()).note(Context(), word="x")
    await until(lambda: server.notes == ["x"])


async def test_a_cast_that_cannot_be_served_for_now_is_tried_again(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.rpc.work._WHEN_AWAY", Retry(first_delay_s=0))
    server = Things(faults=[Unavailable(what="database", reason="away")] * 3)
    await bus.serve(server)
    await ThingAPI.over(await bus.client()).note(Context(), word="x")
    await until(lambda: server.notes == ["x"])
    assert server.faults == []


async def test_draining_ends_what_runs_and_leaves_the_rest_to_the_next_server(bus: Bus) -> None:
    first, second = Things("first"), Things("second")
    server = await bus.serve(first)
    things = ThingAPI.over(await bus.client())
    await things.note(Context(), word="slow")
    await first.begun.wait()
    async with running(server.drain()) as [drain]:
        await CLOCK.sleep(0)
        await things.note(Context(), word="later")
        first.gate.set()
        await drain
    assert first.notes == ["slow"]
    await bus.serve(second)
    await until(lambda: second.notes == ["later"])


async def test_what_outlives_the_grace_is_given_back(bus: Bus) -> None:
    first, second = Things("first"), Things("second")
    second.gate.set()
    server = await bus.serve(first, grace_s=0.01)
    await ThingAPI.over(await bus.client()).note(Context(), word="slow")
    await first.begun.wait()
    await server.drain()
    await bus.serve(second)
    await until(lambda: second.notes == ["slow"])


async def test_a_server_that_leaves_a_method_out_cannot_be_built(bus: Bus) -> None:
    class Half(ThingAPI):
        async def grow(self, ctx: Context, *, thing: Thing, by: int = 1) -> Thing:
            return thing

    with pytest.raises(TypeError, match="Half leaves out fail, note, wait of ThingAPI"):
        await bus.serve(Half())  # type: ignore[abstract]  # mypy sees it too
    with pytest.raises(TypeError, match="implements no contract"):
        await bus.serve(object())


async def test_two_topics_of_one_service_are_served_together(bus: Bus) -> None:
    async with serving(
        await bus.transport(),
        Serving([Things()], "a@b"),
        Serving([Things()], "a", topic="things.a@b"),
        clock=CLOCK,
        options=bus.options,
        grace_s=1,
    ):
        things = ThingAPI.over(await bus.client())
        assert (await things.on("a", topic="things.a@b").grow(Context(), thing=Thing("x"))).size == 2
        assert (await things.on("a@b").grow(Context(), thing=Thing("x"))).size == 2
