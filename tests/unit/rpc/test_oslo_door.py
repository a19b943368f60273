"""oslo.messaging's words over our core: targets, prepared clients, endpoints, policies, serializers."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import pytest

from common.base.context import Context
from common.base.errors import Fault, NotFound
from common.rpc import session
from common.rpc.client import RpcClient
from common.rpc.contract import Ack, Contract, call
from common.rpc.dead_letters import DeadLetters
from common.rpc.options import RpcOptions
from common.rpc.oslo import (
    DefaultRPCAccessPolicy,
    ExplicitRPCAccessPolicy,
    InvalidTarget,
    LegacyRPCAccessPolicy,
    MessageDeliveryFailure,
    MessageUndeliverable,
    MessagingTimeout,
    NoOpSerializer,
    NoSuchMethod,
    RemoteError,
    RPCClient,
    RPCVersionCapError,
    Target,
    UnsupportedVersion,
    expected_exceptions,
    expose,
    get_rpc_server,
)
from common.rpc.server import RpcServer
from common.rpc.topology import topic_queue
from common.testing.inbox import MemoryInbox
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Message
from tests.unit.rpc.net import Net, net, until

CTXT = {"user_id": "u1", "request_id": "req-1"}
TOPIC = Target(topic="t")


class InstanceNotFound(NotFound):
    """Instance {instance_id} could not be found."""


class Compute:
    target = Target(version="6.5")

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.word = "no method"

    @property
    def load(self) -> int:
        raise AssertionError("a property is not run by the bus")

    async def echo(self, ctxt: Context, x: Any, *, more: int = 0) -> Any:
        self.seen.append(ctxt)
        return [x, more]

    async def note(self, ctxt: Context, word: str) -> None:
        self.seen.append(word)

    async def find(self, ctxt: Context) -> None:
        raise InstanceNotFound(instance_id="i-1")

    async def fail(self, ctxt: Context) -> None:
        raise ValueError("bad")

    @expected_exceptions(KeyError)
    async def expect(self, ctxt: Context) -> None:
        raise KeyError("gone")

    @expose
    async def shown(self, ctxt: Context) -> str:
        return "shown"

    async def _hidden(self, ctxt: Context) -> str:
        return "hidden"

    def _blocking(self) -> None: ...


async def serve(
    at: Net, *endpoints: object, server: str = "h1", exchange: str | None = None, options: RpcOptions | None = None, **words: Any
) -> RpcServer:
    target = Target(topic="t", server=server, exchange=exchange)
    made = get_rpc_server(at.transport(), target, endpoints, clock=at.clock, options=options or at.options, grace_s=0.2, **words)
    return await at.stack.enter_async_context(made)


async def test_an_endpoint_gets_our_context_and_answers_by_name() -> None:
    async with net() as at:
        compute = Compute()
        await serve(at, compute)
        client = RPCClient(at.client(), Target(topic="t", version="6.0"))
        assert await client.call(CTXT, "echo", x={"a": 1}) == [{"a": 1}, 0]
        assert await client.prepare(server="h1").call(CTXT, "echo", x=1, more=2) == [1, 2]
        (ctxt, _) = compute.seen
        assert isinstance(ctxt, Context)
        assert (ctxt.user_id, ctxt.request_id) == ("u1", "req-1")
        assert ctxt.deadline is not None


async def test_a_cast_goes_to_one_server_and_a_fanout_to_all() -> None:
    async with net() as at:
        one, two = Compute(), Compute()
        await serve(at, one, server="h1")
        await serve(at, two, server="h2")
        client = RPCClient(at.client(), TOPIC)
        client = client.prepare(version="6.5")
        await client.prepare(server="h2").cast(CTXT, "note", word="cast")
        await client.prepare(fanout=True, server="h2").cast(CTXT, "note", word="fanout")
        await until(lambda: (one.seen, sorted(two.seen)) == (["fanout"], ["cast", "fanout"]))


async def test_prepare_overrides_only_what_is_given_and_can_be_repeated() -> None:
    async with net() as at:
        client = RPCClient(at.client(), Target(topic="t", server="a", version="1.2"), timeout=7, retry=0, version_cap="1.5")
        once = client.prepare(server="b", timeout=9)
        assert (once.target, once.timeout, once.retry, once.version_cap) == (
            Target(topic="t", server="b", version="1.2"), 9, 0, "1.5",
        )  # fmt: skip
        twice = once.prepare(server=None, fanout=True, version_cap=None)
        assert (twice.target, twice.timeout, twice.version_cap) == (Target(topic="t", version="1.2", fanout=True), 9, None)
        assert client.target.server == "a"
        with pytest.raises(TypeError, match="prepare has no argument topik; it has exchange, topic"):
            client.prepare(topik="x")  # type: ignore[call-arg]


@pytest.mark.parametrize(("version", "is_served"), [("6.0", True), ("6.5", True), ("6.5.1", False), ("6.6", False), ("7.0", False)])
async def test_an_endpoint_serves_its_major_up_to_its_minor(version: str, is_served: bool) -> None:
    async with net() as at:
        await serve(at, Compute())
        asked = RPCClient(at.client(), TOPIC).prepare(version=version).call(CTXT, "echo", x=1)
        if is_served:
            assert await asked == [1, 0]
        else:
            with pytest.raises(UnsupportedVersion, match=f"does not support RPC version {version}. Attempted method: echo"):
                await asked


async def test_the_first_compatible_endpoint_that_has_the_method_wins() -> None:
    class Old:
        async def who(self, ctxt: Context) -> str:
            return "old"

    class Other:
        target = Target(namespace="base", version="1.1", legacy_namespaces=("before", "also"))

        async def who(self, ctxt: Context) -> str:
            return "base"

    class Second:
        target = Target(version="1.3")

        async def who(self, ctxt: Context) -> str:
            return "second"

        async def only(self, ctxt: Context) -> str:
            return "only"

    async with net() as at:
        await serve(at, Old(), Other(), Second())
        client = RPCClient(at.client(), TOPIC)
        assert await client.call(CTXT, "who") == "old"
        assert await client.call(CTXT, "only") == "only"
        assert await client.prepare(version="1.2").call(CTXT, "who") == "second"
        for namespace in ("base", "before", "also"):
            assert await client.prepare(namespace=namespace, version="1.1").call(CTXT, "who") == "base"
        with pytest.raises(NoSuchMethod):
            await client.prepare(namespace="base").call(CTXT, "only")
        with pytest.raises(UnsupportedVersion):
            await client.prepare(namespace="unknown").call(CTXT, "who")


@pytest.mark.parametrize(
    ("policy", "reached"),
    [
        (DefaultRPCAccessPolicy, {"echo", "shown"}),
        (LegacyRPCAccessPolicy, {"echo", "shown", "_hidden"}),
        (ExplicitRPCAccessPolicy, {"shown"}),
    ],
)
async def test_a_policy_says_what_the_bus_can_reach(policy: type[DefaultRPCAccessPolicy], reached: set[str]) -> None:
    async with net() as at:
        await serve(at, Compute(), access_policy=policy)
        client = RPCClient(at.client(), Target(topic="t", version="6.5"))
        found = set()
        for method in ("echo", "shown", "_hidden", "_blocking", "__init__", "word", "load", "target", "nope"):
            try:
                await client.call(CTXT, method, **({"x": 1} if method == "echo" else {}))
            except NoSuchMethod as exc:
                assert str(exc) == f"Endpoint does not support RPC method {method}"  # noqa: PT017  # one of many
            else:
                found.add(method)
        assert found == reached


async def test_a_blocking_method_is_refused_at_the_start_by_name() -> None:
    class Blocking:
        async def fine(self, ctxt: Context) -> None: ...

        def build(self, ctxt: Context) -> None: ...

        @staticmethod
        def check(ctxt: Context) -> None: ...

    async with net() as at:
        with pytest.raises(TypeError, match=r"Blocking: build, check can be called from the bus and would block .* `async def`"):
            await serve(at, Blocking())
        await serve(at, Blocking(), access_policy=ExplicitRPCAccessPolicy)


async def test_a_target_that_is_none_is_refused() -> None:
    class Odd:
        target = "compute"

    async with net() as at:
        with pytest.raises(TypeError, match=r"Odd\.target is a str; wanted: common\.rpc\.oslo\.Target"):
            await serve(at, Odd())
        for target in (Target(topic="t"), Target(server="h1")):
            with pytest.raises(InvalidTarget, match="a server needs a topic and a server's name"):
                get_rpc_server(at.transport(), target, [Compute()])
        client = RPCClient(at.client(), Target(version="1.0"))
        with pytest.raises(InvalidTarget, match="a topic is needed to send"):
            await client.call(CTXT, "echo", x=1)
        with pytest.raises(InvalidTarget, match="a call wants one answer"):
            await client.prepare(topic="t", fanout=True).call(CTXT, "echo", x=1)
        with pytest.raises(ValueError, match="'six' is not a version"):
            client.prepare(version="six")
        with pytest.raises(InvalidTarget, match="'x' is not a version"):
            client.prepare(version_cap="x")
        with pytest.raises(ValueError, match="timeout is 0; wanted: seconds above 0"):
            client.prepare(timeout=0)


async def test_wrong_arguments_are_told_and_the_method_is_not_run() -> None:
    async with net() as at:
        compute = Compute()
        await serve(at, compute)
        client = RPCClient(at.client(), Target(topic="t", version="6.5"))
        for arguments, reason in (({}, "missing a required"), ({"x": 1, "y": 2}, "'y'")):
            with pytest.raises(Fault, match=f"echo: .*{reason}"):
                await client.call(CTXT, "echo", **arguments)
        assert compute.seen == []


async def test_what_an_endpoint_raises_reaches_its_caller_under_its_name() -> None:
    async with net() as at:
        await serve(at, Compute())
        client = RPCClient(at.client(), Target(topic="t", version="6.5"))
        with pytest.raises(InstanceNotFound, match=r"Instance i-1 could not be found\."):
            await client.call(CTXT, "find")
        with pytest.raises(RemoteError, match="Remote error: ValueError bad") as failed:
            await client.call(CTXT, "fail")
        assert (failed.value.exc_type, failed.value.value) == ("ValueError", "bad")
        with pytest.raises(RemoteError) as failed:
            await client.call(CTXT, "expect")
        assert failed.value.exc_type == "KeyError"
        with_builtins = RPCClient(at.client(options=RpcOptions(allowed_remote_exmods=("builtins",))), client.target)
        with pytest.raises(ValueError, match="bad"):
            await with_builtins.call(CTXT, "fail")


async def test_an_exception_nobody_expected_is_logged_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    async with net() as at:
        await serve(at, Compute())
        client = RPCClient(at.client(), Target(topic="t", version="6.5"))
        for method, is_logged in (("expect", False), ("find", False), ("fail", True)):
            with pytest.raises(Fault):
                await client.call(CTXT, method)
            said = capsys.readouterr()
            assert ("Traceback" in said.out + said.err) is is_logged, method


async def test_a_cast_that_fails_is_begun_once_and_kept_as_a_dead_letter() -> None:
    class Fails:
        begun = 0

        async def note(self, ctxt: Context) -> None:
            self.begun += 1
            raise ValueError("bad")

    async with net() as at:
        fails = Fails()
        await serve(at, fails)
        await RPCClient(at.client(), TOPIC).cast(CTXT, "note")
        dead = DeadLetters(at.transport(), "t")
        async with asyncio.timeout(10):
            while not (found := await dead.all(2)):
                await at.clock.sleep(0)
        assert (fails.begun, [letter.error for letter in found]) == (1, ["ValueError"])


async def test_a_version_above_the_cap_is_not_sent() -> None:
    async with net() as at:
        compute = Compute()
        await serve(at, compute)
        capped = RPCClient(at.client(), Target(topic="t", version="6.0"), version_cap="6.2")
        assert (capped.can_send_version(), capped.can_send_version("6.2"), capped.can_send_version("6.3")) == (True, True, False)
        await capped.call(CTXT, "echo", x=1)
        with pytest.raises(RPCVersionCapError, match=r"Requested message version, 6\.3 is incompatible"):
            await capped.prepare(version="6.3").call(CTXT, "echo", x=1)
        with pytest.raises(RPCVersionCapError):
            await capped.prepare(version="7.0").cast(CTXT, "note", word="w")
        with pytest.raises(RPCVersionCapError, match="none is incompatible"):
            await capped.prepare(version=None).call(CTXT, "echo", x=1)
        assert len(compute.seen) == 1
        assert capped.prepare(version_cap=None).can_send_version("7.0")


async def test_nobody_and_silence_have_oslos_names() -> None:
    class Slow:
        async def wait(self, ctxt: Context) -> None:
            await asyncio.Event().wait()

    async with net() as at:
        client = RPCClient(at.client(), TOPIC, timeout=0.05)
        with pytest.raises(MessageUndeliverable, match="Nobody listens on t"):
            await client.call(CTXT, "wait")
        with pytest.raises(MessageUndeliverable):
            await client.prepare(server="h9").cast(CTXT, "wait")
        await serve(at, Slow())
        with pytest.raises(MessagingTimeout, match=r"wait on t gave no answer within 0\.05 s"):
            await client.call(CTXT, "wait")
    assert issubclass(MessagingTimeout, Fault)
    assert issubclass(MessageDeliveryFailure, Fault)


async def test_a_context_may_be_a_dict_a_context_or_an_object_with_to_dict() -> None:
    class RequestContext:
        def to_dict(self) -> dict[str, Any]:
            return {"user_id": "u3", "project_domain": "d"}

    async with net() as at:
        compute = Compute()
        await serve(at, compute)
        client = RPCClient(at.client(), Target(topic="t", version="6.5"))
        for ctxt in ({"user_id": "u1"}, Context(user_id="u2"), RequestContext()):
            await client.call(ctxt, "echo", x=1)
        assert [ctxt.user_id for ctxt in compute.seen] == ["u1", "u2", "u3"]
        assert compute.seen[2].others == {"project_domain": "d"}
        with pytest.raises(TypeError, match="the context is a str; wanted: a mapping, a Context, or an object with"):
            await client.call("req-1", "echo", x=1)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


class Points(NoOpSerializer):
    """Points as numbers, and a context of the service's own."""

    def serialize_entity(self, ctxt: Any, entity: Any) -> Any:
        return {"point": entity.x, "by": who(ctxt)} if isinstance(entity, Point) else entity

    def deserialize_entity(self, ctxt: Any, entity: Any) -> Any:
        return Point(entity["point"]) if isinstance(entity, Mapping) and "point" in entity else entity

    def serialize_context(self, ctxt: Any) -> Any:
        return {"user_id": ctxt.name}

    def deserialize_context(self, ctxt: Mapping[str, Any]) -> Any:
        return Caller(ctxt["user_id"])


