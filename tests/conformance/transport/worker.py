"""Another process on a bus, for tests and measurements: `python -m tests.conformance.transport.worker <url> <role> <arguments>`."""

import asyncio
import os
import sys
import threading

from common.host.clock import SystemClock
from common.transport.kombu_folder import FolderStore
from common.transport.port import Delivery, Queue, Transport
from common.transport.redis_store import RedisStore
from common.transport.url import open_transport
from tests.conformance.transport.support import Inbox, consume, send, to_queue

NEVER_S = 3600.0
"""After which the consumers of a "woken" one look by themselves: it echoes what it is called for."""


async def mix(transport: Transport, name: str, number: int) -> None:
    """Publish `number` messages to the shared queue while consuming from it; pass on what was taken."""
    inbox, _ = await consume(transport, Queue("work"), prefetch=8)

    async def pass_on() -> None:
        while True:
            delivery: Delivery = await inbox.arrived.get()
            await send(transport, to_queue("seen", delivery.body))
            await delivery.ack()

    async with asyncio.TaskGroup() as group:
        passing = group.create_task(pass_on())
        for message in range(number):
            await send(transport, to_queue("work", f"{name}-{message}".encode()))
        await asyncio.to_thread(sys.stdin.read)
        passing.cancel()


async def hold(transport: Transport) -> None:
    """Take one message, say so, and never settle it."""
    inbox: Inbox
    inbox, _ = await consume(transport, Queue("work"), prefetch=1)
    await inbox.next()
    say("held")
    await asyncio.to_thread(sys.stdin.read)


async def echo(transport: Transport, name: str) -> None:
    """Answer each message of a queue at the queue that it names."""
    inbox, _ = await consume(transport, Queue(name, auto_delete=True), prefetch=8)
    say("ready")
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    while True:
        delivery = await inbox.arrived.get()
        await send(transport, to_queue(delivery.headers["reply_to"], delivery.body, mandatory=False))
        await delivery.ack()


def say(word: str) -> None:
    """Tell the parent."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


async def main() -> None:
    url, role, *arguments = sys.argv[1:]
    if role == "woken":
        for kind in (FolderStore, RedisStore):
            kind.poll_s = (NEVER_S, NEVER_S)
    transport = await open_transport(url, clock=SystemClock(), connection_name=role)
    try:
        match role:
            case "mix":
                await mix(transport, arguments[0], int(arguments[1]))
            case "hold":
                await hold(transport)
            case _:
                await echo(transport, arguments[0])
    finally:
        await transport.close()


if __name__ == "__main__":
    asyncio.run(main())
