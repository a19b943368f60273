"""`lite rpc listen`: what passes to a topic, seen by a private queue, so that no server gets a message less."""

import asyncio
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import typer

from common.app.masking import mask
from common.base.clock import Clock
from common.base.ids import new_hex
from common.rpc.contract import Route
from common.rpc.options import RpcOptions
from common.rpc.server import settle
from common.rpc.topology import destination, topic_exchange
from common.transport.port import Binding, Delivery, Queue, Routed, Transport
from common.wire.envelope import NotAMessage
from common.wire.messages import decode_request

WAITING_MAX = 100
"""Messages that wait here to be printed; the broker keeps as many thousands and drops the oldest."""
_BROKERS = {"x-max-length": 1000, "x-max-length-bytes": 64 * 1024 * 1024, "x-expires": 60_000}
"""Of the private queue: should this process stop to read, the broker does not fill."""
_ARGUMENTS_SHOWN = 1000
"""Characters of a line for people."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A message that passed, as far as it can be read. `arguments` are masked."""

    at: datetime
    exchange: str
    key: str
    kind: str
    method: str | None = None
    version: str | None = None
    namespace: str | None = None
    request_id: str | None = None
    arguments: Any = None
    problem: str | None = None

    @property
    def line(self) -> str:
        """For people."""
        where = f"{self.at:%H:%M:%S}.{self.at.microsecond // 1000:03d} {self.exchange}/{self.key}"
        if self.problem is not None:
            return f"{where} not a request: {self.problem}"
        arguments = json.dumps(self.arguments, default=str)
        if len(arguments) > _ARGUMENTS_SHOWN:
            arguments = f"{arguments[:_ARGUMENTS_SHOWN]}..."
        method = f"{self.namespace}:{self.method}" if self.namespace else self.method
        return f"{where} {self.kind} {method} {self.version or '1.0'} {self.request_id or '-'} {_printable(arguments)}"

    @property
    def json(self) -> str:
        """For programs: one object in one line."""
        return json.dumps({
            "time": f"{self.at.isoformat(timespec='milliseconds')}Z", "exchange": self.exchange, "key": self.key, "kind": self.kind,
            "method": self.method, "version": self.version, "namespace": self.namespace, "request_id": self.request_id,
            "arguments": self.arguments, "problem": self.problem,
        }, default=str)  # fmt: skip


def passed(delivery: Delivery, *, at: datetime, exchange: str, key: str, is_fanout: bool) -> Passed:
    """What a delivery of the private queue tells. `exchange` and `key` are what the queue is bound by, for buses that say no more."""
    if isinstance(delivery, Routed):
        exchange, key = delivery.exchange, delivery.routing_key
    try:
        request = decode_request(delivery.body)
    except NotAMessage as exc:
        return Passed(at, exchange, key, "fanout" if is_fanout else "unknown", problem=str(exc))
    request_id = request.context.get("request_id")
    return Passed(
        at, exchange, key, "fanout" if is_fanout else "call" if request.is_call else "cast", request.method, request.version,
        request.namespace, None if request_id is None else str(request_id), mask(request.args),
    )  # fmt: skip


async def listen_until_told(
    transport: Transport, topic: str, *, options: RpcOptions, is_all: bool, as_json: bool, clock: Clock, tell: Callable[[str], None]
) -> None:
    """Print what passes until SIGINT or SIGTERM. Raises BusUnavailable, BusRefused."""
    loop = asyncio.get_running_loop()
    printing = loop.create_task(_print(transport, topic, options=options, is_all=is_all, as_json=as_json, clock=clock, tell=tell))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, printing.cancel)
    await asyncio.wait([printing])
    if not printing.cancelled():
        printing.result()


async def _print(
    transport: Transport, topic: str, *, options: RpcOptions, is_all: bool, as_json: bool, clock: Clock, tell: Callable[[str], None]
) -> None:
    seen: asyncio.Queue[tuple[Delivery, Queue]] = asyncio.Queue()  # bounded by the prefetch of its two consumers
    for queue in private_queues(topic, options=options, is_all=is_all):
        await transport.consume(queue, prefetch=WAITING_MAX, on_delivery=partial(_put, seen, queue))
    tell(f"Listening to {topic} on {transport.url}; Ctrl-C ends it.")
    while True:
        delivery, queue = await seen.get()
        first = queue.bindings[0]
        is_fanout = first.exchange.kind == "fanout"
        found = passed(delivery, at=clock.utcnow(), exchange=first.exchange.name, key=first.key, is_fanout=is_fanout)
        typer.echo(found.json if as_json else found.line)
        await settle(delivery)


def _put(seen: asyncio.Queue[tuple[Delivery, Queue]], queue: Queue, delivery: Delivery) -> None:
    seen.put_nowait((delivery, queue))


def private_queues(topic: str, *, options: RpcOptions, is_all: bool) -> list[Queue]:
    """One for fanout; with `is_all` another for the topic and its servers. They end with us."""
    fanout = destination(options, Route(topic=topic, version="1.0", fanout=True))[0]
    bound: list[tuple[Binding, ...]] = [(Binding(fanout, topic),)]
    if is_all:
        control = topic_exchange(options, None)
        bound.append((Binding(control, f"{topic}.#"), Binding(control, topic)))
    return [
        Queue(f"listen_{new_hex()}", bindings, auto_delete=True, exclusive=True, arguments=_BROKERS) for bindings in bound
    ]  # fmt: skip


def _printable(text: str) -> str:
    """Nothing that would move a terminal's cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
