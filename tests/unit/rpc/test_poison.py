"""Messages that kill their servers, and the queue where they end."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from common.base.context import Context
from common.base.errors import Conflict
from common.base.limits import MESSAGE_BYTES_MAX
from common.rpc.contract import Contract, call, cast
from common.rpc.counts import Event
from common.rpc.dead_letters import ATTEMPTS, DeadLetters, Morgue, NoSuchDeadLetter, attempts_of
from common.rpc.options import RpcOptions
from common.rpc.server import PoisonMessage, RpcServer
from common.rpc.topology import server_queues
from common.transport.port import BusUnavailable, Message, Queue, Unroutable
from common.wire.compression import Compression, compressed
from common.wire.failure import decode_failure
from common.wire.messages import Reply, Request, decode_reply, encode_request
from tests.unit.rpc.given import Given
from tests.unit.rpc.net import Net, net, until


class JobAPI(Contract, Protocol, topic="jobs", version="1.1"):
    @cast()
    async def start(self, ctx: Context, *, name: str) -> None: ...

    @call()
    async def ask(self, ctx: Context) -> str: ...


@dataclass
class Jobs(JobAPI):
    started: list[str] = field(default_factory=list)
    fault: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, ctx: Context, *, name: str) -> None:
        self.started.append(name)
        if name == "hang":
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault

    async def ask(self, ctx: Context) -> str:
        self.started.append("ask")
        await self.gate.wait()
        return "yes"


@pytest.mark.parametrize(
    ("headers", "number"),
    [({}, 0), ({ATTEMPTS: 3}, 3), ({"x-delivery-count": 2}, 2), ({ATTEMPTS: 1, "x-delivery-count": 4}, 4)]
    + [({ATTEMPTS: value}, 0) for value in (-1, True, "3", None, 2.5)],
)
def test_attempts_are_read_from_our_header_or_the_broker_s(headers: dict[str, Any], number: int) -> None:
    assert attempts_of(headers) == number


async def test_a_message_whose_servers_die_again_and_again_is_begun_no_more_than_the_limit_allows() -> None:
    async with net(options=RpcOptions(deaths_limit=3)) as made:
        begun = 0
        await its_queue(made)
        await JobAPI.over(made.client()).start(Context(), name="hang")
        for _ in range(10):
            jobs = Jobs()
            transport = made.transport()

            server = RpcServer(transport, [jobs], topic="jobs", server="h", exchange=None, options=made.options, clock=made.clock)
            await server.__aenter__()
            await until(lambda jobs=jobs, made=made: bool(jobs.started) or made.bus.consumers("jobs") == 1)  # type: ignore[misc]
            for _ in range(50):
                await asyncio.sleep(0)
            begun += len(jobs.started)
            await transport.close()  # what a killed process leaves: the connection gone, nothing settled
            for task in server._running:
                task.cancel()
            await asyncio.gather(*server._running, return_exceptions=True)
        (letter,) = await DeadLetters(made.transport(), "jobs").all(10)
        assert begun == 3
        assert (letter.error, letter.attempts, letter.queue) == ("PoisonMessage", 3, "jobs")
        assert "begun 3 times and never ended" in letter.reason


async def its_queue(made: Net) -> None:

    shared, *_ = server_queues(made.options, exchange=None, topic="jobs", server="h")
    await made.transport().declare(shared)


async def test_a_call_that_kills_its_servers_ends_in_an_error_at_its_caller() -> None:
    async with net() as made:
        jobs = Jobs()
        server = await made.serve(jobs)
        seen: list[Reply] = []
        await made.transport().consume(Queue("reply_r"), prefetch=9, on_delivery=lambda d: seen.append(decode_reply(d.body)))
        body = encode_request(Request("ask", {}, "u", version="1.0", msg_id="m", reply_q="reply_r"))
        server._on_delivery(Given(body, headers={ATTEMPTS: 20}), "jobs")
        await until(lambda: bool(seen))
        assert isinstance(decode_failure(seen[0].failure or ""), PoisonMessage)
        assert jobs.started == []


@pytest.mark.parametrize("method", ["gzip", "bz2"])
async def test_a_compressed_request_is_served_and_a_bomb_is_refused(method: Compression) -> None:
    async with net() as made:
        jobs = Jobs()
        server = await made.serve(jobs)
        body, header = compressed(encode_request(Request("start", {"name": "x"}, "u", version="1.0")), method)
        given = Given(body, headers=header)
        server._on_delivery(given, "jobs")
        await until(lambda: given.settled == "acked")
        assert len(jobs.started) == 1
        body, header = compressed(bytes(MESSAGE_BYTES_MAX + 1), method)
        bomb = Given(body, headers=header)
        server._on_delivery(bomb, "jobs")
        await until(lambda: bomb.settled == "dropped")
        assert (Event.REFUSED, "size", 1) in server.counts


async def test_a_redelivered_message_is_counted_by_a_copy_that_carries_the_number() -> None:
    async with net() as made:
        jobs = Jobs()
        server = await made.serve(jobs)
        body = encode_request(Request("start", {"name": "x"}, "u", version="1.0"))
        given = Given(body, redelivered=True, headers={"traceparent": "t"})
        server._on_delivery(given, "jobs")
        await until(lambda: given.settled == "acked" and jobs.started == ["x"])
        assert server.counts.of(Event.REDELIVERED) == 1


async def test_a_message_that_the_broker_counts_itself_is_not_copied() -> None:
    async with net() as made:
        jobs = Jobs()
        server = await made.serve(jobs)
        body = encode_request(Request("start", {"name": "x"}, "u", version="1.0"))
        given = Given(body, redelivered=True, headers={"x-delivery-count": 2})
        server._on_delivery(given, "no-such-queue")
        await until(lambda: given.settled == "acked")
        assert jobs.started == ["x"]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Request("start", {"name": "x"}, "u", version="2.0"), "UnsupportedVersion"),
        (Request("start", {"name": "x"}, "u", version="1.2"), "UnsupportedVersion"),
        (Request("stop", {}, "u", version="1.0"), "NoSuchMethod"),
        (Request("start", {"nam": "x"}, "u", version="1.0"), "InvalidArguments"),
        (Request("start", {"name": 5}, "u", version="1.0"), "InvalidArguments"),
        (Request("start", {"name": "x"}, "u", version="1.0", namespace="other"), "UnsupportedVersion"),
    ],
)
async def test_a_cast_that_nothing_here_can_serve_is_kept_and_not_lost(request_: Request, error: str) -> None:
    async with net() as made:
        server = await made.serve(Jobs())
        given = Given(encode_request(request_))
        server._on_delivery(given, "jobs.h1")
        await until(lambda: given.settled == "acked")
        (letter,) = await DeadLetters(made.transport(), "jobs").all(10)
        assert (letter.error, letter.queue, letter.id, letter.server) == (error, "jobs.h1", "u", "jobs.h1")
        assert letter.request is not None
        assert letter.request.method == request_.method


async def test_a_dead_letter_that_is_requeued_is_served_and_a_dropped_one_is_gone() -> None:
    async with net() as made:
        jobs = Jobs(fault=Conflict(kind="job", name="x", found="running", expected="new"))
        server = await made.serve(jobs)
        client = JobAPI.over(made.client())
        letters = DeadLetters(made.transport(), "jobs")
        await client.start(Context(), name="one")
        await client.start(Context(), name="two")
        await until(lambda: server.counts.of(Event.DEAD_LETTER) == 2)
        one, two = await letters.all(10)
        assert [letter.request.args["name"] for letter in (one, two) if letter.request] == ["one", "two"]
        jobs.fault = None
        assert (await letters.requeue(one.id[:8])).id == one.id
        await until(lambda: jobs.started == ["one", "two", "one"])
        assert [letter.id for letter in await letters.all(10)] == [two.id]
        assert (await letters.drop(two.id)).id == two.id
        assert await letters.all(10) == []
        with pytest.raises(NoSuchDeadLetter, match="No dead letter nope in jobs_dead_letter"):
            await letters.find("nope")


async def test_a_dead_letter_whose_queue_is_gone_stays_when_it_is_requeued() -> None:
    async with net() as made:
        transport = made.transport()
        letters = DeadLetters(transport, "jobs")
        await transport.declare(Queue(letters.queue))
        headers = {"x-lite-queue": "jobs.gone", "x-lite-reason": "r"}
        await transport.publish(Message(None, letters.queue, b"not json", headers=headers), timeout_s=5)
        (letter,) = await letters.all(10)
        with pytest.raises(Unroutable):
            await letters.requeue(letter.id)
        assert [found.id for found in await letters.all(10)] == [letter.id]


async def test_what_the_dead_letter_queue_does_not_take_now_goes_back_to_its_own(monkeypatch: pytest.MonkeyPatch) -> None:

    async def away(*_: object, **__: object) -> None:
        raise BusUnavailable(url="test", reason="away")

    monkeypatch.setattr(Morgue, "take", away)
    monkeypatch.setattr("common.rpc.server.CAST_RETRY_DELAY_S", 0)
    async with net() as made:
        server = await made.serve(Jobs())
        given = Given(encode_request(Request("stop", {}, "u", version="1.0")))
        server._on_delivery(given)
        await until(lambda: given.settled == "given back")
