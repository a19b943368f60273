"""aiormq by hand: one reply queue, a future for each call, JSON. No timeout, no reconnect, no errors: what the driver alone can do."""

import asyncio
import json
import sys
from collections.abc import Callable, Collection, Coroutine
from typing import Any
from uuid import uuid4

import aiormq

from tests.bench.rpc_peers import work


async def _connect(url: str) -> aiormq.abc.AbstractConnection:
    return await aiormq.connect(url.replace("rabbit://", "amqp://", 1))


async def serve(url: str, topics: Collection[str]) -> None:
    connection = await _connect(url)
    handled = work.Handled()

    async def echo(message: aiormq.abc.DeliveredMessage) -> None:
        properties = message.header.properties
        answer = json.dumps(json.loads(message.body)).encode()
        await message.channel.basic_publish(
            answer,
            routing_key=properties.reply_to or "",
            properties=aiormq.spec.Basic.Properties(correlation_id=properties.correlation_id),
        )
        await message.channel.basic_ack(message.delivery_tag or 0)

    async def note(message: aiormq.abc.DeliveredMessage) -> None:
        json.loads(message.body)
        handled.note()
        await message.channel.basic_ack(message.delivery_tag or 0)

    async def slow(message: aiormq.abc.DeliveredMessage) -> None:
        await asyncio.sleep(handled.slow_s)
        await message.channel.basic_ack(message.delivery_tag or 0)

    async def consume(queue: str, callback: Callable[[aiormq.abc.DeliveredMessage], Coroutine[Any, Any, None]]) -> None:
        channel = await connection.channel(publisher_confirms=False)
        await channel.basic_qos(prefetch_count=work.PREFETCH)
        await channel.queue_declare(queue)
        await channel.basic_consume(queue, callback)

    for topic in topics:
        callbacks = {topic: slow} if topic == work.FLOODED else {f"{topic}.echo": echo, topic: note}
        for queue, callback in callbacks.items():
            await consume(queue, callback)
    handled.tell()
    await asyncio.Event().wait()


async def ask(url: str) -> None:
    connection = await _connect(url)
    calls, casts = await connection.channel(publisher_confirms=False), await connection.channel(publisher_confirms=True)
    replies = (await calls.queue_declare(exclusive=True)).queue or ""
    waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def on_reply(message: aiormq.abc.DeliveredMessage) -> None:
        waiting.pop(message.header.properties.correlation_id or "").set_result(json.loads(message.body))

    await calls.basic_consume(replies, on_reply, no_ack=True)

    async def echo(topic: str, instance: dict[str, Any]) -> dict[str, Any]:
        correlation_id = uuid4().hex
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        waiting[correlation_id] = future
        properties = aiormq.spec.Basic.Properties(correlation_id=correlation_id, reply_to=replies)
        await calls.basic_publish(json.dumps(instance).encode(), routing_key=f"{topic}.echo", properties=properties)
        return await future

    async def publish(topic: str, instance: dict[str, Any]) -> None:
        await casts.basic_publish(json.dumps(instance).encode(), routing_key=topic)

    await work.obey(echo, publish)


if __name__ == "__main__":
    asyncio.run(ask(sys.argv[2]) if sys.argv[1] == "client" else serve(sys.argv[2], work.SERVED[sys.argv[1]]))
