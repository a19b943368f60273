"""The bus in memory under consumers that come, settle, give back and go: nothing is lost, and nothing comes twice without saying so."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.testing.clock import JumpingClock
from common.transport.memory import MemoryBus, MemoryConsumer, MemoryTransport
from common.transport.port import Delivery, Message, Queue


class Taker:
    """A consumer on its own connection, and what it holds."""

    def __init__(self, machine: "MemoryMachine", prefetch: int) -> None:
        self.machine = machine
        self.prefetch = prefetch
        self.held: list[Delivery] = []
        self.transport = MemoryTransport(machine.bus)
        self.consumer: MemoryConsumer | None = None

    def on_delivery(self, delivery: Delivery) -> None:
        body = delivery.body.decode()
        assert delivery.redelivered is (body in self.machine.delivered)
        assert body not in self.machine.done
        assert body not in {each.body.decode() for taker in self.machine.takers for each in taker.held}
        self.machine.delivered.add(body)
        self.held.append(delivery)
        assert len(self.held) <= self.prefetch


class MemoryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.bus = MemoryBus(JumpingClock())
        self.sender = MemoryTransport(self.bus)
        self.takers: list[Taker] = []
        self.published: list[str] = []
        self.delivered: set[str] = set()
        self.done: set[str] = set()
        self.faults: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.run(self.sender.declare(Queue("q")))

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        try:
            self.all_is_there()
        finally:
            self.loop.close()

    def all_is_there(self) -> None:
        """At the end, when everything is well again."""
        for taker in tuple(self.takers):
            self.end(taker)
        last = Taker(self, prefetch=10**6)
        self.run(last.transport.consume(Queue("q"), prefetch=10**6, on_delivery=last.on_delivery))
        self.run(_rounds())
        assert self.faults == []
        left = [each.body.decode() for each in last.held]
        assert left == [body for body in self.published if body not in self.done]

    @rule(number=st.integers(1, 4))
    def publish(self, number: int) -> None:
        for _ in range(number):
            body = str(len(self.published))
            self.published.append(body)
            self.run(self.sender.publish(Message(None, "q", body.encode(), mandatory=True), timeout_s=1))

    @precondition(lambda self: len(self.takers) < 3)
    @rule(prefetch=st.integers(1, 3))
    def join(self, prefetch: int) -> None:
        taker = Taker(self, prefetch)
        self.takers.append(taker)
        work = taker.transport.consume(Queue("q"), prefetch=prefetch, on_delivery=taker.on_delivery)
        taker.consumer = self.run(work)

    @precondition(lambda self: any(taker.held for taker in self.takers))
    @rule(data=st.data(), how=st.sampled_from(["ack", "ack soon", "requeue", "drop"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        taker = data.draw(st.sampled_from([each for each in self.takers if each.held]))
        delivery = taker.held.pop(data.draw(st.integers(0, len(taker.held) - 1)))
        if how != "requeue":
            self.done.add(delivery.body.decode())
        match how:
            case "ack":
                self.run(delivery.ack())
            case "ack soon":
                self.run(_soon(delivery))
            case _:
                self.run(delivery.reject(requeue=how == "requeue"))

    @precondition(lambda self: self.takers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """What it holds may still be settled."""
        taker = data.draw(st.sampled_from(self.takers))
        assert taker.consumer is not None
        self.run(taker.consumer.cancel())

    @precondition(lambda self: self.takers)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        taker = data.draw(st.sampled_from(self.takers))
        self.end(taker)

    def end(self, taker: Taker) -> None:
        """What it held goes back."""
        self.takers.remove(taker)
        self.run(taker.transport.close())

    @rule()
    def let_it_run(self) -> None:
        self.run(_rounds())

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert self.faults == []


async def _soon(delivery: Delivery) -> None:
    delivery.ack_soon()


async def _rounds() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(max_examples=100, stateful_step_count=30, suppress_health_check=list(HealthCheck))