class Caller:
    def __init__(self, name: str) -> None:
        self.name = name


def who(ctxt: Any) -> str:
    return str(ctxt.name)


async def test_a_serializer_turns_arguments_result_and_context_both_ways() -> None:
    class Moves:
        async def move(self, ctxt: Any, point: Point) -> Point:
            assert isinstance(ctxt, Caller)
            assert isinstance(point, Point)
            return Point(point.x + len(ctxt.name))

    async with net() as at:
        await serve(at, Moves(), serializer=Points())
        client = RPCClient(at.client(), TOPIC, serializer=Points())
        moved = await client.call(Caller("ann"), "move", point=Point(4))
        assert isinstance(moved, Point)
        assert moved.x == 7


async def test_a_serializer_that_makes_no_context_leaves_ours_with_its_deadline() -> None:
    class Louder(NoOpSerializer):
        def deserialize_context(self, ctxt: Mapping[str, Any]) -> Any:
            return {**ctxt, "user_id": ctxt["user_id"].upper()}

    async with net() as at:
        compute = Compute()
        await serve(at, compute, serializer=Louder())
        await RPCClient(at.client(), Target(topic="t", version="6.5")).call(CTXT, "echo", x=1)
        assert compute.seen[0].user_id == "U1"
        assert compute.seen[0].deadline is not None
        assert compute.seen[0].message_id is not None


