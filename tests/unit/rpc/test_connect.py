"""The public face: `common.rpc`, and `connect`, which opens a bus, serves and calls."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import pytest

import common.rpc
from common.base.errors import Misconfigured
from common.host.clock import SystemClock
from common.rpc import Context, Contract, Fault, NobodyListens, RpcOptions, Serving, call, cast, connect
from common.rpc.counts import Counts, Event
from common.rpc.middleware import Incoming, Outgoing
from common.rpc.oslo import RPCClient, Target
from common.testing.clock import JumpingClock
from common.testing.inbox import MemoryInbox
from common.transport.memory import MemoryBuses
from common.transport.port import Message
from tests.unit.rpc.net import until

BUS = "memory://connect"


class GreetAPI(Contract, Protocol, topic="greet", version="1.0"):
    @call()
    async def greet(self, ctx: Context, *, name: str) -> str: ...

    @cast()
    async def note(self, ctx: Context, *, word: str) -> None: ...


class ByeAPI(Contract, Protocol, topic="greet", version="1.0", namespace="bye"):
    @call()
    async def bye(self, ctx: Context) -> str: ...

    @call(once=True)
    async def bye_once(self, ctx: Context) -> str: ...


class Greets(GreetAPI):
    def __init__(self, word: str = "hello") -> None:
        self.word = word
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.notes: list[str] = []

    async def greet(self, ctx: Context, *, name: str) -> str:
        return f"{self.word} {name}"

    async def note(self, ctx: Context, *, word: str) -> None:
        self.begun.set()
        await self.gate.wait()
        self.notes.append(word)


class Byes(ByeAPI):
    async def bye(self, ctx: Context) -> str:
        return "bye"

    async def bye_once(self, ctx: Context) -> str:
        return "bye"


async def test_connects_of_one_process_meet_on_a_bus_in_memory() -> None:
    async with connect(BUS, serving=[Greets(), Byes()], host="h1"), connect(BUS) as rpc:
        assert await GreetAPI.over(rpc).on("h1").greet(Context(), name="ann") == "hello ann"
        assert await ByeAPI.over(rpc).on("h1").bye(Context()) == "bye"
        async with connect("memory://another") as elsewhere:
            with pytest.raises(NobodyListens):
                await GreetAPI.over(elsewhere).greet(Context(), name="ann")


async def test_contracts_of_one_topic_share_one_server() -> None:
    async with connect(BUS, serving=[Greets(), Byes()], host="h1") as rpc:
        assert await rpc.transport.consumers("greet") == 1
        assert await rpc.transport.consumers("greet.h1") == 1


async def test_a_server_may_have_another_topic_and_name() -> None:
    async with connect(BUS, serving=[Greets(), Serving([Greets("hi")], "h9", topic="greet.more")], host="h1") as rpc:
        greet = GreetAPI.over(rpc)
        assert await greet.greet(Context(), name="ann") == "hello ann"
        assert await greet.on("h9", topic="greet.more").greet(Context(), name="ann") == "hi ann"


async def test_the_end_of_the_block_drains_and_leaves_nobody_listening() -> None:
    greets = Greets()
    async with connect(BUS) as rpc:
        async with connect(BUS, serving=[greets], host="h1"):
            await GreetAPI.over(rpc).note(Context(), word="drained")
            await greets.begun.wait()
            asyncio.get_running_loop().call_soon(greets.gate.set)
        assert greets.notes == ["drained"]
        assert await rpc.transport.consumers("greet") == 0


async def test_options_and_own_buses_are_used() -> None:
    clock = JumpingClock()
    options = RpcOptions(ping_enabled=True)
    mine = connect(BUS, serving=[Greets()], host="h1", options=options, buses=MemoryBuses(clock), clock=clock)
    async with mine as rpc, connect(BUS) as other:
        assert await RPCClient(rpc, Target(topic="greet")).call({}, "oslo_rpc_server_ping") == "pong"
        with pytest.raises(NobodyListens):
            await GreetAPI.over(other).greet(Context(), name="ann")


async def test_middleware_counts_and_inbox_reach_client_and_servers() -> None:
    seen: list[str] = []

    async def around_client(request: Outgoing, proceed: Callable[[Outgoing], Awaitable[Any]]) -> Any:
        seen.append(f"out {request.method.name}")
        return await proceed(request)

    async def around_server(request: Incoming, proceed: Callable[[Incoming], Awaitable[Any]]) -> Any:
        seen.append(f"in {request.method.name}")
        return await proceed(request)

    counts, inbox = Counts(), MemoryInbox(SystemClock())
    async with connect(
        BUS, serving=[Byes()], host="h1", counts=counts, inbox=inbox,
        client_middleware=[around_client], server_middleware=[around_server],
    ) as rpc:  # fmt: skip
        assert await ByeAPI.over(rpc).bye_once(Context()) == "bye"
        with pytest.raises(Fault):
            await RPCClient(rpc, Target(topic="greet")).call({}, "nope")
        await rpc.transport.publish(Message(None, "greet", b"garbage"), timeout_s=1)
        await until(lambda: counts.of(Event.REFUSED) == 1)
        assert rpc.counts is counts
    assert seen == ["out bye_once", "in bye_once", "out nope"]
    assert len(inbox._rows) == 1


@pytest.mark.parametrize("url", ["rabbit", "amqps://user:secret@h/", "memory:/x"])
async def test_a_url_of_no_known_form_is_said_to_be_so(url: str) -> None:
    with pytest.raises(Misconfigured, match="is of no known form; known: memory://name") as wrong:
        async with connect(url):
            raise AssertionError("not reached")
    assert "secret" not in str(wrong.value)


async def test_what_implements_no_contract_is_refused_before_the_bus_is_asked() -> None:
    with pytest.raises(TypeError, match="object implements no contract"):
        async with connect("rabbit://127.0.0.1:1/", serving=[object()]):
            raise AssertionError("not reached")


HEAVY = {"aiormq", "aio_pika", "asyncio", "kombu", "sqlalchemy", "ssl", "structlog"}


def loaded(code: str, heavy: set[str] = HEAVY) -> set[str]:
    """Which of these a fresh interpreter has imported after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*({heavy} & set(sys.modules)))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def test_reading_contracts_imports_nothing_heavy() -> None:
    assert loaded("from common.rpc import Ack, Context, Contract, Fault, Timeout, call, cast") == set()


