"""Callers that leave, callers that wait, and their servers."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from common.base.context import Context
from common.base.errors import Timeout
from common.rpc.contract import Contract, call
from common.rpc.counts import Event
from common.rpc.topology import server_queues
from common.transport.port import Message, Queue
from common.wire.messages import Reply, Request, cancellation, decode_reply, decode_request, encode_reply, encode_request
from tests.unit.rpc.given import Given
from tests.unit.rpc.net import net, until


class SlowAPI(Contract, Protocol, topic="slow", version="1.0"):
    @call()
    async def work(self, ctx: Context, *, word: str = "") -> str: ...

    @call(monitor_s=30)
    async def watched(self, ctx: Context) -> str: ...


@dataclass
class Slow(SlowAPI):
    begun: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    onward: SlowAPI | None = None

    async def work(self, ctx: Context, *, word: str = "") -> str:
        self.begun.append(word)
        try:
            if self.onward is not None:
                return await self.onward.work(ctx, word=word)
            await self.gate.wait()
        except asyncio.CancelledError:
            self.ended.append(f"{word} cancelled")
            raise
        self.ended.append(word)
        return word

    async def watched(self, ctx: Context) -> str:
        await self.gate.wait()
        return "seen"


async def test_a_caller_that_is_cancelled_cancels_its_handler_and_that_of_the_nested_call() -> None:
    async with net() as made:
        last, first = Slow(), Slow()
        await made.serve(last, server="last")
        first.onward = SlowAPI.over(made.client()).on("last")
        server = await made.serve(first, server="first")
        caller = asyncio.ensure_future(SlowAPI.over(made.client()).on("first").work(Context(), word="w"))
        await until(lambda: bool(last.begun))
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await until(lambda: bool(last.ended) and bool(first.ended))
        assert (first.ended, last.ended) == (["w cancelled"], ["w cancelled"])
        assert server.counts.of(Event.CANCELLED) == 1
        first.onward = None
        first.gate.set()
        assert await SlowAPI.over(made.client()).on("first").work(Context(), word="next") == "next"


async def test_a_call_whose_caller_left_while_it_waited_is_not_begun() -> None:
    async with net() as made:
        slow = Slow()
        client = made.client()
        transport = made.transport()
        held: list[bytes] = []
        queue = (await made.serve(slow))._queues[1]
        async with asyncio.timeout(5):
            caller = asyncio.ensure_future(SlowAPI.over(client).work(Context(), word="gone"))
            await until(lambda: slow.begun == ["gone"])
            held.append(encode_request(Request("work", {"word": "late"}, "u", msg_id="m", reply_q="reply_x", deadline_s=60)))

            server = await made.serve(Slow(), server="other")
            server._on_delivery(Given(cancellation("m", unique_id="c")))
            given = Given(held[0])
            server._on_delivery(given)
            await until(lambda: given.settled != "")
            caller.cancel()
        assert given.settled == "acked"
        assert server.counts.of(Event.CANCELLED) == 1
        assert queue.name == "slow.h1"
        await transport.close()


async def test_the_handler_of_a_call_ends_with_its_caller_s_deadline() -> None:
    async with net() as made:
        slow = Slow()
        server = await made.serve(slow)
        with pytest.raises(Timeout):
            await SlowAPI.over(made.client()).within(0.05).work(Context(), word="w")
        await until(lambda: bool(slow.ended))
        assert slow.ended == ["w cancelled"]
        assert server.counts.of(Event.EXPIRED) + server.counts.of(Event.CANCELLED) >= 1


async def test_a_drain_gives_a_call_back_though_its_caller_never_left() -> None:
    async with net() as made:
        first, second = Slow(), Slow()
        server = await made.serve(first, server="one", grace_s=0.01)
        caller = asyncio.ensure_future(SlowAPI.over(made.client()).work(Context(), word="w"))
        await until(lambda: bool(first.begun))
        second.gate.set()
        await made.serve(second, server="two")
        await server.drain()
        assert await caller == "w"
        assert (first.ended, second.ended) == (["w cancelled"], ["w"])


async def test_a_monitored_call_lives_as_long_as_its_server_gives_signs_of_life() -> None:
    async with net() as made:
        slow = Slow()
        await made.serve(slow)
        transport = made.transport()
        seen: list[Reply] = []

        await transport.consume(
            Queue("reply_m"), prefetch=10, on_delivery=lambda delivery: seen.append(decode_reply(delivery.body))
        )
        body = encode_request(Request("watched", {}, "u", version="1.0", msg_id="m", reply_q="reply_m", monitor_timeout_s=0.2))
        await transport.publish(Message(None, "slow", body), timeout_s=5)
        await until(lambda: len(seen) >= 3)
        assert all((reply.ending, reply.result, reply.failure) == (False, None, None) for reply in seen)
        slow.gate.set()
        await until(lambda: seen[-1].ending)
        assert seen[-1].result == "seen"
        client = SlowAPI.over(made.client()).monitored(0.3)
        assert await client.watched(Context()) == "seen"


async def test_a_caller_that_did_not_ask_gets_no_signs_of_life() -> None:
    async with net() as made:
        slow = Slow()
        server = await made.serve(slow)
        given = Given(
            encode_request(Request("work", {}, "u", version="1.0", msg_id="m", reply_q="reply_m", monitor_timeout_s=None))
        )
        server._on_delivery(given)
        await until(lambda: bool(slow.begun))
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not any(name.startswith("beats") for name in names)
        slow.gate.set()
        await until(lambda: given.settled != "")


async def test_a_monitored_call_ends_when_its_server_is_silent_though_its_timeout_is_far() -> None:
    async with net() as made:
        client = made.client()
        asked = asyncio.Event()
        transport = made.transport()

        requests: list[Request] = []

        def on_delivery(delivery: object) -> None:
            requests.append(decode_request(delivery.body))  # type: ignore[attr-defined]
            asked.set()

        shared, *_ = server_queues(made.options, exchange=None, topic="slow", server="mute")
        await transport.consume(shared, prefetch=5, on_delivery=on_delivery)
        with pytest.raises(Timeout, match="no sign of life"):
            await SlowAPI.over(client).within(600).monitored(0.05).watched(Context())
        assert requests[0].monitor_timeout_s == 0.05


async def test_a_reply_in_two_parts_is_one_reply() -> None:
    async with net() as made:
        transport = made.transport()

        shared, *_ = server_queues(made.options, exchange=None, topic="slow", server="old")
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []

        def on_delivery(delivery: object) -> None:
            request = decode_request(delivery.body)  # type: ignore[attr-defined]
            tasks.append(loop.create_task(answer(request)))

        async def answer(request: Request) -> None:
            for reply in (Reply(request.msg_id or "", result="half", ending=False), Reply(request.msg_id or "", ending=True)):
                await transport.publish(Message(None, request.reply_q or "", encode_reply(reply)), timeout_s=5)

        await transport.consume(shared, prefetch=5, on_delivery=on_delivery)
        assert await SlowAPI.over(made.client()).work(Context()) == "half"


async def test_a_reply_that_comes_too_late_is_counted() -> None:
    async with net() as made:
        client = made.client()
        await made.serve(Slow(gate=_open()))
        await SlowAPI.over(client).work(Context())
        await made.transport().publish(Message(None, client._reply_queue.name, encode_reply(Reply("nobody"))), timeout_s=5)
        await until(lambda: client.counts.of(Event.REPLY_ORPHAN) == 1)


def _open() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate
