"""What is made of the broker's answers to a declaration (oslo-wire 2.4), over aio-pika and over our own engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiormq
import pytest
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.exceptions import ConnectionInternalError

from common.testing.clock import JumpingClock
from common.transport import amqp_channel, amqp_declare
from common.transport.amqp_channel import Refused
from common.transport.amqp_link import AmqpLink
from common.transport.errors import BusRefused
from common.transport.port import Binding, BusUnavailable, Exchange, Queue
from common.transport.rabbit_declare import agreed
from common.transport.rabbit_link import Link, watched

TOPIC = Exchange("nova", "topic")
COMPUTE = Queue("compute", (Binding(TOPIC, "compute"),))


def durable(queue: Queue) -> tuple[bool, bool]:
    """(of the exchange, of the queue)"""
    return queue.bindings[0].exchange.durable, queue.durable


def declared(*, exchange: bool, queue: bool, arguments: dict[str, Any] | None = None) -> Queue:
    control = Exchange("nova", "topic", durable=exchange)
    return Queue("compute", (Binding(control, "compute"),), durable=queue, arguments=arguments or {})


def conflict(what: str) -> ChannelPreconditionFailed:
    return ChannelPreconditionFailed(f"PRECONDITION_FAILED - inequivalent arg 'durable' for {what} in vhost '/': received ...")


EXCHANGE, QUEUE = conflict("exchange 'nova'"), conflict("queue 'compute'")
STUCK = ChannelNotFoundEntity("NOT_FOUND - home node 'rabbit@b' of durable queue 'compute' in vhost '/' is down or inaccessible")
GONE = [
    ChannelNotFoundEntity("NOT_FOUND - no exchange 'compute_fanout' in vhost '/'"),
    ChannelNotFoundEntity("NOT_FOUND - no queue 'compute' in vhost '/'"),
]
INTERNAL = ConnectionInternalError("INTERNAL_ERROR")


class Channel:
    def __init__(self, deleted: list[str]) -> None:
        self._deleted = deleted

    async def queue_delete(self, name: str) -> None:
        self._deleted.append(name)

    async def ask(self, method: str, *, queue: str) -> None:
        assert method == "queue.delete"
        self._deleted.append(queue)


CODES: dict[type[Exception], int] = {ChannelPreconditionFailed: 406, ChannelNotFoundEntity: 404, aiormq.ChannelAccessRefused: 403}


def as_our_engine_says_it(answer: Exception) -> Exception:
    code = CODES.get(type(answer))
    if code is not None:
        return Refused(code, str(answer))
    return amqp_channel.Lost(str(answer), 541 if isinstance(answer, ConnectionInternalError) else 320)


@pytest.fixture(autouse=True, params=["rabbit", "amqp"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broker, "engine", request.param)


class Broker:
    """Answers each declaration with the next of `answers`, and takes what comes after them. It stands for a link as well."""

    url = "rabbit://h/"
    engine = "rabbit"

    def __init__(self, *answers: Exception) -> None:
        self._answers = list(answers)
        self.asked: list[Queue] = []
        self.deleted: list[str] = []
        self.clock = JumpingClock(jumps=True)

    @asynccontextmanager
    async def short_channel(self) -> AsyncIterator[Channel]:
        yield Channel(self.deleted)

    async def declare(self, queue: Queue) -> None:
        self.asked.append(queue)
        if self._answers:
            answer = self._answers.pop(0)
            if self.engine == "amqp":
                raise as_our_engine_says_it(answer)
            with watched():
                raise answer

    async def agree(self, queue: Queue) -> None:
        if self.engine == "amqp":
            await amqp_declare.agreed(cast("AmqpLink", self), queue, self.declare, clock=self.clock)
        else:
            await agreed(cast("Link", self), queue, self.declare, clock=self.clock)


@pytest.mark.parametrize(
    ("wanted", "answers", "taken"),
    [
        pytest.param((True, True), [EXCHANGE], (False, False), id="as oslo.messaging: a transient exchange makes both transient"),
        pytest.param((True, True), [EXCHANGE, QUEUE], (False, True), id="a transient exchange and a durable queue"),
        pytest.param((False, False), [EXCHANGE], (True, True), id="a durable exchange has durable queues"),
        pytest.param((False, False), [EXCHANGE, QUEUE], (True, False), id="a durable exchange and a transient queue"),
        pytest.param((True, True), [QUEUE], (True, False), id="a transient queue"),
        pytest.param((False, False), [QUEUE], (False, True), id="a durable queue"),
    ],
)
async def test_the_durability_that_the_broker_insists_on_is_taken(
    wanted: tuple[bool, bool], answers: list[Exception], taken: tuple[bool, bool]
) -> None:
    broker = Broker(*answers)
    await broker.agree(declared(exchange=wanted[0], queue=wanted[1]))
    assert durable(broker.asked[-1]) == taken
    assert len(broker.asked) == len(answers) + 1


@pytest.mark.parametrize("arguments", [{"x-queue-type": "quorum"}, {"x-queue-type": "stream"}, {"x-expires": 1000}])
async def test_a_queue_that_cannot_follow_its_exchange_does_not(arguments: dict[str, Any]) -> None:
    broker = Broker(EXCHANGE)
    await broker.agree(declared(exchange=True, queue=True, arguments=arguments))
    assert durable(broker.asked[-1]) == (False, True)


async def test_a_broker_that_never_agrees_is_a_refusal() -> None:
    broker = Broker(*[EXCHANGE, QUEUE] * 5)
    with pytest.raises(BusRefused, match=r"queue compute: .*inequivalent arg 'durable'"):
        await broker.agree(COMPUTE)
    assert len(broker.asked) == 3


@pytest.mark.parametrize(
    "answer", [aiormq.ChannelAccessRefused("ACCESS_REFUSED"), ChannelPreconditionFailed("inequivalent arg 'x-expires'")]
)
async def test_other_answers_are_refusals_at_once(answer: Exception) -> None:
    broker = Broker(answer)
    with pytest.raises(BusRefused):
        await broker.agree(COMPUTE)
    assert len(broker.asked) == 1


async def test_a_queue_stuck_on_a_node_that_is_down_is_deleted_once() -> None:
    broker = Broker(STUCK)
    await broker.agree(COMPUTE)
    assert (broker.deleted, len(broker.asked)) == (["compute"], 2)
    again = Broker(STUCK, STUCK)
    with pytest.raises(BusRefused, match="is down or inaccessible"):
        await again.agree(COMPUTE)
    assert again.deleted == ["compute"]


@pytest.mark.parametrize("answer", GONE, ids=str)
async def test_what_went_away_meanwhile_costs_no_queue_that_another_made_anew(answer: Exception) -> None:
    broker = Broker(answer)
    await broker.agree(COMPUTE)
    assert (broker.deleted, len(broker.asked)) == ([], 2)


async def test_after_an_internal_error_of_the_broker_it_is_tried_once_more_two_seconds_later() -> None:
    broker = Broker(INTERNAL)
    began = broker.clock.monotonic()
    await broker.agree(COMPUTE)
    assert len(broker.asked) == 2
    assert broker.clock.monotonic() - began == 2.0
    with pytest.raises(BusUnavailable, match="INTERNAL_ERROR"):
        await Broker(INTERNAL, INTERNAL).agree(COMPUTE)


async def test_a_lost_connection_is_not_tried_again_here() -> None:
    broker = Broker(aiormq.AMQPConnectionError("reset"))
    with pytest.raises(BusUnavailable, match="reset"):
        await broker.agree(COMPUTE)
    assert len(broker.asked) == 1
