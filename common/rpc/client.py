"""Calls and casts over a transport."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog

from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Broken, Timeout, Unavailable
from common.base.ids import new_hex
from common.base.limits import CALLS_IN_FLIGHT_MAX
from common.rpc.acknowledger import Acknowledger
from common.rpc.contract import Method, Route
from common.rpc.dispatch import InvalidArguments
from common.rpc.options import RpcOptions
from common.rpc.topology import destination, new_reply_queue
from common.transport.port import Closed, Consumer, Delivery, Message, Transport, Unroutable
from common.wire.address import routing_key
from common.wire.caller import InFlight
from common.wire.envelope import NotAMessage
from common.wire.failure import decode_failure
from common.wire.messages import Reply, Request, decode_reply, encode_request
from common.wire.values import WrongValue, from_primitive, to_primitive

_REPLIES_PREFETCH = 100
_log = structlog.get_logger(__name__)


class NobodyListens(Unroutable):
    """Nobody listens on {address} (exchange {exchange}): the service is not running, or it is on another bus."""


class UnusableReply(Broken):
    """{method} on {address} answered something else than its contract says: {reason}"""


class RpcClient:
    """Implements `common.rpc.contract.Sender`. Calls in flight share one reply queue, made at the first call."""

    def __init__(self, transport: Transport, *, options: RpcOptions, clock: Clock) -> None:
        self._transport = transport
        self._options = options
        self._clock = clock
        self._in_flight: InFlight[asyncio.Future[Reply]] = InFlight(CALLS_IN_FLIGHT_MAX)
        self._reply_queue = new_reply_queue()
        self._replies: Consumer | None = None
        self._acks = Acknowledger(_REPLIES_PREFETCH)
        self._opening = asyncio.Lock()
        self._closed = False

    async def call(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> Any:
        """The result, as the type that the contract declares."""
        if route.fanout:
            raise ValueError(f"{method.name} is a call: it wants one answer and cannot go to every server of {route.topic}")
        timeout_s = self._timeout_s(route, method, ctx)
        async with self._within(timeout_s, f"{method.name} on {route}"):
            reply = await self._ask(route, method, ctx, arguments, timeout_s)
        if reply.failure is not None:
            raise decode_failure(reply.failure)
        try:
            return from_primitive(reply.result, method.result)
        except WrongValue as exc:
            raise UnusableReply(method=method.name, address=str(route), reason=str(exc)) from exc

    async def cast(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> None:
        """Returns when the bus has the message."""
        timeout_s = min(self._timeout_s(route, method, ctx), self._options.publish_timeout_s)
        request = self._request(route, method, ctx, arguments)
        async with self._within(timeout_s, f"{method.name} to {route}"):
            await self._publish(route, request, timeout_s=timeout_s, expires=False)

    async def listeners(self, route: Route) -> int | None:
        """How many servers listen on a route now; None when the transport cannot know."""
        return await self._transport.consumers(routing_key(route.topic, route.server))

    async def close(self) -> None:
        """Calls still in flight end with Closed; the reply queue goes."""
        self._closed = True
        self._in_flight_closed()
        replies, self._replies = self._replies, None
        if replies is not None:
            await self._leave(replies)

    async def _leave(self, replies: Consumer) -> None:
        await replies.cancel()
        await self._acks.close()
        with suppress(Unavailable):  # a bus that is away: the queue expires by itself
            await self._transport.delete_queue(self._reply_queue.name)

    def _in_flight_closed(self) -> None:
        for future in self._in_flight.waiters():
            if not future.done():
                future.set_exception(Closed(url=self._transport.url))

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(url=self._transport.url)

    def _timeout_s(self, route: Route, method: Method, ctx: Context) -> float:
        asked = route.timeout_s or method.timeout_s or self._options.response_timeout_s
        return asked if ctx.deadline is None else min(asked, ctx.deadline - self._clock.monotonic())

    @asynccontextmanager
    async def _within(self, timeout_s: float, what: str) -> AsyncIterator[None]:
        if timeout_s <= 0:
            raise Timeout(what=what, timeout_s=0)
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as exc:
            raise Timeout(what=what, timeout_s=timeout_s) from exc

    async def _ask(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any], timeout_s: float) -> Reply:
        await self._listen_for_replies()
        msg_id = new_hex()
        request = self._request(route, method, ctx, arguments, msg_id=msg_id, deadline_s=timeout_s)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        with self._in_flight.waiting(msg_id, future):
            await self._publish(route, request, timeout_s=timeout_s, expires=True)
            return await future

    def _request(
        self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any], *, msg_id: str | None = None,
        deadline_s: float | None = None,
    ) -> Request:  # fmt: skip
        return Request(
            method=method.name,
            args={name: _sendable(method, name, value) for name, value in arguments.items()},
            unique_id=new_hex(),
            namespace=route.namespace,
            version=method.version,
            msg_id=msg_id,
            reply_q=self._reply_queue.name if msg_id else None,
            deadline_s=deadline_s,
            context=ctx.to_dict(),
        )

    async def _publish(self, route: Route, request: Request, *, timeout_s: float, expires: bool) -> None:
        self._check_open()
        exchange, key = destination(self._options, route)
        message = Message(
            exchange, key, encode_request(request), mandatory=True, expiration_ms=int(timeout_s * 1000) if expires else None
        )
        try:
            await self._transport.publish(message, timeout_s=timeout_s)
        except Unroutable as exc:
            raise NobodyListens(address=str(route), exchange=exchange.name) from exc

    async def _listen_for_replies(self) -> None:
        if self._replies is None:
            async with self._opening:
                self._check_open()
                if self._replies is None:
                    replies = await self._transport.consume(
                        self._reply_queue, prefetch=_REPLIES_PREFETCH, on_delivery=self._on_reply
                    )
                    try:
                        self._check_open()
                    except Closed:
                        await self._leave(replies)
                        raise
                    self._replies = replies

    def _on_reply(self, delivery: Delivery) -> None:
        self._acks.ack(delivery)
        try:
            reply = decode_reply(delivery.body)
        except NotAMessage as exc:
            _log.warning("reply dropped", reason=str(exc))
            return
        future = self._in_flight.claim(reply)
        if future is not None and not future.done():
            future.set_result(reply)


def _sendable(method: Method, name: str, value: Any) -> Any:
    try:
        return to_primitive(value, method.parameters.get(name, Any))
    except WrongValue as exc:
        raise InvalidArguments(method=method.name, reason=f"argument {name}: {exc}") from exc