class GreetAPI(Contract, Protocol, topic="t", version="2.0"):
    @call()
    async def greet(self, ctx: Context, *, name: str) -> str: ...

    @call(once=True)
    async def greet_once(self, ctx: Context, *, name: str) -> str: ...


class Greets(GreetAPI):
    async def greet(self, ctx: Context, *, name: str) -> str:
        return f"hello {name}"

    async def greet_once(self, ctx: Context, *, name: str) -> str:
        return f"once {name}"


async def test_both_doors_meet_on_one_server() -> None:
    async with net() as at:
        await serve(at, Compute(), Greets())
        rpc: RpcClient = at.client()
        assert await GreetAPI.over(rpc).on("h1").greet(Context(), name="ann") == "hello ann"
        assert await RPCClient(rpc, Target(topic="t", version="2.0")).call(CTXT, "greet", name="bob") == "hello bob"
        assert await RPCClient(rpc, Target(topic="t", version="6.5")).call(CTXT, "echo", x=1) == [1, 0]


async def test_ping_is_answered_where_the_option_says_so() -> None:
    async with net(options=RpcOptions(ping_enabled=True)) as at:
        await serve(at, Compute())
        assert await RPCClient(at.client(), TOPIC).call(CTXT, "oslo_rpc_server_ping") == "pong"


