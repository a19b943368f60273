"""A server: takes requests of one topic from the bus, runs the endpoint, replies, and settles the delivery last.

A delivery is acked when its handler has returned: for a cast that starts a flow this is when the flow's intent is durable. If the
process dies before, the bus gives the request to the next server. oslo.messaging acks first and loses it.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self

import structlog
from structlog.contextvars import bound_contextvars

from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Broken, Fault, Unavailable
from common.base.ids import new_hex
from common.base.limits import CAST_RETRY_DELAY_S, DRAIN_TIMEOUT_S, PUBLISH_TIMEOUT_S
from common.host.locks import KeyedLocks
from common.rpc.dispatch import Bound, Dispatcher
from common.rpc.options import RpcOptions
from common.rpc.topology import server_queues
from common.transport.port import Consumer, Delivery, Message, MessageTooLarge, Transport, Unroutable
from common.wire.callee import Duplicates
from common.wire.envelope import NotAMessage
from common.wire.failure import encode_failure
from common.wire.messages import Reply, Request, decode_request, encode_reply
from common.wire.values import to_primitive

_log = structlog.get_logger(__name__)


class InternalError(Broken):
    """{method} failed in a way nobody foresaw ({kind}); the log of {server} has the traceback"""

    code = 500


class RpcServer:
    """Serves `endpoints` as `server` on `topic`. `async with` starts and drains it."""

    def __init__(
        self, transport: Transport, endpoints: Sequence[object], *, topic: str, server: str, exchange: str | None,
        options: RpcOptions, clock: Clock, grace_s: float = DRAIN_TIMEOUT_S,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._dispatcher = Dispatcher(endpoints)
        self._queues = server_queues(options, exchange=exchange, topic=topic, server=server)
        self._name = f"{topic}.{server}"
        self._options = options
        self._clock = clock
        self._grace_s = grace_s
        self._duplicates = Duplicates(options.duplicates_remembered)
        self._at_work = KeyedLocks()
        self._consumers: list[Consumer] = []
        self._running: set[asyncio.Task[None]] = set()
        # A transport may call us in its publisher's context; what a request logs must not carry the caller's words.
        self._context = copy_context()

    async def __aenter__(self) -> Self:
        try:
            for queue in self._queues:
                self._consumers.append(
                    await self._transport.consume(queue, prefetch=self._options.prefetch, on_delivery=self._on_delivery)
                )
        except BaseException:
            await self.drain()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.drain()

    async def drain(self) -> None:
        """Take nothing new, let what runs end within the grace, give the rest back to the bus."""
        consumers, self._consumers = self._consumers, []
        for consumer in consumers:
            await consumer.cancel()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if consumers:
            with suppress(Unavailable):  # a bus that is away: the queue expires by itself
                await self._transport.delete_queue(self._queues[-1].name)

    def _on_delivery(self, delivery: Delivery) -> None:
        task = asyncio.get_running_loop().create_task(
            self._handle(delivery), name=f"rpc {self._name}", context=self._context.copy()
        )
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            request = decode_request(delivery.body)
        except NotAMessage as exc:
            _log.warning("message refused", server=self._name, reason=str(exc))
            await _settle(delivery, ack=False)
            return
        try:
            # A copy that the bus gives while we are at it waits for the end: it is all that is left of the request when the
            # connection of the first one is gone, and the first one is not done in the end.
            async with self._at_work.hold(request.unique_id or new_hex()):
                is_done = await self._serve_once(request)
        except asyncio.CancelledError:
            self._duplicates.forget(request.unique_id)
            await asyncio.shield(_settle(delivery, ack=False, requeue=True))
            raise
        await _settle(delivery, ack=is_done, requeue=not is_done)

    async def _serve_once(self, request: Request) -> bool:
        """False: the bus shall give the request again."""
        if self._duplicates.seen(request.unique_id):
            _log.info("duplicate dropped", server=self._name, method=request.method)
            return True
        is_done = await self._serve(request)
        if not is_done:
            await self._clock.sleep(CAST_RETRY_DELAY_S)
            self._duplicates.forget(request.unique_id)
        return is_done

    async def _serve(self, request: Request) -> bool:
        """False: a cast could not be begun for now (the database is away), and must not be lost."""
        deadline = None if request.deadline_s is None else self._clock.monotonic() + request.deadline_s
        ctx = Context.from_dict(request.context, deadline=deadline, message_id=request.unique_id)
        started = time.perf_counter()
        with bound_contextvars(request_id=ctx.request_id):
            reply = await self._reply_to(request, ctx)
            _log.debug("served", server=self._name, method=request.method, ms=round((time.perf_counter() - started) * 1000, 1))
            if request.is_call and reply is not None:
                await self._send(request, reply)
        return reply is not None

    async def _reply_to(self, request: Request, ctx: Context) -> bytes | None:
        """The reply's body; what cannot be written as JSON is an error too. None: a cast that must be tried again."""
        msg_id = request.msg_id or ""
        try:
            bound = self._dispatcher.bind(request)
            result = to_primitive(await _run(bound, ctx), bound.method.result)
            return encode_reply(Reply(msg_id, result=result, unique_id=new_hex()))
        except Fault as exc:
            if exc.retryable and not request.is_call:
                _log.warning("cast not served for now", server=self._name, method=request.method, reason=str(exc))
                return None
            # The caller of a call hears of it; of a cast only this log tells.
            level = logging.INFO if request.is_call else logging.ERROR
            _log.log(level, "request failed", server=self._name, method=request.method, reason=str(exc))
            return _failed(msg_id, exc)
        except Exception as exc:
            _log.exception("endpoint failed", server=self._name, method=request.method)
            fault = InternalError(method=request.method, kind=type(exc).__name__, server=self._name)
            return _failed(msg_id, fault)

    async def _send(self, request: Request, body: bytes) -> None:
        assert request.reply_q is not None
        message = Message(None, request.reply_q, body, mandatory=True)
        try:
            await self._transport.publish(message, timeout_s=PUBLISH_TIMEOUT_S)
        except MessageTooLarge as exc:
            _log.warning("reply refused", server=self._name, method=request.method, reason=str(exc))
            await self._send(request, _failed(request.msg_id or "", exc))
        except Unroutable:
            _log.info("caller is gone", server=self._name, method=request.method)
        except Fault as exc:
            _log.warning("reply not sent", server=self._name, method=request.method, reason=str(exc))


def _failed(msg_id: str, fault: Fault) -> bytes:
    return encode_reply(Reply(msg_id, failure=encode_failure(fault), unique_id=new_hex()))


async def _run(bound: Bound, ctx: Context) -> Any:
    return await bound.run(ctx)


async def _settle(delivery: Delivery, *, ack: bool, requeue: bool = False) -> None:
    try:
        if ack:
            await delivery.ack()
        else:
            await delivery.reject(requeue=requeue)
    except Unavailable as exc:
        _log.info("delivery could not be settled; the bus gives it again", reason=str(exc))
