"""FastStream: `request` for calls, which it makes one at a time, `publish` for casts."""

import asyncio
import sys
from typing import Any

from faststream.rabbit import Channel, RabbitBroker

from tests.bench.rpc_peers import work


def _broker(url: str) -> RabbitBroker:
    return RabbitBroker(url.replace("rabbit://", "amqp://", 1), default_channel=Channel(prefetch_count=work.PREFETCH), logger=None)


async def serve(url: str) -> None:
    broker = _broker(url)
    handled = work.Handled()

    async def echo(instance: dict[str, Any]) -> dict[str, Any]:
        return instance

    async def note(instance: dict[str, Any]) -> None:
        handled.note()

    async def slow(instance: dict[str, Any]) -> None:
        await asyncio.sleep(work.SLOW_S)

    for queue, handler in ((f"{work.TOPIC}.echo", echo), (work.TOPIC, note), (work.FLOODED, slow)):
        broker.subscriber(queue)(handler)
    await broker.start()
    handled.tell()
    await asyncio.Event().wait()


async def ask(url: str) -> None:
    broker = _broker(url)
    await broker.start()

    async def echo(instance: dict[str, Any]) -> dict[str, Any]:
        message = await broker.request(instance, f"{work.TOPIC}.echo", timeout=work.TIMEOUT_S)
        answer: dict[str, Any] = await message.decode()
        return answer

    await work.obey(echo, lambda topic, instance: broker.publish(instance, topic))


if __name__ == "__main__":
    asyncio.run({"client": ask, "server": serve}[sys.argv[1]](sys.argv[2]))
