"""Counts the messages that one request puts on the bus, by RabbitMQ's own word: its firehose (rabbitmqctl trace_on).

    python trace.py METHOD < URL       prints "listening", then waits for a call of METHOD and everything that follows from it

A message belongs to the request when it carries its `_context_request_id`, or answers a message that does.
"""

import asyncio
import json
import sys
from collections.abc import Iterator

import aio_pika

QUIET_S = 2.0
"""So long after the last message of the request it is taken to be over."""
LONGEST_S = 30.0


async def main(url: str, method: str) -> None:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("amq.rabbitmq.trace", "publish.#")
        print("listening", flush=True)
        seen = await collect(queue)
    lines = list(story(seen, method))
    for line in lines:
        print(f"    {line}")
    print(f"{len(lines)} messages on the bus")


async def collect(queue: aio_pika.abc.AbstractQueue) -> list[tuple[str, dict]]:
    """(routing key, message) of everything published until the bus is quiet again."""
    seen: list[tuple[str, dict]] = []
    arrived: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
    await queue.consume(arrived.put, no_ack=True)
    limit = LONGEST_S
    while True:
        try:
            async with asyncio.timeout(limit):
                message = await arrived.get()
        except TimeoutError:
            return seen
        [key] = message.headers["routing_keys"]
        seen.append((str(key), json.loads(json.loads(message.body)["oslo.message"])))
        limit = QUIET_S


def story(seen: list[tuple[str, dict]], method: str) -> Iterator[str]:
    """A line for each message of the first request that calls `method`."""
    request_id = next((body["_context_request_id"] for _, body in seen if body.get("method") == method), None)
    asked: dict[str, str] = {}
    for key, body in seen:
        if body.get("_context_request_id") == request_id and "method" in body:
            name = f"{key} {body['method']}"
            kind = "call" if "_msg_id" in body else "cast"
            asked[body.get("_msg_id", "")] = name
            yield f"{kind:<6} {name}"
        elif body.get("_msg_id") in asked:
            yield f"{'reply':<6} {asked[body['_msg_id']]}"


asyncio.run(main(sys.stdin.readline().strip(), sys.argv[1]))
