"""Calls and casts over a transport."""

import asyncio
import math
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET
from msgspec.structs import replace as changed

from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Broken, Misconfigured, Timeout, Unavailable
from common.base.ids import new_hex
from common.base.limits import ABSENCE_S, ADDRESSES_REMEMBERED, CALLS_IN_FLIGHT_MAX, RESEND_FIRST_S, RESEND_MAX_S
from common.base.retry import Retry
from common.base.trace import Trace
from common.host.lean import structlog
from common.rpc.contract import Method, Route
from common.rpc.counts import Counts, Event
from common.rpc.dispatch import InvalidArguments
from common.rpc.middleware import ClientMiddleware, Outgoing, chained
from common.rpc.options import RpcOptions
from common.rpc.topology import cancellations, destination, new_reply_queue
from common.rpc.waiting import Confirm, Late, NoSignOfLife, NotPublished, Waiting
from common.transport.deadlines import Deadlines
from common.transport.errors import check_size
from common.transport.port import BusUnavailable, Closed, Consumer, Delivery, Exchange, Message, Pipelining, Transport, Unroutable
from common.wire.address import routing_key
from common.wire.caller import InFlight
from common.wire.compression import plain
from common.wire.envelope import NotAMessage
from common.wire.failure import decode_failure
from common.wire.messages import AnyRequest, Reply, Request, UsualRequest, cancellation, encoded, unread_reply
from common.wire.values import WrongValue, from_primitive

T = TypeVar("T")
_Place = tuple[Exchange, str, tuple[str, str]]
"""Exchange and routing key of a route, and its name among those that were reached."""

_REPLIES_PREFETCH = 100
_LOOK_AGAIN_S = 0.1
_RESEND = Retry(first_delay_s=RESEND_FIRST_S, factor=2.0, delay_s_max=RESEND_MAX_S)
_log = structlog.get_logger(__name__)


class NobodyListens(Unroutable):
    """Nobody listens on {address} (exchange {exchange}): the service is not running, or it is on another bus."""


class UnusableReply(Broken):
    """{method} on {address} answered something else than its contract says: {reason}"""