class Patience(MemoryTransport):
    """Notes how long each publish may take."""

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__(bus)
        self.waits_s: list[float] = []

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        self.waits_s.append(timeout_s)
        await super().publish(message, timeout_s=timeout_s)


@pytest.mark.parametrize(("retry", "wait_s"), [(None, 7), (-1, 7), (0, 1), (1, 2), (2, 5), (9, 7)])
async def test_retry_limits_how_long_publishing_waits_for_the_bus(retry: int | None, wait_s: float) -> None:
    async with net() as at:
        await serve(at, Compute())
        patience = Patience(at.bus)
        rpc = await at.stack.enter_async_context(session.client(patience, clock=at.clock, options=at.options))
        client = RPCClient(rpc, Target(topic="t", version="6.5"), timeout=7, retry=retry)
        await client.call(CTXT, "echo", x=1)
        await client.cast(CTXT, "note", word="w")
        assert patience.waits_s == pytest.approx([wait_s, wait_s], abs=0.5)


@pytest.mark.parametrize(("ack", "is_left"), [(Ack.LATE, True), (Ack.EARLY, False)])
async def test_a_cast_survives_its_server_unless_it_is_acked_early(ack: Ack, *, is_left: bool) -> None:
    begun = asyncio.Event()

    class Slow:
        async def work(self, ctxt: Context) -> None:
            begun.set()
            await asyncio.Event().wait()

    async with net() as at:
        transport = at.transport()
        server = get_rpc_server(transport, Target(topic="t", server="h1"), [Slow()], ack=ack, grace_s=0, clock=at.clock)
        async with server:
            await RPCClient(at.client(), TOPIC).cast(CTXT, "work")
            await begun.wait()
            await transport.close()
            assert (await at.transport().get("t") is not None) is is_left


