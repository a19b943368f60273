"""What the broker itself says of the services' messages and rights.

python bus.py refused CONFIG HOST@BACKEND            what nova-compute's login may not do, tried
python bus.py count CONFIG METHOD COMMAND...         the messages of one command, until METHOD is answered

CONFIG is a file that passwords.sh wrote; the login comes from there. `count` reads RabbitMQ's firehose (rabbitmqctl trace_on): a copy
of each message at the moment when it was published, with its publisher's user.
"""

import asyncio
import configparser
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage

TIMEOUT_S = 30.0
FIREHOSE = "amq.rabbitmq.trace"


async def connect(config: str) -> AbstractConnection:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(config)
    return await aiormq.connect(parser["DEFAULT"]["transport_url"].replace("rabbit://", "amqp://", 1))


Attempt = Callable[[AbstractChannel], Awaitable[object]]


async def refused(config: str, backend: str) -> int:
    """Every attempt is a way in which a compute host that was taken over could get at other services."""
    volume = f"cinder-volume.{backend}"
    attempts: list[tuple[str, Attempt]] = [
        (
            f"publish to exchange openstack, key {volume}",
            lambda to: to.basic_publish(b"", exchange="openstack", routing_key=volume),
        ),
        (
            "publish to exchange nova, key compute.cmp2",
            lambda to: to.basic_publish(b"", exchange="nova", routing_key="compute.cmp2"),
        ),
        ("publish to exchange cinder-volume_fanout", lambda to: to.basic_publish(b"", exchange="cinder-volume_fanout")),
        ("read queue nova-api", lambda to: to.basic_get("nova-api")),
        (f"read queue {volume}", lambda to: to.basic_get(volume)),
        ("delete queue cinder-api", lambda to: to.queue_delete("cinder-api")),
        ("bind its own queue to exchange nova, key nova-api", lambda to: to.queue_bind("compute", "nova", "nova-api")),
        ("bind its own queue to exchange openstack, key #", lambda to: to.queue_bind("compute", "openstack", "#")),
    ]
    connection = await connect(config)
    granted = 0
    for what, attempt in attempts:
        answer = await tried(connection, attempt)
        granted += answer is None
        print(f"{'GRANTED' if answer is None else 'refused'}  {what}: {answer or 'no objection'}")
    # oslo's replies go to the default exchange, whose key is a queue's name, and RabbitMQ has permissions by key for topic exchanges only.
    if await tried(connection, lambda to: to.basic_publish(b"", routing_key="no-such-queue", mandatory=True)) is None:
        print("allowed  publish to the default exchange: replies need it, and RabbitMQ cannot restrict it to the queues of callers")
    await connection.close()
    return 1 if granted else 0


async def tried(connection: AbstractConnection, attempt: Attempt) -> str | None:
    """The broker's words when it refuses, None when it does not; a refusal costs the channel."""
    channel = await connection.channel(publisher_confirms=True)
    try:
        await attempt(channel)
    except aiormq.exceptions.PublishError:
        pass  # let through, and nobody's
    except aiormq.exceptions.ChannelAccessRefused as exc:
        return str(exc.args[-1])
    await channel.close()
    return None


@dataclass
class Messages:
    """The messages of one command: the first call that `user` publishes, and what carries its request id, and their replies."""

    user: str
    method: str
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    request_id: str | None = None
    calls: dict[str, str] = field(default_factory=dict)
    others: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, traced: DeliveredMessage) -> None:
        headers: dict[str, Any] = dict(traced.header.properties.headers or {})
        sender, exchange = str(headers["user"]), str(headers["exchange_name"])
        message = json.loads(json.loads(traced.body)["oslo.message"])
        if "method" not in message:
            self._reply(sender, message)
            return
        if self.request_id is None and sender == self.user:
            self.request_id = message.get("_context_request_id")
        if self.request_id is None or message.get("_context_request_id") != self.request_id:
            self.others += 1
            return
        if "_msg_id" in message:
            self.calls[message["_msg_id"]] = message["method"]
        key = str((headers.get("routing_keys") or [""])[0])
        self.rows.append((sender, f"{exchange} / {key}", f"{'call' if '_msg_id' in message else 'cast'} {message['method']}"))

    def _reply(self, sender: str, message: dict[str, Any]) -> None:
        method = self.calls.get(message.get("_msg_id", ""))
        if method is None:
            self.others += 1
            return
        self.rows.append((sender, "(default) / reply_...", f"reply to {method}"))
        if method == self.method:
            self.ended.set()


async def count(config: str, method: str, command: list[str]) -> int:
    connection = await connect(config)
    channel = await connection.channel()
    queue = (await channel.queue_declare(exclusive=True)).queue
    assert queue is not None
    await channel.queue_bind(queue, FIREHOSE, "publish.#")
    seen = Messages(user="lite-cli", method=method)
    await channel.basic_consume(queue, seen.take, no_ack=True)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(TIMEOUT_S):
        status = await process.wait()
        if status == 0:
            await seen.ended.wait()
    await connection.close()
    for number, (sender, where, what) in enumerate(seen.rows, 1):
        print(f"{number:>3}  {sender:<16} {where:<47} {what}")
    replies = sum(what.startswith("reply") for _, _, what in seen.rows)
    print(f"{len(seen.rows)} messages: {len(seen.calls)} calls, {replies} replies, {len(seen.rows) - len(seen.calls) - replies} cast; "
          f"{seen.others} others passed meanwhile")  # fmt: skip
    return status


def main(verb: str, config: str, *words: str) -> int:
    match verb:
        case "refused":
            return asyncio.run(refused(config, words[0]))
        case "count":
            return asyncio.run(count(config, words[0], list(words[1:])))
    raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
