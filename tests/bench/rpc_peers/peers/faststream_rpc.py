"""FastStream: `request` for calls, which it makes one at a time, `publish` for casts."""

import asyncio
import sys
from collections.abc import Collection
from typing import Any

from faststream.rabbit import Channel, RabbitBroker

from tests.bench.rpc_peers import work


def _broker(url: str) -> RabbitBroker:
    return RabbitBroker(url.replace("rabbit://", "amqp://", 1), default_channel=Channel(prefetch_count=work.PREFETCH), logger=None)


async def serve(url: str, topics: Collection[str]) -> None:
    broker = _broker(url)
    handled = work.Handled()

    async def echo(instance: dict[str, Any]) -> dict[str, Any]:
        return instance

    async def note(instance: dict[str, Any]) -> None:
        handled.note()

    async def slow(instance: dict[str, Any]) -> None:
        await asyncio.sleep(handled.slow_s)

    for topic in topics:
        broker.subscriber(topic)(slow if topic == work.FLOODED else note)
        if topic != work.FLOODED:
            broker.subscriber(f"{topic}.echo")(echo)
    await broker.start()
    handled.tell()
    await asyncio.Event().wait()


async def ask(url: str) -> None:
    broker = _broker(url)
    await broker.start()

    async def echo(topic: str, instance: dict[str, Any]) -> dict[str, Any]:
        message = await broker.request(instance, f"{topic}.echo", timeout=work.TIMEOUT_S)
        answer: dict[str, Any] = await message.decode()
        return answer

    await work.obey(echo, lambda topic, instance: broker.publish(instance, topic))


if __name__ == "__main__":
    asyncio.run(ask(sys.argv[2]) if sys.argv[1] == "client" else serve(sys.argv[2], work.SERVED[sys.argv[1]]))
