"""The two sides of the matrix: the real oslo.messaging as one process for the whole run, and a service of ours for each test."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol, Self

import aiormq
import aiormq.abc

from common.base.context import Context
from common.base.errors import NotFound
from common.host.clock import SystemClock
from common.rpc.client import RpcClient
from common.rpc.contract import Contract, call, cast
from common.rpc.options import RpcOptions
from common.rpc.session import Serving, client, serving
from common.transport.port import Transport
from common.transport.url import open_transport
from tests.compat.exceptions import FlavorNotFound

ROOT = Path(__file__).parents[2]
CLOCK = SystemClock()
OPTIONS = RpcOptions(control_exchange="nova", ping_enabled=True)
WAIT_S = 20
CTX = Context(user_id="u1")


# -- oslo's side ----------------------------------------------------------------------------------------------------------


class OsloPeer:
    """`driven_peer.py` on a virtual host of its own. It serves topic `oslo` as `host1`, exchange nova."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._errors = (folder / "oslo.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("driven_peer.py")), url], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._errors, env={"PYTHONPATH": str(ROOT), "PATH": os.defpath},
        )  # fmt: skip
        self._numbers = count(1)
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._seen: list[dict[str, Any]] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="reads oslo")
        self._reader.start()

    async def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """What came of an order: {"result"}, {"remote", "value"} or {"raised", "said", "args", "kwargs"}, and "took_s"."""
        return await asyncio.wait_for(asyncio.wrap_future(self._send(do, order)), WAIT_S)

    def tell(self, do: str, **order: Any) -> None:
        """The same, for whoever does not run in a loop."""
        self._send(do, order).result(WAIT_S)

    async def call(self, topic: str, method: str, /, ctxt: Mapping[str, Any] | None = None, **words: Any) -> dict[str, Any]:
        """A call by oslo's client, of version 6.0 unless `target` says otherwise.

        Of `words`, those that `client` of the peer takes are its; the rest are arguments.
        """
        return await self._use("call", topic, method, ctxt, words)

    async def cast(self, topic: str, method: str, /, ctxt: Mapping[str, Any] | None = None, **words: Any) -> dict[str, Any]:
        """The same for a cast."""
        return await self._use("cast", topic, method, ctxt, words)

    async def seen(self, word: str, count: int = 1) -> list[dict[str, Any]]:
        """What its endpoints told of this word, as soon as it is that much."""
        return await asyncio.to_thread(self._wait_for, word, count)

    def told(self) -> list[dict[str, Any]]:
        """Everything that its endpoints told so far."""
        with self._more:
            return list(self._seen)

    def log(self) -> str:
        """What it logged so far: warnings and errors."""
        return Path(self._errors.name).read_text()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._reader.join()
        self._errors.close()

    async def _use(self, do: str, topic: str, method: str, ctxt: Mapping[str, Any] | None, words: dict[str, Any]) -> dict[str, Any]:
        target = {"topic": topic, "version": "6.0", **words.pop("target", {})}
        own = {key: words.pop(key) for key in _CLIENT_WORDS & words.keys()}
        return await self.ask(do, method=method, ctxt=ctxt or {"user_id": "u1"}, args=words, target=target, **own)

    def _send(self, do: str, order: Mapping[str, Any]) -> Future[dict[str, Any]]:
        number = next(self._numbers)
        future: Future[dict[str, Any]] = Future()
        self._waiting[number] = future
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps({'id': number, 'do': do, **order})}\n".encode())
        self._process.stdin.flush()
        return future

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            found: dict[str, Any] = json.loads(text)
            number = found.pop("id", None)
            if number is not None:
                self._waiting.pop(number).set_result(found)
                continue
            with self._more:
                self._seen.append(found)
                self._more.notify_all()
        for waiting in self._waiting.values():
            waiting.set_exception(RuntimeError(f"the peer ended; its words are in {self._errors.name}"))

    def _wait_for(self, word: str, count: int) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            return [each for each in self._seen if each["word"] == word]

        with self._more:
            self._more.wait_for(lambda: len(found()) >= count, WAIT_S)
            return found()


_CLIENT_WORDS = {"url", "serializer", "at_least_once", "prepare", "timeout", "version_cap", "call_monitor_timeout", "retry"}


