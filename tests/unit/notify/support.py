"""Buses, endpoints and notifiers for these tests."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from common.base.clock import Clock
from common.base.context import Context
from common.host.clock import SystemClock
from common.notify import NotificationOptions, NotificationResult, Notifier
from common.notify.intake import Intake
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Message, Transport
from common.wire.notification import Notification, Priority, decode_notification, encode_notification

WAIT_S = 20.0
CLOCK = SystemClock()
OPTIONS = NotificationOptions(control_exchange="nova")


@dataclass
class Endpoint:
    """Takes `info`; what it returns or raises next stands in `answers`, after that it is content."""

    answers: list[Any] = field(default_factory=list)
    seen: asyncio.Queue[tuple[Any, ...]] = field(default_factory=asyncio.Queue)
    running: int = 0
    most: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def info(
        self, ctx: Context, publisher_id: str, event_type: str, payload: Any, metadata: Any
    ) -> NotificationResult | None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.seen.put_nowait((ctx, publisher_id, event_type, payload, metadata))
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        return answer(self.answers)

    async def events(self, number: int = 1) -> list[str]:
        """The event types of the next `number` notifications."""
        return [(await self.next())[2] for _ in range(number)]

    async def next(self) -> tuple[Any, ...]:
        async with asyncio.timeout(WAIT_S):
            return await self.seen.get()


@dataclass
class BatchEndpoint:
    """Takes batches of `info` and `error`."""

    answers: list[Any] = field(default_factory=list)
    seen: asyncio.Queue[tuple[str, list[Any]]] = field(default_factory=asyncio.Queue)

    async def info(self, messages: list[Any]) -> NotificationResult | None:
        self.seen.put_nowait(("info", [message.payload for message in messages]))
        return answer(self.answers)

    async def error(self, messages: list[Any]) -> NotificationResult | None:
        self.seen.put_nowait(("error", [message.payload for message in messages]))
        return answer(self.answers)

    async def next(self) -> tuple[str, list[Any]]:
        async with asyncio.timeout(WAIT_S):
            return await self.seen.get()


def answer(answers: list[Any]) -> NotificationResult | None:
    found = answers.pop(0) if answers else None
    if isinstance(found, Exception):
        raise found
    return found


def a_transport(bus: MemoryBus | None = None) -> MemoryTransport:
    return MemoryTransport(bus or MemoryBus(CLOCK), name="test")


def a_notifier(transport: Transport, *, clock: Clock = CLOCK, **changes: Any) -> Notifier:
    return Notifier(transport, clock=clock, publisher_id="compute.host1", options=replace(OPTIONS, **changes))


async def waiting(transport: Transport, queue: str) -> list[Notification]:
    """What waits in a queue; it is taken."""
    found = []
    while (delivery := await transport.get(queue)) is not None:
        found.append(decode_notification(delivery.body))
        await delivery.ack()
    return found


async def send(
    transport: Transport, queue: str, *, event_type: str = "e", unique_id: str | None = None, payload: Any = None
) -> None:
    """One notification straight into a queue."""
    notification = Notification(event_type, Priority.INFO, payload, unique_id=unique_id)
    await put(transport, queue, encode_notification(notification, envelope=True))


async def put(transport: Transport, queue: str, body: bytes) -> None:
    """Any body straight into a queue."""
    await transport.publish(Message(None, queue, body, mandatory=True), timeout_s=WAIT_S)


async def rounds() -> None:
    """Let everybody run until they wait for something else than their turn."""
    for _ in range(20):
        await asyncio.sleep(0)


async def settled(listener: Intake) -> None:
    """Everything that was delivered so far is through."""
    async with asyncio.timeout(WAIT_S):
        await asyncio.sleep(0)
        while listener._running:
            await asyncio.wait(listener._running)
