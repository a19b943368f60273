"""What the suite needs of a bus, and an inbox for deliveries."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.base.clock import Clock
from common.transport.port import Binding, Consumer, Delivery, Exchange, Lack, Message, Queue, Transport

ROOT = Path(__file__).parents[3]
WAIT_S = 20.0
"""Far more than anything takes; only a broken promise needs it."""


@dataclass
class Bus:
    """One bus; each `transport()` is a connection of its own to it, closed at the end of the test."""

    kind: str
    clock: Clock
    make: Callable[[], Awaitable[Transport]]
    url: str
    tag: str = field(default_factory=lambda: secrets.token_hex(4))
    opened: list[Transport] = field(default_factory=list)

    async def transport(self) -> Transport:
        transport = await self.make()
        self.opened.append(transport)
        return transport

    async def close(self) -> None:
        for transport in self.opened:
            await transport.close()

    def name(self, word: str) -> str:
        """A name that no other test uses: some buses outlive the test."""
        return f"{word}-{self.tag}"

    def topic_exchange(self, word: str = "nova") -> Exchange:
        return Exchange(self.name(word), "topic")

    def fanout_exchange(self, word: str = "compute_fanout") -> Exchange:
        return Exchange(self.name(word), "fanout", auto_delete=True)

    def topic_queue(self, word: str, key: str | None = None) -> Queue:
        """A queue bound as oslo binds it: to the topic exchange, by its name if no key is given."""
        return Queue(self.name(word), (Binding(self.topic_exchange(), self.name(word) if key is None else key),))


class Inbox:
    """Takes deliveries in the order of their arrival."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[Delivery] = asyncio.Queue()

    def __call__(self, delivery: Delivery) -> None:
        self.arrived.put_nowait(delivery)

    async def next(self) -> Delivery:
        async with asyncio.timeout(WAIT_S):
            return await self.arrived.get()

    async def bodies(self, number: int) -> list[bytes]:
        """The next `number` bodies; their deliveries are acked."""
        found = []
        for _ in range(number):
            delivery = await self.next()
            found.append(delivery.body)
            await delivery.ack()
        return found


async def consume(transport: Transport, queue: Queue, *, prefetch: int = 10) -> tuple[Inbox, Consumer]:
    inbox = Inbox()
    return inbox, await transport.consume(queue, prefetch=prefetch, on_delivery=inbox)


def to_queue(name: str, body: bytes = b"{}", *, mandatory: bool = True, expiration_ms: int | None = None) -> Message:
    """A message through the default exchange."""
    return Message(None, name, body, mandatory=mandatory, expiration_ms=expiration_ms)


async def send(transport: Transport, *messages: Message) -> None:
    for message in messages:
        await transport.publish(message, timeout_s=WAIT_S)


def lacks(transport: Transport, lack: Lack) -> bool:
    return lack in transport.lacks


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker; it ends when its standard input does."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.conformance.transport.worker",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield worker
        if worker.returncode is None:
            assert worker.stdin is not None
            worker.stdin.close()
            async with asyncio.timeout(WAIT_S):
                await worker.wait()
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
        # asyncio leaves the pipe's transport to the collector.
        assert worker.stdout is not None
        await worker.stdout.read()