async def test_an_exchange_of_the_target_is_where_server_and_client_meet() -> None:
    async with net() as at:
        await serve(at, Compute(), exchange="nova")
        client = RPCClient(at.client(), Target(topic="t", version="6.5", exchange="nova"))
        assert await client.call(CTXT, "echo", x=1) == [1, 0]
        with pytest.raises(MessageUndeliverable, match=r"exchange openstack"):
            await client.prepare(exchange=None).call(CTXT, "echo", x=1)


async def test_a_monitored_call_to_a_silent_server_is_given_up_before_its_timeout() -> None:
    async with net() as at:
        await at.transport().declare(topic_queue(at.options, exchange=None, key="t"))  # it waits there, and nobody is at work
        client = RPCClient(at.client(), TOPIC, timeout=3600, call_monitor_timeout=0.05)
        with pytest.raises(MessagingTimeout, match=r"no sign of life"):
            await client.call(CTXT, "wait")


async def test_a_contract_beside_plain_endpoints_shares_the_inbox_that_is_given() -> None:
    async with net() as at:
        inbox = MemoryInbox(at.clock)
        await serve(at, Compute(), Greets(), inbox=inbox)
        client = RPCClient(at.client(), TOPIC)
        assert await client.prepare(version="2.0").call(CTXT, "greet_once", name="ann") == "once ann"
        await client.prepare(version="6.5").call(CTXT, "echo", x=1)
        (row,) = inbox._rows.values()
        assert row.owner.startswith("t.h1:")
        assert row.answer is not None