def test_a_bus_in_memory_imports_no_adapter() -> None:
    run = """
import asyncio
from common.rpc import connect
async def main():
    async with connect("memory://"):
        pass
asyncio.run(main())
"""
    assert not loaded(run) & {"aiormq", "aio_pika", "kombu", "sqlalchemy"}


SPARED = {
    "aio_pika", "bz2", "common.rpc.client", "common.rpc.server", "common.transport.memory", "email", "greenlet", "hashlib",
    "http.server", "kombu", "prometheus_client", "rich", "sqlalchemy", "urllib.request", "wsgiref",
}  # fmt: skip
"""What a process over `amqp://`, with logs and metrics, does not hold in memory; but for its own half of the RPC."""


@pytest.mark.parametrize(
    ("side", "half"),
    [
        ("client", "client(None, clock=None, options=RpcOptions())"),
        ("server", "serving(None, clock=None, options=None, grace_s=0)"),
    ],
)
def test_one_half_of_an_rpc_over_amqp_imports_what_it_needs(side: str, half: str) -> None:
    run = f"""
import asyncio
import common.transport.amqp, common.transport.url
from common.app.logs import configure_logs
from common.host.lean_metrics import CollectorRegistry
from common.rpc.metrics import ClientMetrics, ServerMetrics
from common.rpc.options import RpcOptions
from common.rpc.session import client, serving
async def main():
    ClientMetrics(CollectorRegistry(), clock=None), ServerMetrics(CollectorRegistry(), clock=None)
    async with {half}:
        pass
configure_logs(service="lean", host="h")
asyncio.run(main())
"""
    assert loaded(run, SPARED) == {f"common.rpc.{side}"}


def test_who_shows_metrics_finds_the_classes_of_those_who_hold_them() -> None:
    run = """
from common.host.lean_metrics import CollectorRegistry
from common.rpc.metrics import ClientMetrics
import prometheus_client, prometheus_client.registry
registry = prometheus_client.CollectorRegistry()
assert CollectorRegistry is prometheus_client.CollectorRegistry is prometheus_client.registry.CollectorRegistry
ClientMetrics(registry, clock=None)
assert b"lite_rpc_client_requests" in prometheus_client.generate_latest(registry)
"""
    assert loaded(run, {"prometheus_client"}) == {"prometheus_client"}


def test_every_public_name_is_there() -> None:
    for name in common.rpc.__all__:
        assert name in dir(common.rpc)
        assert getattr(common.rpc, name).__name__ == name
    with pytest.raises(AttributeError, match=r"module 'common\.rpc' has no attribute 'conect'"):
        _ = common.rpc.conect  # type: ignore[attr-defined]  # mypy knows as well