class OsloAPI(Contract, Protocol, topic="oslo", version="6.5", exchange="nova"):
    """The peer's newest endpoint as a contract of ours."""

    @call(since="6.0")
    async def which(self, ctx: Context) -> str: ...

    @call(since="6.0")
    async def echo(self, ctx: Context, *, x: Any) -> dict[str, Any]: ...

    @cast(since="6.0")
    async def note(self, ctx: Context, *, word: str) -> None: ...

    @call(since="6.0")
    async def hold(self, ctx: Context, *, key: str) -> str: ...

    @call(since="6.0")
    async def last(self, ctx: Context, *, seconds: float) -> str: ...

    @call(since="6.0")
    async def fail(self, ctx: Context, *, how: str) -> None: ...

    @call(since="6.0")
    async def expected(self, ctx: Context) -> None: ...

    @call(since="6.3")
    async def exposed(self, ctx: Context) -> str: ...

    @call(since="6.0")
    async def nope(self, ctx: Context) -> None: ...


# -- our side -------------------------------------------------------------------------------------------------------------


class HostNotFound(NotFound):
    """Instance {instance_id} could not be found."""

    wire = ("tests.compat.exceptions", "HostNotFound")


class NotAllowedThere(NotFound):
    """The peer allows no module {name}."""

    wire = ("nova.exception", "NotAllowedThere")


class OursAPI(Contract, Protocol, topic="ours", version="6.5"):
    @call(since="6.0")
    async def which(self, ctx: Context) -> str: ...

    @call(since="6.0")
    async def echo(self, ctx: Context, *, x: Any) -> dict[str, Any]: ...

    @cast(since="6.0")
    async def note(self, ctx: Context, *, word: str) -> None: ...

    @call(since="6.0")
    async def hold(self, ctx: Context, *, key: str) -> str: ...

    @call(since="6.0")
    async def last(self, ctx: Context, *, seconds: float) -> str: ...

    @call(since="6.0", raises=(KeyError, ValueError, FlavorNotFound))
    async def fail(self, ctx: Context, *, how: str) -> None: ...

    @call(since="6.0")
    async def unserialisable(self, ctx: Context) -> Any: ...

    @call(since="6.5")
    async def newest(self, ctx: Context) -> str: ...


class OldOursAPI(Contract, Protocol, topic="ours", version="5.13"):
    @call()
    async def which(self, ctx: Context) -> str: ...


class SpacedOursAPI(Contract, Protocol, topic="ours", version="1.1", namespace="baseapi", legacy_namespaces=("base",)):
    @call()
    async def which(self, ctx: Context) -> str: ...


class PlainOursAPI(Contract, Protocol, topic="ours", version="1.0"):
    @call()
    async def which(self, ctx: Context) -> str: ...


@dataclass
class Ours(OursAPI):
    """Our service. `at` is its name in answers."""

    at: str
    notes: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    began: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    ended: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    contexts: list[Context] = field(default_factory=list)

    async def which(self, ctx: Context) -> str:
        return "6.5"

    async def echo(self, ctx: Context, *, x: Any) -> dict[str, Any]:
        self.contexts.append(ctx)
        return {"x": x, "ctxt": ctx.to_dict(), "at": self.at}

    async def note(self, ctx: Context, *, word: str) -> None:
        self.notes.put_nowait(word)

    async def hold(self, ctx: Context, *, key: str) -> str:
        self.began.put_nowait(key)
        try:
            await self.gate.wait()
        finally:
            self.ended.put_nowait(key)
        return key

    async def last(self, ctx: Context, *, seconds: float) -> str:
        await CLOCK.sleep(seconds)
        return "lasted"

    async def fail(self, ctx: Context, *, how: str) -> None:
        match how:
            case "key":
                raise KeyError("volume-1")
            case "value":
                raise ValueError("bad", 42)
            case "host":
                raise HostNotFound(instance_id="i-1")
            case "flavor":
                raise FlavorNotFound(instance_id="v-1", code=404)
            case "not allowed":
                raise NotAllowedThere(name="nova.exception")
            case _:
                raise ZeroDivisionError("a bug")

    async def unserialisable(self, ctx: Context) -> Any:
        return object()

    async def newest(self, ctx: Context) -> str:
        return "newest"


