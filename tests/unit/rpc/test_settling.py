"""What becomes of each delivery, and of calls and servers at their limits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from common.base.context import Context
from common.base.errors import Invalid, Timeout, Unavailable
from common.base.limits import MESSAGE_BYTES_MAX
from common.host.clock import SystemClock
from common.rpc.client import RpcClient
from common.rpc.contract import Contract, call, cast
from common.rpc.counts import Event
from common.rpc.dead_letters import DeadLetters
from common.rpc.options import RpcOptions
from common.rpc.server import RpcServer
from common.testing.clock import JumpingClock
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import BusUnavailable, Consumer, Delivery, Message, Queue
from common.wire.caller import TooManyCalls
from common.wire.messages import Request, encode_request
from tests.unit.rpc.given import Given

CLOCK = SystemClock()
OPTIONS = RpcOptions()


class TellAPI(Contract, Protocol, topic="tells", version="1.0"):
    @call()
    async def ask(self, ctx: Context) -> str: ...

    @cast()
    async def tell(self, ctx: Context) -> None: ...


@dataclass
class Tells(TellAPI):
    fault: Exception | None = None
    well_after: int = 10**9
    told: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, ctx: Context) -> str:
        self.begun.set()
        await self.gate.wait()
        await self.tell(ctx)
        return "yes"

    async def tell(self, ctx: Context) -> None:
        self.told += 1
        if self.fault is not None and self.told <= self.well_after:
            raise self.fault


def server_of(transport: MemoryTransport, tells: Tells) -> RpcServer:
    clock = JumpingClock(jumps=True)
    return RpcServer(transport, [tells], topic="tells", server="h", exchange=None, options=OPTIONS, clock=clock, grace_s=5)


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    made = MemoryTransport(MemoryBus(CLOCK))
    yield made
    await made.close()


async def settled(server: RpcServer, delivery: Given) -> str:
    server._on_delivery(delivery)
    _, late = await asyncio.wait(server._running, timeout=10)
    assert not late
    return delivery.settled


async def test_what_is_no_message_is_kept_for_a_person_unless_it_is_too_large(transport: MemoryTransport) -> None:
    server = server_of(transport, Tells())
    assert await settled(server, Given(b"\xff")) == "acked"
    assert await settled(server, Given(bytes(MESSAGE_BYTES_MAX + 1))) == "dropped"
    (letter,) = await DeadLetters(transport, "tells").all(10)
    assert (letter.error, letter.body, letter.request) == ("NotAMessage", b"\xff", None)
    assert {(event, reason): number for event, reason, number in server.counts} == {
        (Event.REFUSED, "json"): 1,
        (Event.REFUSED, "size"): 1,
        (Event.DEAD_LETTER, "NotAMessage"): 1,
    }


@pytest.mark.parametrize(("fault", "tries"), [(Invalid(reason="x"), 1), (ZeroDivisionError(), OPTIONS.delivery_limit)])
async def test_a_cast_that_fails_for_good_is_kept_with_its_reason_and_a_bug_only_after_several_tries(
    transport: MemoryTransport, fault: Exception, tries: int
) -> None:
    body = encode_request(Request("tell", {}, unique_id="u", version="1.0"))
    tells = Tells(fault)
    assert await settled(server_of(transport, tells), Given(body)) == "acked"
    (letter,) = await DeadLetters(transport, "tells").all(10)
    assert (letter.id, letter.attempts, tells.told, letter.server) == ("u", tries, tries, "tells.h")
    assert letter.reason == ("The request is not valid: x" if tries == 1 else letter.reason)


@pytest.mark.parametrize("fault", [Unavailable(what="database", reason="away"), Timeout(what="database", timeout_s=1)])
async def test_a_cast_that_may_succeed_later_is_tried_until_it_does(transport: MemoryTransport, fault: Exception) -> None:
    body = encode_request(Request("tell", {}, unique_id="u", version="1.0"))
    tells = Tells(fault, well_after=20)
    assert await settled(server_of(transport, tells), Given(body)) == "acked"
    assert tells.told == 21
    assert await DeadLetters(transport, "tells").all(10) == []


class Teller(MemoryTransport):
    """Remembers how a delivery stood when something was published."""

    def __init__(self, given: Given) -> None:
        super().__init__(MemoryBus(CLOCK))
        self._given = given
        self.said: list[str] = []

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        self.said.append(self._given.settled or "not settled")


@pytest.mark.parametrize(
    ("fault", "is_lost", "said"),
    [
        (Invalid(reason="x"), False, ["acked"]),
        (Invalid(reason="x"), True, []),
        (Unavailable(what="database", reason="away"), False, ["not settled"]),
        (None, False, ["not settled"]),
    ],
)
async def test_only_a_refusal_is_acked_before_it_is_told_and_is_not_told_when_it_cannot_be(
    fault: Exception | None, is_lost: bool, said: list[str]
) -> None:
    """Told first, it would be done all the same by the next server, if this one died before its ack."""
    given = Given(encode_request(Request("ask", {}, unique_id="u", msg_id="m", reply_q="reply_r", version="1.0")), is_lost=is_lost)
    tells, transport = Tells(fault), Teller(given)
    tells.gate.set()
    assert await settled(server_of(transport, tells), given) == ("" if is_lost else "acked")
    assert transport.said == said


async def test_a_drain_gives_a_cast_that_waits_for_its_next_try_back_at_once(transport: MemoryTransport) -> None:
    tells = Tells(Unavailable(what="database", reason="away"))
    server = RpcServer(transport, [tells], topic="tells", server="h", exchange=None, options=OPTIONS, clock=CLOCK, grace_s=60)
    given = Given(encode_request(Request("tell", {}, unique_id="u", version="1.0")))
    async with asyncio.timeout(10):
        server._on_delivery(given)
        for _ in range(20):
            await asyncio.sleep(0)
        await server.drain()
    assert given.settled == "given back"


async def test_a_call_that_may_succeed_later_is_its_caller_s_to_repeat(transport: MemoryTransport) -> None:
    tells = Tells(Unavailable(what="database", reason="away"))
    tells.gate.set()
    async with server_of(transport, tells):
        rpc = RpcClient(transport, options=OPTIONS, clock=CLOCK)
        with pytest.raises(Unavailable, match="database is not available: away") as found:
            await TellAPI.over(rpc).ask(Context())
        assert found.value.is_remote
        await rpc.close()


async def test_a_call_whose_caller_is_gone_is_done_with(transport: MemoryTransport) -> None:
    tells = Tells()
    tells.gate.set()
    body = encode_request(Request("ask", {}, unique_id="u", version="1.0", msg_id="m", reply_q="reply_gone"))
    async with asyncio.timeout(10):
        assert await settled(server_of(transport, tells), Given(body)) == "acked"


async def test_a_request_whose_connection_is_gone_ends_without_an_error(transport: MemoryTransport) -> None:
    body = encode_request(Request("tell", {}, unique_id="u", version="1.0"))
    assert await settled(server_of(transport, Tells()), Given(body, is_lost=True)) == ""


async def test_a_server_that_is_left_answers_first_what_it_has_begun() -> None:
    bus = MemoryBus(CLOCK)
    transport, tells = MemoryTransport(bus), Tells()
    rpc = RpcClient(MemoryTransport(bus), options=OPTIONS, clock=CLOCK)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        async with server_of(transport, tells):
            answer = group.create_task(TellAPI.over(rpc).ask(Context()))
            await tells.begun.wait()
            asyncio.get_running_loop().call_soon(tells.gate.set)
        await transport.close()
    assert answer.result() == "yes"
    await rpc.close()


class TwoQueues(MemoryTransport):
    """A bus that refuses the third queue."""

    left = 2

    async def consume(
        self, queue: Queue, *, prefetch: int, on_delivery: Callable[[Delivery], None], on_remade: Callable[[], None] | None = None
    ) -> Any:
        if not self.left:
            raise BusUnavailable(url="test", reason="no more queues")
        self.left -= 1
        consumer: Consumer = await super().consume(queue, prefetch=prefetch, on_delivery=on_delivery, on_remade=on_remade)
        return consumer


async def test_a_server_that_cannot_open_all_its_queues_takes_from_none() -> None:
    bus = MemoryBus(CLOCK)
    transport = TwoQueues(bus)
    with pytest.raises(BusUnavailable, match="no more queues"):
        await server_of(transport, Tells()).__aenter__()
    assert (bus.consumers("tells"), bus.consumers("tells.h")) == (0, 0)
    await transport.close()


async def test_one_call_more_than_the_limit_is_refused_at_once_and_a_later_one_is_not(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.rpc.client.CALLS_IN_FLIGHT_MAX", 2)
    tells = Tells()
    async with server_of(transport, tells), asyncio.timeout(10):
        rpc = RpcClient(transport, options=OPTIONS, clock=CLOCK)
        client = TellAPI.over(rpc)
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(client.ask(Context()))
            await tells.begun.wait()
            with pytest.raises(TooManyCalls, match="2 calls in flight"):
                await client.ask(Context())
            tells.gate.set()
        assert await client.ask(Context()) == "yes"
        await rpc.close()
