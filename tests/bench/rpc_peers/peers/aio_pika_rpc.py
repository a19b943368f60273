"""aio_pika.patterns: RPC for calls, Master for casts, as their documentation shows them."""

import asyncio
import sys
from collections.abc import Collection
from typing import Any

import aio_pika
from aio_pika.patterns import RPC, Master

from tests.bench.rpc_peers import work


async def _channel(url: str) -> aio_pika.abc.AbstractChannel:
    connection = await aio_pika.connect_robust(url.replace("rabbit://", "amqp://", 1))
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=work.PREFETCH)
    return channel


async def serve(url: str, topics: Collection[str]) -> None:
    handled = work.Handled()

    async def echo(*, instance: dict[str, Any]) -> dict[str, Any]:
        return instance

    async def note(*, instance: dict[str, Any]) -> None:
        handled.note()

    async def slow(*, instance: dict[str, Any]) -> None:
        await asyncio.sleep(handled.slow_s)

    for topic in topics:
        await Master(await _channel(url)).create_worker(topic, slow if topic == work.FLOODED else note)
        if topic != work.FLOODED:
            await (await RPC.create(await _channel(url))).register(f"{topic}.echo", echo)
    handled.tell()
    await asyncio.Event().wait()


async def ask(url: str) -> None:
    rpc = await RPC.create(await _channel(url))
    master = Master(await _channel(url))

    async def echo(topic: str, instance: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await rpc.call(f"{topic}.echo", {"instance": instance})
        return answer

    await work.obey(echo, lambda topic, instance: master.create_task(topic, {"instance": instance}))


if __name__ == "__main__":
    asyncio.run(ask(sys.argv[2]) if sys.argv[1] == "client" else serve(sys.argv[2], work.SERVED[sys.argv[1]]))
