"""aio_pika.patterns: RPC for calls, Master for casts, as their documentation shows them."""

import asyncio
import sys
from typing import Any

import aio_pika
from aio_pika.patterns import RPC, Master

from tests.bench.rpc_peers import work


async def _channel(url: str) -> aio_pika.abc.AbstractChannel:
    connection = await aio_pika.connect_robust(url.replace("rabbit://", "amqp://", 1))
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=work.PREFETCH)
    return channel


async def serve(url: str) -> None:
    handled = work.Handled()

    async def echo(*, instance: dict[str, Any]) -> dict[str, Any]:
        return instance

    async def note(*, instance: dict[str, Any]) -> None:
        handled.note()

    async def slow(*, instance: dict[str, Any]) -> None:
        await asyncio.sleep(work.SLOW_S)

    rpc = await RPC.create(await _channel(url))
    await rpc.register(f"{work.TOPIC}.echo", echo)
    await Master(await _channel(url)).create_worker(work.TOPIC, note)
    await Master(await _channel(url)).create_worker(work.FLOODED, slow)
    handled.tell()
    await asyncio.Event().wait()


async def ask(url: str) -> None:
    rpc = await RPC.create(await _channel(url))
    master = Master(await _channel(url))

    async def echo(instance: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await rpc.call(f"{work.TOPIC}.echo", {"instance": instance})
        return answer

    await work.obey(echo, lambda topic, instance: master.create_task(topic, {"instance": instance}))


if __name__ == "__main__":
    asyncio.run({"client": ask, "server": serve}[sys.argv[1]](sys.argv[2]))