class OldOurs(OldOursAPI):
    async def which(self, ctx: Context) -> str:
        return "5.13"


class SpacedOurs(SpacedOursAPI):
    async def which(self, ctx: Context) -> str:
        return "baseapi"


class PlainOurs(PlainOursAPI):
    async def which(self, ctx: Context) -> str:
        return "1.0"


@dataclass(frozen=True)
class Us:
    """A service of ours and a client on one connection."""

    transport: Transport
    service: Ours
    rpc: RpcClient

    @property
    def oslo(self) -> OsloAPI:
        """Our client of the peer."""
        return OsloAPI.over(self.rpc)


@asynccontextmanager
async def serving_ours(
    url: str, *, topic: str = "ours", server: str = "host1", exchange: str | None = None, options: RpcOptions = OPTIONS,
    transport: Transport | None = None, more: Sequence[object] = (),
) -> AsyncIterator[Us]:  # fmt: skip
    """Our service, of four contracts and `more` before them, as `<topic>.<server>`. It closes `transport`."""
    made = transport or await open_transport(url, clock=CLOCK, connection_name="ours")
    service = Ours(f"{topic}.{server}")
    endpoints = [*more, service, OldOurs(), SpacedOurs(), PlainOurs()]
    try:
        async with (
            serving(made, Serving(endpoints, server, topic=topic, exchange=exchange), clock=CLOCK, options=options, grace_s=1),
            client(made, clock=CLOCK, options=options) as rpc,
        ):
            yield Us(made, service, rpc)
    finally:
        await made.close()


@asynccontextmanager
async def client_of_ours(url: str, options: RpcOptions = OPTIONS) -> AsyncIterator[RpcClient]:
    """A client alone."""
    transport = await open_transport(url, clock=CLOCK, connection_name="ours")
    try:
        async with client(transport, clock=CLOCK, options=options) as rpc:
            yield rpc
    finally:
        await transport.close()


# -- the wire between them ------------------------------------------------------------------------------------------------


class Raw:
    """AMQP by hand, without either framework."""

    def __init__(self, channel: aiormq.abc.AbstractChannel) -> None:
        self.channel = channel

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str) -> AsyncIterator[Self]:
        connection = await aiormq.connect(url.replace("rabbit://", "amqp://"))
        try:
            yield cls(await connection.channel())
        finally:
            await connection.close()

    async def declare(self, queue: str, exchange: str = "", key: str = "", *, kind: str = "topic") -> None:
        """A queue, bound as oslo.messaging would bind it."""
        await self.channel.queue_declare(queue)
        if exchange:
            await self.channel.exchange_declare(exchange, exchange_type=kind, auto_delete=kind == "fanout")
            await self.channel.queue_bind(queue, exchange, key)

    async def take(self, queue: str) -> aiormq.abc.DeliveredMessage:
        """The message that waits in the queue, or comes soon."""
        async with asyncio.timeout(WAIT_S):
            while isinstance((found := await self.channel.basic_get(queue, no_ack=True)).delivery, aiormq.spec.Basic.GetEmpty):
                await CLOCK.sleep(0.02)
        return found

    async def until_empty(self, queue: str) -> None:
        """Returns when nothing waits in the queue any more."""
        async with asyncio.timeout(WAIT_S):
            while (await self.channel.queue_declare(queue, passive=True)).message_count:
                await CLOCK.sleep(0.02)

    async def publish(self, exchange: str, key: str, body: bytes, **properties: Any) -> None:
        found = aiormq.spec.Basic.Properties(content_type="application/json", content_encoding="utf-8", **properties)
        await self.channel.basic_publish(body, exchange=exchange, routing_key=key, properties=found)

    async def send(self, exchange: str, key: str, message: Mapping[str, Any]) -> None:
        """A message in oslo.messaging's envelope."""
        await self.publish(exchange, key, enveloped(message))


def enveloped(message: Mapping[str, Any]) -> bytes:
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def opened(body: bytes) -> dict[str, Any]:
    """What a body says, the JSON inside the JSON decoded."""
    outer: dict[str, Any] = json.loads(body)
    inner: dict[str, Any] = json.loads(outer["oslo.message"]) if "oslo.message" in outer else outer
    if isinstance(inner.get("failure"), str):
        inner["failure"] = json.loads(inner["failure"])
    return inner