class RpcClient:
    """Implements `common.rpc.contract.Sender`. Calls in flight share one reply queue, made at the first call.

    middleware   around every call and cast, the first one outermost
    """

    def __init__(
        self, transport: Transport, *, options: RpcOptions, clock: Clock, middleware: Sequence[ClientMiddleware] = (),
        counts: Counts | None = None,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._options = options
        self._clock = clock
        self._calling, self._casting = chained(middleware, self._call), chained(middleware, self._cast)
        self.counts = counts or Counts()
        self._foreign = _modules(options.allowed_remote_exmods)
        self._in_flight: InFlight[Waiting] = InFlight(CALLS_IN_FLIGHT_MAX)
        self._reply_queue = new_reply_queue(options)
        self._replies: Consumer | None = None
        self._reached: dict[tuple[str, str], None] = {}
        self._places: dict[tuple[str, str | None, str | None, bool], _Place] = {}
        self._opening = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._pipelining = transport if isinstance(transport, Pipelining) else None
        self._deadlines: Deadlines | None = None
        self._closed = False

    @property
    def transport(self) -> Transport:
        """What requests go out over; whoever opened it closes it."""
        return self._transport

    def call(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
        """The result, as the type that the contract declares."""
        if route.fanout:
            raise ValueError(f"{method.name} is a call: it wants one answer and cannot go to every server of {route.topic}")
        return self._calling(Outgoing(route, method, ctx, arguments))

    def cast(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> Coroutine[Any, Any, None]:
        """Returns when the bus has the message."""
        return self._casting(Outgoing(route, method, ctx, arguments))

    def draft(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> Message:
        """The message of a cast, for who sends it himself. Raises InvalidArguments, MessageTooLarge."""
        sent = Outgoing(route, method, ctx, arguments)
        message = self._message(self._place(route), self._request(sent))
        check_size(message)
        return message

    async def listeners(self, route: Route) -> int | None:
        """How many servers listen on a route now; None when the transport cannot know."""
        return await self._transport.consumers(routing_key(route.topic, route.server))

    async def close(self) -> None:
        """Calls still in flight end with Closed; the reply queue goes."""
        self._closed = True
        for waiting in self._in_flight.waiters():
            waiting.fail(Closed(url=self._transport.url))
        if self._deadlines is not None:
            self._deadlines.close()
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=self._options.publish_timeout_s)
        replies, self._replies = self._replies, None
        if replies is not None:
            await self._leave(replies)

    # -- sending ------------------------------------------------------------------------------------------------------

    async def _call(self, sent: Outgoing) -> Any:
        route, method = sent.route, sent.method
        timeout_s = self._timeout_s(route, method, sent.ctx)
        if self._may_ask_soon(sent, timeout_s):
            reply = await self._ask_soon(sent, timeout_s)
        else:
            reply = await self._within(timeout_s, f"{method.name} on {route}", self._ask(sent, timeout_s))
        if reply.failure is not None:
            raise decode_failure(reply.failure, self._foreign)
        try:
            if type(reply.result) is msgspec.Raw:
                return method.signature.result.decode(reply.result)
            return from_primitive(reply.result, method.result)
        except WrongValue as exc:
            raise UnusableReply(method=method.name, address=str(route), reason=str(exc)) from exc

    async def _cast(self, sent: Outgoing) -> None:
        timeout_s = min(self._timeout_s(sent.route, sent.method, sent.ctx), self._options.publish_timeout_s)
        place = self._place(sent.route)
        message = self._message(place, self._request(sent))
        failed_with: Exception | None = None
        if self._pipelining is not None and sent.route.publish_s is None and timeout_s > 0:
            began_s = self._clock.monotonic()
            try:
                if await self._told_soon(sent, message, timeout_s):
                    if place[2] not in self._reached:
                        self._note_reached(place[2])
                    return
            except NotPublished as exc:
                failed_with = exc.cause
                timeout_s -= self._clock.monotonic() - began_s
        publishing = self._publish(sent.route, message, timeout_s=timeout_s, failed_with=failed_with)
        await self._within(timeout_s, f"{sent.method.name} to {sent.route}", publishing)

    async def _told_soon(self, sent: Outgoing, message: Message, timeout_s: float) -> bool:
        """True when the bus has it; False: it must be waited for before it can leave. Raises NotPublished, Timeout."""
        assert self._pipelining is not None
        self._check_open()
        deadlines = self._all_deadlines()
        confirm = Confirm(deadlines.loop)
        if not self._pipelining.publish_soon(message, confirm.published):
            return False
        deadlines.add(confirm, timeout_s)
        try:
            await confirm.told
        except Late as exc:
            raise Timeout(what=f"{sent.method.name} to {sent.route}", timeout_s=timeout_s) from exc
        finally:
            deadlines.done(confirm)
        return True

    def _all_deadlines(self) -> Deadlines:
        if self._deadlines is None:
            self._deadlines = Deadlines(asyncio.get_running_loop())
        return self._deadlines

    def _may_ask_soon(self, sent: Outgoing, timeout_s: float) -> bool:
        """True when one future is all that the call needs to wait for."""
        method = sent.method
        return (
            self._pipelining is not None
            and self._replies is not None
            and not method.once
            and method.monitor_s is None
            and sent.route.monitor_s is None
            and timeout_s > 0
        )

    async def _ask_soon(self, sent: Outgoing, timeout_s: float) -> Reply:
        """As `_ask`, without a wait of its own for the confirm, and with a deadline among others instead of a timer."""
        assert self._pipelining is not None
        self._check_open()
        deadlines, route, msg_id = self._all_deadlines(), sent.route, new_hex()
        place = self._place(route)
        message = self._message(place, self._request(sent, msg_id=msg_id, deadline_s=timeout_s), expires_s=timeout_s)
        waiting = Waiting(self._clock, deadlines.loop)
        deadline = deadlines.add(waiting, timeout_s)
        self._in_flight.add(msg_id, waiting)
        try:
            if not self._pipelining.publish_soon(message, waiting.published):
                return await self._published_and_answered(sent, message, waiting, deadline, None)
            try:
                reply = await waiting.answered
            except NotPublished as exc:
                waiting.again()
                return await self._published_and_answered(sent, message, waiting, deadline, exc.cause)
            if place[2] not in self._reached:
                self._note_reached(place[2])
        except Late as exc:
            raise Timeout(what=f"{sent.method.name} on {route}", timeout_s=timeout_s) from exc
        except asyncio.CancelledError:
            self._tell_that_we_left(route, msg_id, deadline)
            raise
        else:
            return reply
        finally:
            deadlines.done(waiting)
            self._in_flight.remove(msg_id)

    async def _published_and_answered(
        self, sent: Outgoing, message: Message, waiting: Waiting, deadline: float, failed_with: Exception | None
    ) -> Reply:
        """The rest of a call that has to wait for the bus, or whose first try the bus did not take: `failed_with`."""
        left_s = deadline - self._clock.monotonic()
        what = f"{sent.method.name} on {sent.route}"
        publishing = self._publish(sent.route, message, timeout_s=left_s, failed_with=failed_with)
        await self._within(left_s, what, _sent_or_answered(publishing, waiting))
        return await waiting.answered

    async def _ask(self, sent: Outgoing, timeout_s: float) -> Reply:
        deadline = self._clock.monotonic() + timeout_s
        if self._replies is None:
            await self._listen_for_replies()
            timeout_s = max(0.0, deadline - self._clock.monotonic())  # what is left: nothing shall outlive its caller
        method, route = sent.method, sent.route
        monitor_s = route.monitor_s or method.monitor_s
        msg_id = new_hex()
        request = self._request(sent, msg_id=msg_id, deadline_s=timeout_s, monitor_s=monitor_s)
        waiting = Waiting(self._clock, asyncio.get_running_loop())
        self._in_flight.add(msg_id, waiting)
        try:
            message = self._message(self._place(route), request, expires_s=timeout_s)
            await _sent_or_answered(self._publish(route, message, timeout_s=timeout_s), waiting)
            if method.once:
                return await self._ask_until_heard(sent, request, waiting, deadline, monitor_s)
            return await waiting.reply(monitor_s)
        except NoSignOfLife as exc:
            raise Timeout(what=f"{method.name} on {route} (no sign of life)", timeout_s=monitor_s or 0) from exc
        except asyncio.CancelledError:
            self._tell_that_we_left(route, msg_id, deadline)
            raise
        finally:
            self._in_flight.remove(msg_id)

    async def _ask_until_heard(
        self, sent: Outgoing, request: AnyRequest, waiting: Waiting, deadline: float, monitor_s: float | None
    ) -> Reply:
        """Repeat the request, under the same `_unique_id`, until there is an answer: some queue on its way may have been lost."""
        repeats = 0
        while True:
            repeats += 1
            if (reply := await waiting.reply_within(_RESEND.delay_s(repeats), monitor_s)) is not None:
                return reply
            left_s = deadline - self._clock.monotonic()
            again = changed(request, deadline_s=left_s)
            self.counts.add(Event.RESENT)
            _log.info("call sent again", method=sent.method.name, address=str(sent.route))
            with suppress(Unavailable, Unroutable):  # the next time, or the deadline
                await self._publish(sent.route, self._message(self._place(sent.route), again, expires_s=left_s), timeout_s=left_s)

    def _request(
        self, sent: Outgoing, *, msg_id: str | None = None, deadline_s: float | None = None, monitor_s: float | None = None
    ) -> AnyRequest:
        """Raises InvalidArguments."""
        method, route, ctx = sent.method, sent.route, sent.ctx
        try:
            args = method.signature.encode(sent.arguments)
        except WrongValue as exc:
            raise InvalidArguments(method=method.name, reason=str(exc)) from exc
        reply_q = self._reply_queue.name if msg_id else None
        unique_id, trace = new_hex(), ctx.trace.child() if ctx.trace else Trace.new()
        if ctx.others or trace.state:
            context = ctx.sent(trace, with_fence=msg_id is not None)
            return Request(
                method.name, msgspec.json.decode(args), unique_id, route.namespace, method.version, msg_id, reply_q, monitor_s,
                deadline_s, context,
            )  # fmt: skip
        return UsualRequest(
            method.name, args, route.namespace, method.version, msg_id, reply_q, monitor_s if msg_id else UNSET, deadline_s,
            unique_id, ctx.request_id, ctx.user_id, ctx.user_id, ctx.project_id, ctx.project_id, ctx.is_admin, ctx.roles,
            ctx.fence or UNSET if msg_id else UNSET, trace.traceparent,
        )  # fmt: skip

    @staticmethod
    def _message(place: _Place, request: AnyRequest, *, expires_s: float | None = None) -> Message:
        exchange, key, _ = place
        body, headers = encoded(request)
        expiration_ms = None if expires_s is None else max(0, int(expires_s * 1000))
        return Message(exchange, key, body, True, expiration_ms, headers)

    async def _publish(self, route: Route, message: Message, *, timeout_s: float, failed_with: Exception | None = None) -> None:
        """The caller sets the time limit of the whole; `timeout_s` is that of one try. `failed_with`: what a first one came to."""
        _, _, place = self._place(route)
        exchange = place[0]
        timeout_s = timeout_s if route.publish_s is None else min(timeout_s, route.publish_s)
        was_reached, until = place in self._reached, math.inf
        while True:
            self._check_open()
            try:
                if isinstance(failed_with, Unroutable):
                    raise failed_with
                await self._transport.publish(message, timeout_s=timeout_s)
            except BusUnavailable as exc:
                if _may_be_there(failed_with):
                    exc.fields = {**exc.fields, "is_sent": True}
                raise
            except Unroutable as exc:
                failed_with = None
                until = min(until, self._clock.monotonic() + ABSENCE_S)  # from the first refusal: the try itself may have waited
                if not was_reached or self._clock.monotonic() >= until:
                    self._reached.pop(place, None)
                    raise NobodyListens(address=str(route), exchange=exchange) from exc
            else:
                self._note_reached(place)
                return
            await self._clock.sleep(_LOOK_AGAIN_S)

    def _place(self, route: Route) -> _Place:
        """Exchange and routing key of a route, and its name among those that were reached."""
        words = route.topic, route.server, route.exchange, route.fanout
        if (found := self._places.get(words)) is None:
            exchange, key = destination(self._options, route)
            found = exchange, key, (exchange.name, str(route))
            if len(self._places) < ADDRESSES_REMEMBERED:
                self._places[words] = found
        return found

    def _note_reached(self, place: tuple[str, str]) -> None:
        if place not in self._reached:
            self._reached[place] = None
            if len(self._reached) > ADDRESSES_REMEMBERED:
                del self._reached[next(iter(self._reached))]

    def _tell_that_we_left(self, route: Route, msg_id: str, deadline: float) -> None:
        """Servers of our own kind end the handler. Whoever is at its deadline need not be told: so is the server."""
        if self._closed or self._clock.monotonic() >= deadline:
            return
        body = cancellation(msg_id, unique_id=new_hex())
        message = Message(cancellations(route.topic), "", body, expiration_ms=int((deadline - self._clock.monotonic()) * 1000))
        task = asyncio.get_running_loop().create_task(self._send_cancellation(message), name=f"leaves {route}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _send_cancellation(self, message: Message) -> None:
        try:
            await self._transport.publish(message, timeout_s=self._options.publish_timeout_s)
        except Unavailable as exc:
            _log.debug("server not told that its caller left", reason=str(exc))

    # -- time ---------------------------------------------------------------------------------------------------------

    def _timeout_s(self, route: Route, method: Method, ctx: Context) -> float:
        asked = route.timeout_s or method.timeout_s or self._options.response_timeout_s
        return asked if ctx.deadline is None else min(asked, ctx.deadline - self._clock.monotonic())

    async def _within(self, timeout_s: float, what: str, work: Coroutine[Any, Any, T]) -> T:
        if timeout_s <= 0:
            work.close()
            raise Timeout(what=what, timeout_s=0)
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                return await work
        except TimeoutError as exc:
            if not limit.expired():
                raise
            raise Timeout(what=what, timeout_s=timeout_s) from exc

    # -- replies ------------------------------------------------------------------------------------------------------

    async def _listen_for_replies(self) -> None:
        async with self._opening:
            self._check_open()
            if self._replies is not None:
                return
            replies = await self._transport.consume(
                self._reply_queue, prefetch=_REPLIES_PREFETCH, on_delivery=self._on_reply, on_remade=self._on_queue_lost
            )
            try:
                self._check_open()
            except Closed:
                await self._leave(replies)
                raise
            self._replies = replies

    def _on_reply(self, delivery: Delivery) -> None:
        delivery.ack_soon()
        try:
            reply = unread_reply(plain(delivery.body, delivery.headers))
        except NotAMessage as exc:
            _log.warning("reply dropped", reason=str(exc))
            self.counts.add(Event.REFUSED, exc.kind)
            return
        waiting = self._in_flight.claim(reply)
        if waiting is None:
            self.counts.add(Event.REPLY_ORPHAN)
        else:
            waiting.take(reply)

    def _on_queue_lost(self) -> None:
        """The broker lost our queue, and perhaps the requests too: whoever may repeat a call does so now."""
        waiting = self._in_flight.waiters()
        _log.warning("reply queue was lost with what waited in it", queue=self._reply_queue.name, calls=len(waiting))
        for each in waiting:
            each.hurry()

    async def _leave(self, replies: Consumer) -> None:
        await replies.cancel()
        with suppress(Unavailable):  # a bus that is away: the queue expires by itself
            await self._transport.delete_queue(self._reply_queue.name)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(url=self._transport.url)


async def _sent_or_answered(publishing: Coroutine[Any, Any, None], waiting: Waiting) -> None:
    """Returns when the request is published, or once a reply shows that it was: its confirm may be lost. Raises what publishing does."""
    task = asyncio.create_task(publishing)
    ends: list[asyncio.Future[Any]] = [task, waiting.answered]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not task.done():
            task.cancel()
    if task.done() and not task.cancelled():
        task.result()


def _may_be_there(failed_with: Exception | None) -> bool:
    """True when nobody knows whether the bus has the message of a first try."""
    return isinstance(failed_with, BusUnavailable) and bool(failed_with.fields.get("is_sent", True))


def _modules(names: Sequence[str]) -> Mapping[str, ModuleType]:
    """The modules that an operator or author allowed. Raises Misconfigured for one that cannot be imported."""
    try:
        return {name: import_module(name) for name in names}
    except ImportError as exc:
        raise Misconfigured(reason=f"allowed_remote_exmods: {exc}") from exc
