"""Smaller promises of contracts, clients and servers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
from msgspec.structs import replace

from common.base.context import Context
from common.base.errors import Invalid, Misconfigured
from common.base.trace import Trace
from common.rpc.client import RpcClient
from common.rpc.contract import Ack, Contract, RPCVersionCapError, call, cast
from common.rpc.dispatch import PING
from common.rpc.middleware import Incoming, Outgoing
from common.rpc.options import RpcOptions
from common.rpc.server import RpcServer
from common.rpc.topology import server_queues
from common.rpc.work import InternalError
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Message, Queue
from common.wire.failure import NoSuchMethod, RemoteError, UnsupportedVersion
from common.wire.messages import Reply, Request, decode_reply, decode_request, encode_request
from tests.unit.rpc.foreign import InstanceNotFound
from tests.unit.rpc.given import Given
from tests.unit.rpc.net import CLOCK, Net, net, until


class OldAPI(Contract, Protocol, topic="ways", version="5.13"):
    @call()
    async def name(self, ctx: Context) -> str: ...


class WaysAPI(Contract, Protocol, topic="ways", version="6.5"):
    @call(since="6.0")
    async def name(self, ctx: Context) -> str: ...

    @call(since="6.3")
    async def newer(self, ctx: Context) -> str: ...

    @call(since="6.0", raises=(KeyError, InstanceNotFound))
    async def fail(self, ctx: Context, *, how: str) -> str: ...

    @cast(since="6.0", ack=Ack.EARLY)
    async def early(self, ctx: Context) -> None: ...

    @call(since="6.0")
    async def hop(self, ctx: Context) -> str | None: ...


class SpacedAPI(Contract, Protocol, topic="ways", version="1.1", namespace="baseapi", legacy_namespaces=("base", "old")):
    @call()
    async def name(self, ctx: Context) -> str: ...


class Old(OldAPI):
    async def name(self, ctx: Context) -> str:
        return "old"


class Spaced(SpacedAPI):
    async def name(self, ctx: Context) -> str:
        return "spaced"


@dataclass
class Ways(WaysAPI):
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0

    async def name(self, ctx: Context) -> str:
        return "new"

    async def newer(self, ctx: Context) -> str:
        return "newer"

    async def fail(self, ctx: Context, *, how: str) -> str:
        match how:
            case "key":
                raise KeyError("volume-1")
            case "instance":
                raise InstanceNotFound(instance_id="i-1", code=404)
            case _:
                raise ZeroDivisionError("secret")

    async def early(self, ctx: Context) -> None:
        self.begun += 1
        await self.gate.wait()

    async def hop(self, ctx: Context) -> str | None:
        return ctx.trace.traceparent if ctx.trace else None


async def ask(made: Net, request: Request, server: str = "h1") -> Reply:
    """What a raw request is answered."""
    seen: list[Reply] = []
    transport = made.transport()
    await transport.consume(
        Queue(request.reply_q or ""), prefetch=9, on_delivery=lambda given: seen.append(decode_reply(given.body))
    )
    await transport.publish(Message(None, f"ways.{server}", encode_request(request), mandatory=True), timeout_s=5)
    await until(lambda: bool(seen))
    return seen[0]


async def test_several_versions_of_one_topic_are_served_side_by_side() -> None:
    async with net() as made:
        server = RpcServer(
            made.transport(),
            [Ways(), Old(), Spaced()],
            topic="ways",
            server="h1",
            exchange=None,
            options=made.options,
            clock=made.clock,
        )
        await made.stack.enter_async_context(server)
        rpc = made.client()
        assert await OldAPI.over(rpc).name(Context()) == "old"
        assert await WaysAPI.over(rpc).name(Context()) == "new"
        assert await SpacedAPI.over(rpc).name(Context()) == "spaced"
        for namespace, answer in (("baseapi", "spaced"), ("base", "spaced"), ("old", "spaced"), ("other", None)):
            reply = await ask(
                made, Request("name", {}, namespace=namespace, version="1.0", msg_id="m", reply_q=f"reply_{namespace}")
            )
            assert (reply.result, reply.failure is None) == (answer, answer is not None)


async def test_a_client_that_is_capped_sends_nothing_that_old_servers_do_not_know() -> None:
    async with net() as made:
        await made.serve(Ways())
        capped = WaysAPI.over(made.client(), version_cap="6.2")
        assert await capped.name(Context()) == "new"
        said = "Requested message version, 6.3 is incompatible: newer needs it, and ways.h1 is capped at 6.2."
        with pytest.raises(RPCVersionCapError, match=said):
            await capped.on("h1").newer(Context())
        assert [capped.can_send_version(version) for version in ("6.0", "6.2", "6.3", "7.0", "5.0")] == [
            True,
            True,
            False,
            False,
            False,
        ]
        assert WaysAPI.over(made.client()).can_send_version("9.9")


async def test_a_ping_is_answered_only_where_the_operator_allows_it() -> None:
    async with net(options=RpcOptions(ping_enabled=True)) as made:
        await made.serve(Ways())
        ping = Request(PING, {}, version="1.0", msg_id="m", reply_q="reply_raw")
        assert (await ask(made, ping)).result == "pong"
    async with net() as made:
        await made.serve(Ways())
        assert UnsupportedVersion.__name__ in ((await ask(made, ping)).failure or "")
    assert NoSuchMethod.code == 400


async def test_a_method_may_be_acked_before_it_begins() -> None:
    async with net() as made:
        ways = Ways()
        server = await made.serve(ways)
        given = Given(encode_request(Request("early", {}, "u", version="6.0")))
        server._on_delivery(given)
        await until(lambda: ways.begun == 1)
        assert given.settled == "acked"
        ways.gate.set()


async def test_exceptions_that_belong_to_the_contract_arrive_in_their_own_words_and_bugs_do_not() -> None:
    async with net() as made:
        await made.serve(Ways())
        allowing = RpcClient(
            made.transport(), options=RpcOptions(allowed_remote_exmods=("builtins", "tests.unit.rpc.foreign")), clock=made.clock
        )
        made.stack.push_async_callback(allowing.close)
        ways = WaysAPI.over(allowing)
        with pytest.raises(KeyError, match="volume-1"):
            await ways.fail(Context(), how="key")
        with pytest.raises(InternalError, match="ZeroDivisionError") as bug:
            await ways.fail(Context(), how="bug")
        assert "secret" not in str(bug.value)
        with pytest.raises(RemoteError) as remote:
            await WaysAPI.over(made.client()).fail(Context(), how="instance")
        assert (remote.value.exc_type, remote.value.value) == ("InstanceNotFound", "Instance i-1 could not be found.")


async def test_an_exception_of_an_allowed_module_is_a_subclass_with_the_peer_s_text() -> None:
    async with net() as made:
        await made.serve(Ways())
        allowing = made.client(options=RpcOptions(allowed_remote_exmods=("tests.unit.rpc.foreign",)))
        with pytest.raises(InstanceNotFound) as found:
            await WaysAPI.over(allowing).fail(Context(), how="instance")
        assert type(found.value).__name__ == "InstanceNotFound_Remote"
        assert str(found.value) == "Instance i-1 could not be found."


def test_a_module_that_cannot_be_imported_is_an_error_of_the_configuration() -> None:

    with pytest.raises(Misconfigured, match="allowed_remote_exmods: No module named 'nova_not_here'"):
        RpcClient(MemoryTransport(MemoryBus(CLOCK)), options=RpcOptions(allowed_remote_exmods=("nova_not_here",)), clock=CLOCK)


async def test_a_trace_goes_on_from_hop_to_hop_in_context_and_headers() -> None:
    async with net() as made:
        await made.serve(Ways())
        trace = Trace.new()
        seen: list[tuple[dict[str, Any], Request]] = []
        shared, *_ = server_queues(made.options, exchange=None, topic="ways", server="h1")
        queue = Queue("spy", shared.bindings)
        await made.transport().consume(
            queue, prefetch=9, on_delivery=lambda given: seen.append((dict(given.headers), decode_request(given.body)))
        )
        traceparent = await WaysAPI.over(made.client()).hop(Context(trace=trace))
        hop = Trace.parse(traceparent)
        assert hop is not None
        assert hop.trace_id == trace.trace_id
        assert hop.span_id != trace.span_id
        await until(lambda: bool(seen))
        headers, request = seen[0]
        assert headers == {"traceparent": traceparent}
        assert request.context["traceparent"] == traceparent
        assert Trace.parse(await WaysAPI.over(made.client()).hop(Context())) is not None


@pytest.mark.parametrize(
    "text",
    ["", "00", "01-" + "1" * 32 + "-" + "2" * 16 + "-01", "00-" + "0" * 32 + "-" + "2" * 16 + "-01", "00-" + "1" * 32 + "-" + "0" * 16 + "-01", 5],
)  # fmt: skip
def test_what_is_no_traceparent_starts_no_trace(text: object) -> None:
    assert Trace.parse(text) is None


async def test_middleware_on_both_sides_sees_every_request_the_first_one_outermost() -> None:
    told: list[str] = []

    @dataclass
    class Tells:
        name: str

        async def __call__(self, request: Any, proceed: Callable[[Any], Awaitable[Any]]) -> Any:
            told.append(f"{self.name} {request.method.name}")
            answer = await proceed(request)
            told.append(f"{self.name} {answer}")
            return answer

    class Refuses:
        async def __call__(self, request: Incoming, proceed: Callable[[Incoming], Awaitable[Any]]) -> Any:
            if not request.ctx.is_admin:
                raise Invalid(reason="only administrators")
            return await proceed(request)

    class Names:
        async def __call__(self, request: Outgoing, proceed: Callable[[Outgoing], Awaitable[Any]]) -> Any:
            return await proceed(replace(request, ctx=replace(request.ctx, is_admin=True)))

    async with net() as made:
        await made.serve(Ways(), middleware=[Tells("s1"), Refuses(), Tells("s2")])
        with pytest.raises(Invalid, match="only administrators"):
            await WaysAPI.over(made.client()).name(Context())
        told.clear()
        assert await WaysAPI.over(made.client(middleware=[Tells("c1"), Names()])).name(Context()) == "new"
        assert told == ["c1 name", "s1 name", "s2 name", "s2 new", "s1 new", "c1 new"]
