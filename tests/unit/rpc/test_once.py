"""Exactly-once methods: repeated by their caller, executed once by all servers together, answered always."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from common.base.context import Context
from common.base.errors import Timeout
from common.base.retry import Retry
from common.rpc.client import RpcClient
from common.rpc.contract import Contract, call, cast
from common.rpc.counts import Event
from common.rpc.dead_letters import DeadLetters
from common.rpc.inbox import OutcomeUnknown
from common.rpc.server import RpcServer
from common.testing.clock import JumpingClock
from common.testing.inbox import MemoryInbox
from common.transport.port import Delivery, Queue
from common.wire.callee import Standing
from common.wire.failure import decode_failure
from common.wire.messages import Reply, Request, decode_reply, encode_request
from tests.unit.rpc.given import Given
from tests.unit.rpc.net import CLOCK, Net, net, until


class PayAPI(Contract, Protocol, topic="pay", version="1.0"):
    @call(once=True)
    async def pay(self, ctx: Context, *, amount: int) -> int: ...

    @call()
    async def look(self, ctx: Context, *, amount: int) -> int: ...

    @cast(once=True)
    async def book(self, ctx: Context) -> None: ...


@dataclass
class Till(PayAPI):
    paid: list[int] = field(default_factory=list)
    booked: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def pay(self, ctx: Context, *, amount: int) -> int:
        self.paid.append(amount)
        await self.gate.wait()
        return amount

    async def look(self, ctx: Context, *, amount: int) -> int:
        self.paid.append(amount)
        return amount

    async def book(self, ctx: Context) -> None:
        self.booked += 1


def request(method: str = "pay", **words: object) -> bytes:
    args = {"amount": 5} if method in {"pay", "look"} else {}
    call_words = {"msg_id": "m", "reply_q": "reply_r", "deadline_s": 60.0} if method != "book" else {}
    return encode_request(Request(method, args, "u", version="1.0", **{**call_words, **words}))  # type: ignore[arg-type]


async def replies(made: Net, name: str = "reply_r") -> list[Reply]:
    found: list[Reply] = []

    await made.transport().consume(Queue(name), prefetch=10, on_delivery=lambda given: found.append(decode_reply(given.body)))
    return found


async def test_a_repeated_request_gets_the_recorded_answer_and_is_not_executed_again() -> None:
    async with net() as made:
        till = Till()
        server = await made.serve(till)
        seen = await replies(made)
        for number in range(3):
            given = Given(request("look"))
            server._on_delivery(given)
            await until(lambda given=given: given.settled == "acked")  # type: ignore[misc]
            await until(lambda number=number: len(seen) == number + 1)  # type: ignore[misc]
        assert till.paid == [5]
        assert {reply.result for reply in seen} == {5}
        assert server.counts.of(Event.DUPLICATE) == 2


async def test_servers_that_share_an_inbox_execute_once_and_all_give_the_answer() -> None:
    async with net(clock=JumpingClock(jumps=True)) as made:
        till, inbox = Till(), MemoryInbox(made.clock)
        one = await made.serve(till, server="one", inbox=inbox)
        two = await made.serve(till, server="two", inbox=inbox)
        seen = await replies(made)
        first, copy = Given(request()), Given(request())
        one._on_delivery(first)
        await until(lambda: till.paid == [5])
        two._on_delivery(copy)
        till.gate.set()
        await until(lambda: copy.settled == "acked" and first.settled == "acked" and len(seen) == 2)
        assert till.paid == [5]
        assert [reply.result for reply in seen] == [5, 5]


async def test_when_the_server_that_began_it_died_the_caller_hears_that_nobody_knows() -> None:
    async with net() as made:
        inbox = MemoryInbox(made.clock, lease_s=0)
        assert (await inbox.begin("u", owner="pay.dead:boot1")).standing is Standing.NEW
        till = Till()
        server = await made.serve(till, inbox=inbox)
        seen = await replies(made)
        given = Given(request())
        server._on_delivery(given)
        await until(lambda: bool(seen))

        error = decode_failure(seen[0].failure or "")
        assert isinstance(error, OutcomeUnknown)
        assert "pay.dead died on the way" in str(error)
        assert not error.retryable
        assert till.paid == []


async def test_a_cast_whose_server_died_is_kept_for_a_person_and_not_executed_again() -> None:
    async with net() as made:
        inbox = MemoryInbox(made.clock, lease_s=0)
        await inbox.begin("u", owner="pay.dead:boot1")
        till = Till()
        server = await made.serve(till, inbox=inbox)
        given = Given(request("book"))
        server._on_delivery(given)
        await until(lambda: given.settled == "acked")
        (letter,) = await DeadLetters(made.transport(), "pay").all(10)
        assert (letter.error, till.booked) == ("OutcomeUnknown", 0)


async def test_a_request_of_an_ordinary_method_asks_no_inbox() -> None:
    async with net() as made:
        inbox = MemoryInbox(made.clock, lease_s=0)
        await inbox.begin("u", owner="pay.dead:boot1")
        till = Till()
        server = await made.serve(till, inbox=inbox)
        server._on_delivery(given := Given(request("look")))
        await until(lambda: given.settled == "acked")
        assert till.paid == [5]


class Deaf(RpcServer):
    """Loses the first `lost` requests, as a queue does that is deleted under its consumer."""

    lost = 2

    def _on_delivery(self, delivery: Delivery, queue: str = "") -> None:
        if self.lost:
            self.lost -= 1
            self._spawn(_drop(delivery))
            return
        super()._on_delivery(delivery, queue)


async def _drop(delivery: Delivery) -> None:
    await delivery.ack()


async def test_an_exactly_once_call_is_sent_again_until_it_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr("common.rpc.client._RESEND", Retry(first_delay_s=0.01, factor=1))
    async with net() as made:
        till = Till()
        till.gate.set()
        transport = made.transport()
        server = Deaf(transport, [till], topic="pay", server="h", exchange=None, options=made.options, clock=CLOCK, grace_s=0.1)
        await made.stack.enter_async_context(server)
        client: RpcClient = made.client()
        assert await PayAPI.over(client).within(20).pay(Context(), amount=7) == 7
        assert (till.paid, client.counts.of(Event.RESENT) >= 2) == ([7], True)


async def test_an_ordinary_call_is_never_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with net() as made:
        till = Till()
        transport = made.transport()
        server = Deaf(transport, [till], topic="pay", server="h", exchange=None, options=made.options, clock=CLOCK, grace_s=0.1)
        await made.stack.enter_async_context(server)
        client = made.client()
        with pytest.raises(Timeout):
            await PayAPI.over(client).within(0.1).look(Context(), amount=7)
        client._on_queue_lost()
        assert client.counts.of(Event.RESENT) == 0


async def test_a_client_whose_reply_queue_was_lost_repeats_its_calls_at_once() -> None:
    async with net() as made:
        till = Till()
        await made.serve(till)
        client = made.client()
        asked = asyncio.ensure_future(PayAPI.over(client).within(30).pay(Context(), amount=7))
        await until(lambda: till.paid == [7])
        await made.transport().delete_queue(client._reply_queue.name)
        await until(lambda: client.counts.of(Event.RESENT) == 1)
        till.gate.set()
        assert await asked == 7
        assert till.paid == [7]
