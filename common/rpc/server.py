"""A server: takes requests of one topic from the bus, runs the endpoint, replies, and settles the delivery last.

A delivery is acked when its handler has returned: for a cast that starts a flow this is when the flow's intent is durable. If the
process dies before, the bus gives the request to the next server. oslo.messaging acks first and loses it; a method declared with
`ack=Ack.EARLY` does the same.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context as Variables, ContextVar, copy_context
from enum import Enum, auto
from functools import partial
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec.structs import replace as changed

from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Broken, Fault, Unavailable
from common.base.failpoints import OFF, Failpoints
from common.base.ids import new_hex
from common.base.limits import CAST_RETRY_DELAY_S, DRAIN_TIMEOUT_S, PUBLISH_TIMEOUT_S
from common.host.lean import structlog
from common.rpc.callers import CallerLeft, Callers
from common.rpc.contract import Ack
from common.rpc.counts import Counts, Event
from common.rpc.dead_letters import ATTEMPTS, Morgue, attempts_of, is_counted, requeues_of
from common.rpc.dispatch import PING, Bound, Dispatcher
from common.rpc.inbox import Inbox
from common.rpc.middleware import ServerMiddleware
from common.rpc.once import RENEW_S, Once
from common.rpc.options import RpcOptions
from common.rpc.replies import Replier, Replying, failed
from common.rpc.stepping import Begun
from common.rpc.topology import server_queues
from common.rpc.work import Outcome, Work, beating
from common.transport.port import Consumer, Delivery, Message, Transport
from common.wire.callee import Answers
from common.wire.envelope import NotAMessage
from common.wire.messages import TRACE_HEADERS, AnyRequest, Request, UsualRequest, cancelled_call, decode_request, read_request

DELIVERED, HANDLED, REPLIED = "delivered", "handled", "replied"
"""Failpoints of a request: before its endpoint runs, before its outcome is told, and before it is acked."""
_BEAT_S_MIN = 0.1
_EARLY = Ack.EARLY
_log = structlog.get_logger(__name__)


def request_place(topic: str, method: str, place: str) -> str:
    """The name of a request's failpoint: rpc.compute.attach_volume.handled"""
    return f"rpc.{topic}.{method}.{place}"


class PoisonMessage(Broken):
    """{method} was begun {attempts} times and never ended; the last server that tried is {server}. It lies in the dead-letter queue."""


class _Verdict(Enum):
    ACK = auto()
    GIVE_BACK = auto()


class _Taken(msgspec.Struct, frozen=True):
    """A request with the delivery that brought it and the queue that it lay in.

    id         what makes it the same piece of work as another one
    attempts   how often it was begun before
    """

    request: AnyRequest
    delivery: Delivery
    queue: str
    id: str | None
    attempts: int = 0

    @classmethod
    def of(cls, request: AnyRequest, delivery: Delivery, queue: str) -> Self:
        headers, unique_id = delivery.headers, request.unique_id
        if headers.keys() <= TRACE_HEADERS:
            return cls(request, delivery, queue, unique_id)
        requeues = 0 if unique_id is None else requeues_of(headers)
        return cls(request, delivery, queue, f"{unique_id}#{requeues}" if requeues else unique_id, attempts_of(headers))


class RpcServer:
    """Serves `endpoints` as `server` on `topic`. `async with` starts and drains it.

    inbox        what this server shares with others to execute exactly-once methods once; None: it is the only one
    middleware   around every endpoint, the first one outermost
    """

    def __init__(
        self, transport: Transport, endpoints: Sequence[object], *, topic: str, server: str, exchange: str | None,
        options: RpcOptions, clock: Clock, grace_s: float = DRAIN_TIMEOUT_S, inbox: Inbox | None = None,
        middleware: Sequence[ServerMiddleware] = (), counts: Counts | None = None, failpoints: Failpoints = OFF,
    ) -> None:  # fmt: skip
        self._failpoints = failpoints
        self._transport = transport
        self._dispatcher = Dispatcher(endpoints, ping=options.ping_enabled)
        self._queues = server_queues(options, exchange=exchange, topic=topic, server=server)
        self._name = f"{topic}.{server}"
        self._options = options
        self._clock = clock
        self._grace_s = grace_s
        self._once = None if inbox is None else Once(inbox, server=self._name, clock=clock)
        self.counts = counts or Counts()
        self._replier = Replier(
            transport,
            server=self._name,
            clock=clock,
            counts=self.counts,
            retry_s=options.reply_retry_s,
            is_mandatory=options.replies_mandatory,
        )
        self._morgue = Morgue(
            transport,
            topic=self._dispatcher.topic or topic,
            server=self._name,
            exchange=exchange or options.control_exchange,
            clock=clock,
        )
        self._work = Work(
            server=self._name, clock=clock, counts=self.counts, middleware=middleware, delivery_limit=options.delivery_limit
        )
        self._answers = Answers(options.duplicates_remembered, options.answers_bytes)
        self._places = asyncio.Semaphore(options.prefetch)
        self._at_work: dict[str, asyncio.Future[None] | None] = {}
        self._callers = Callers()
        self._consumers: list[Consumer] = []
        self._running: set[asyncio.Task[None]] = set()
        self._begun: deque[tuple[Callable[[], Coroutine[Any, Any, None] | None], Delivery]] = deque()
        self._starters = 0
        self._replying = Replying()
        # A transport may call us in its publisher's context; what a request logs must not carry the caller's words.
        self._context = copy_context()

    async def __aenter__(self) -> Self:
        try:
            for queue in self._queues:
                on_delivery = partial(self._on_delivery, queue=queue.name)
                self._consumers.append(
                    await self._transport.consume(queue, prefetch=self._options.prefetch, on_delivery=on_delivery)
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
        for task in tuple(self._work.pausing):
            task.cancel()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        while self._begun:
            await settle(self._begun.popleft()[1], ack=False, requeue=True)
        await self._replying.wait(self._grace_s)
        await self._replier.close()
        if consumers and not self._options.names_come_back:
            with suppress(Unavailable):  # a bus that is away: the queue expires by itself
                await self._transport.delete_queue(self._queues[-1].name)

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def _on_delivery(self, delivery: Delivery, queue: str = "") -> None:
        try:
            request = read_request(delivery.body, delivery.headers)
        except NotAMessage as exc:
            self._begin(delivery, partial(self._stepped, partial(self._refuse, delivery, queue, exc)))
            return
        if isinstance(request, Request) and (msg_id := cancelled_call(request)) is not None:
            self._callers.leave(msg_id)
            delivery.ack_soon()
            return
        self._begin(delivery, partial(self._serve_at_once, _Taken.of(request, delivery, queue)))

    def _begin(self, delivery: Delivery, begin: Callable[[], Coroutine[Any, Any, None] | None]) -> None:
        """Begin it with others that came in the same moment, see `_begin_all`. `begin` returns what is left to do; None: nothing."""
        self._begun.append((begin, delivery))
        if not self._starters:
            self._start()

    def _start(self) -> None:
        self._starters += 1
        self._spawn(self._begin_all())

    async def _begin_all(self) -> None:
        """Begin what came in, one after another, in this one task as long as each ends at once.

        The first one that has to wait keeps the task, and each of the rest gets one in the same moment, so that what they
        send goes out together. Each has a context of its own.
        """
        self._starters -= 1
        rest = None
        try:
            while self._begun and rest is None:
                rest = self._begun.popleft()[0]()
        finally:
            for _ in range(len(self._begun) - self._starters):
                self._start()
        if rest is not None:
            await rest

    def _stepped(
        self, work: Callable[[], Coroutine[Any, Any, None]], context: Variables | None = None
    ) -> Coroutine[Any, Any, None] | None:
        """What is left of it after its first step; None: nothing."""
        begun = Begun(work(), self._context.copy() if context is None else context)
        return None if begun.is_done else begun.rest()

    def _serve_at_once(self, taken: _Taken) -> Coroutine[Any, Any, None] | None:
        """Serve it here and now, if nothing is unusual about it and its endpoint need not wait. What is left to do; None: nothing.

        This is `_handle` with all that it calls, for the one way that nearly every request goes.
        """
        request, delivery, key, context = taken.request, taken.delivery, taken.id, self._context.copy()
        if (
            type(request) is not UsualRequest
            or key is None
            or taken.attempts
            or delivery.redelivered
            or key in self._at_work
            or self._answers.knows(key)
            or self._callers.may_have_left(request.msg_id)
            or len(self._at_work) >= self._options.prefetch  # all places may be taken
            or self._failpoints.is_on
            or (bound := self._dispatcher.bind_usual(request)) is None
            or bound.method.once
            or bound.method.ack is _EARLY
        ):
            return self._stepped(partial(self._handle, taken), context)
        deadline = None if request.deadline_s is None else self._clock.monotonic() + request.deadline_s
        ctx = request.context(deadline=deadline, message_id=key)
        self._at_work[key] = None
        running: Coroutine[Any, Any, Any]
        try:
            begun = context.run(_first_step, self._work.run(request, bound, ctx, 0), ctx.request_id)
            if begun.is_done:
                reply = self._work.answer(request, bound, begun.result) if request.is_call else None
                self._answers.record(key, reply)
                if reply is None:
                    self._no_longer_at_work(key)
                    delivery.ack_soon()
                    return None
                if self._is_replied_soon(taken, reply, is_settled=False):
                    self._no_longer_at_work(key)
                    return None
                return self._stepped(partial(self._finish, taken, key, self._reply(taken, reply)), context)
            running = begun.rest()
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - what comes of that, the long way says
            running = _raising(exc)
        return self._stepped(partial(self._finish, taken, key, self._go_on(taken, bound, ctx, running)), context)

    async def _go_on(self, taken: _Taken, bound: Bound, ctx: Context, running: Coroutine[Any, Any, Any]) -> _Verdict | None:
        async with self._places:
            return await self._serve_bound(taken, bound, ctx, 0, running)

    async def _reply(self, taken: _Taken, reply: bytes) -> _Verdict:
        await self._replier.send(taken.request, reply)
        return _Verdict.ACK

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"rpc {self._name}", context=self._context.copy())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _refuse(self, delivery: Delivery, queue: str, error: NotAMessage) -> None:
        """What cannot be read is kept for a person, unless it is too large to be kept."""
        self.counts.add(Event.REFUSED, error.kind)
        _log.warning("message refused", server=self._name, reason=str(error))
        if error.kind == "size":
            await settle(delivery, ack=False)
        elif await self._is_kept(delivery, queue, error, attempts=1):
            await settle(delivery)

    async def _handle(self, taken: _Taken) -> None:
        delivery, key = taken.delivery, taken.id or new_hex()
        if isinstance(taken.request, UsualRequest):
            try:
                taken = changed(taken, request=decode_request(delivery.body))
            except NotAMessage as exc:
                await self._refuse(delivery, taken.queue, exc)
                return
        try:
            # A copy that the bus gives while we are at it waits for the end: it is all that is left of the request when the
            # connection of the first one is gone, and the first one is not done in the end.
            while key in self._at_work:
                await self._ended(key)
        except asyncio.CancelledError:
            await asyncio.shield(settle(delivery, ack=False, requeue=True))
            raise
        self._at_work[key] = None
        await self._finish(taken, key, self._serve_once(taken))

    async def _finish(self, taken: _Taken, key: str, serving: Coroutine[Any, Any, _Verdict | None]) -> None:
        """Settle it by what comes of serving it."""
        delivery = taken.delivery
        try:
            try:
                verdict = await serving
            finally:
                self._no_longer_at_work(key)
        except asyncio.CancelledError:
            await asyncio.shield(settle(delivery, ack=False, requeue=True))
            raise
        if verdict is _Verdict.ACK:
            delivery.ack_soon()
        elif verdict is not None:
            await settle(delivery, ack=False, requeue=True)

    def _no_longer_at_work(self, key: str) -> None:
        if (ended := self._at_work.pop(key)) is not None:
            ended.set_result(None)

    async def _ended(self, key: str) -> None:
        """Returns when whoever is at work on it has ended."""
        ended = self._at_work[key]
        if ended is None:
            ended = self._at_work[key] = asyncio.get_running_loop().create_future()
        await asyncio.wait([ended])

    # -- one request --------------------------------------------------------------------------------------------------

    async def _serve_once(self, taken: _Taken) -> _Verdict | None:
        """What becomes of the delivery; None: it is settled already."""
        request = taken.request
        if (answer := self._answers.recall(taken.id)) is not None:
            return await self._repeat(request, answer.body)
        if self._callers.has_left(request.msg_id):
            self.counts.add(Event.CANCELLED, "before it began")
            return _Verdict.ACK
        attempts = taken.attempts
        if taken.delivery.redelivered:
            self.counts.add(Event.REDELIVERED)
            if not is_counted(taken.delivery.headers):
                attempts += 1
                if attempts < self._options.deaths_limit:
                    return await self._again(taken, attempts)
        if attempts >= self._options.deaths_limit:
            return await self._give_up(taken, PoisonMessage(method=request.method, attempts=attempts, server=self._name), attempts)
        async with self._places:
            return await self._serve(taken, attempts)

    async def _repeat(self, request: AnyRequest, body: bytes | None) -> _Verdict:
        _log.info("duplicate dropped", server=self._name, method=request.method)
        self.counts.add(Event.DUPLICATE)
        if body is not None:
            await self._replier.send(request, body)
        return _Verdict.ACK

    async def _again(self, taken: _Taken, attempts: int) -> _Verdict:
        """Note on the message that a server died or left while it had it: the broker itself only says "redelivered".

        A copy with the new count takes its place. Should this process die in between there are two, which is harmless.
        """
        delivery, left_s = taken.delivery, taken.request.deadline_s
        copy = Message(
            None,
            taken.queue,
            delivery.body,
            expiration_ms=None if left_s is None else max(0, int(left_s * 1000)),
            headers={**delivery.headers, ATTEMPTS: attempts},
            content_type=delivery.content_type or "application/json",
        )
        try:
            await self._transport.publish(copy, timeout_s=PUBLISH_TIMEOUT_S)
        except Unavailable:
            return _Verdict.GIVE_BACK
        return _Verdict.ACK

    async def _serve(self, taken: _Taken, attempts: int) -> _Verdict | None:
        request = taken.request
        deadline = None if request.deadline_s is None else self._clock.monotonic() + request.deadline_s
        assert isinstance(request, Request)
        ctx = Context.from_dict(request.context, deadline=deadline, message_id=taken.id)
        structlog.contextvars.bind_contextvars(request_id=ctx.request_id)  # of this request's task alone
        try:
            bound = self._dispatcher.bind(request)
        except Fault as exc:
            # A ping asks whether somebody is there, and "no such method" tells it so.
            tell = _log.debug if request.method == PING else _log.warning
            tell("request refused", server=self._name, method=request.method, reason=str(exc))
            return await self._end(taken, Outcome(failed(request.msg_id or "", exc), exc))
        is_early = bound.method.ack is _EARLY
        if is_early:
            await settle(taken.delivery)
        if self._failpoints.is_on:
            await self._reach(bound, DELIVERED)
        verdict = await self._serve_bound(taken, bound, ctx, attempts)
        if self._failpoints.is_on:
            await self._reach(bound, REPLIED)
        return None if is_early else verdict

    async def _reach(self, bound: Bound, place: str) -> None:
        await self._failpoints.reach(request_place(self._dispatcher.topic or "", bound.method.name, place))

    async def _serve_bound(
        self, taken: _Taken, bound: Bound, ctx: Context, attempts: int, running: Coroutine[Any, Any, Any] | None = None
    ) -> _Verdict | None:
        """`running`: its endpoint, when that was begun already."""
        request = taken.request
        once = self._once if bound.method.once and taken.id else None
        if once is None:
            outcome = await self._done(request, bound, ctx, attempts, running=running)
            if self._failpoints.is_on:
                await self._reach(bound, HANDLED)
            is_settled = bound.method.ack is _EARLY
            if request.is_call and _is_refusal(outcome) and not is_settled:
                await self._refuse_call(taken, outcome)
                return None
            return await self._end(taken, outcome, is_settled=is_settled)
        message_id = taken.id or ""
        if (found := await once.begin(message_id, request)) is not None:
            self.counts.add(Event.DUPLICATE)
            return await self._end(taken, found)
        outcome = await self._done(request, bound, ctx, attempts, once=once)
        await once.finish(message_id, outcome.reply)
        if self._failpoints.is_on:
            await self._reach(bound, HANDLED)
        return await self._end(taken, outcome)

    def _done(
        self, request: AnyRequest, bound: Bound, ctx: Context, attempts: int, *, once: Once | None = None,
        running: Coroutine[Any, Any, Any] | None = None,
    ) -> Coroutine[Any, Any, Outcome]:  # fmt: skip
        work = self._work.do(request, bound, ctx, attempts=attempts, running=running)
        if request.msg_id is not None and request.deadline_s is not None:  # only our own peers say that they leave
            work = self._until_caller_leaves(request, request.msg_id, work)
        if once is None and not request.monitor_timeout_s:
            return work
        return self._while_alive(request, once, ctx.message_id, work)

    async def _while_alive(
        self, request: AnyRequest, once: Once | None, message_id: str | None, work: Coroutine[Any, Any, Outcome]
    ) -> Outcome:
        async with self._signs_of_life(request, once, message_id):
            return await work

    async def _until_caller_leaves(self, request: AnyRequest, msg_id: str, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        try:
            return await self._callers.run(msg_id, work)
        except CallerLeft:
            _log.info("call cancelled by its caller", server=self._name, method=request.method)
            self.counts.add(Event.CANCELLED, "while it ran")
            return Outcome()

    async def _end(self, taken: _Taken, outcome: Outcome, *, is_settled: bool = False) -> _Verdict | None:
        """Record what came of it, tell the caller, and keep what failed without one. None: the delivery is settled with the confirm."""
        request = taken.request
        error = None if request.is_call else outcome.error
        if error is not None and not await self._is_kept(taken.delivery, taken.queue, error, attempts=outcome.attempts):
            return _Verdict.GIVE_BACK
        self._answers.record(taken.id, outcome.reply)
        if outcome.reply is None:
            return _Verdict.ACK
        if not self._failpoints.is_on and self._is_replied_soon(taken, outcome.reply, is_settled=is_settled):
            return None
        await self._replier.send(request, outcome.reply)
        return _Verdict.ACK

    async def _refuse_call(self, taken: _Taken, outcome: Outcome) -> None:
        """Ack, then say no: who was told so must never see the next server do it, because this one died before its ack.

        A caller who hears nothing, since it died in between, knows that he does not know.
        """
        try:
            await taken.delivery.ack()
        except Unavailable as exc:
            _log.info("refusal not told; the bus gives the request again", server=self._name, reason=str(exc))
            return
        await self._end(taken, outcome, is_settled=True)

    def _is_replied_soon(self, taken: _Taken, reply: bytes, *, is_settled: bool) -> bool:
        """True when the reply is on its way, and nobody needs to wait for its confirm: that acks the request."""

        def on_end(error: Exception | None) -> None:
            self._replying.one_ended()
            if error is not None:
                self._spawn(self._reply_again(taken, reply, error, is_settled=is_settled))
            elif not is_settled:
                taken.delivery.ack_soon()

        if not self._replier.send_soon(taken.request, reply, on_end):
            return False
        self._replying.one_more()
        return True

    async def _reply_again(self, taken: _Taken, reply: bytes, error: Exception, *, is_settled: bool) -> None:
        await self._replier.send(taken.request, reply, failed_with=error)
        if not is_settled:
            await settle(taken.delivery)

    async def _give_up(self, taken: _Taken, error: Broken, attempts: int) -> _Verdict:
        if not await self._is_kept(taken.delivery, taken.queue, error, attempts=attempts):
            return _Verdict.GIVE_BACK
        _log.error("poison message", server=self._name, method=taken.request.method, reason=str(error))
        if taken.request.is_call:
            await self._replier.send(taken.request, failed(taken.request.msg_id or "", error))
        return _Verdict.ACK

    async def _is_kept(self, delivery: Delivery, queue: str, error: Exception, *, attempts: int) -> bool:
        """True when the dead-letter queue has it. If the bus does not take it now, the message itself goes back, a little later."""
        try:
            await self._morgue.take(delivery, queue=queue, error=error, attempts=attempts)
        except Fault as exc:
            _log.warning("dead letter not kept", server=self._name, reason=str(exc))
            await self._clock.sleep(CAST_RETRY_DELAY_S)
            return False
        self.counts.add(Event.DEAD_LETTER, type(error).__name__)
        return True

    # -- signs of life ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _signs_of_life(self, request: AnyRequest, once: Once | None, message_id: str | None) -> AsyncIterator[None]:
        """What tells others inside the block that the request is at work: its caller, and servers that share the inbox."""
        beats = []
        if request.is_call and request.monitor_timeout_s is not None and request.monitor_timeout_s > 0:
            beats.append(beating(max(request.monitor_timeout_s / 2, _BEAT_S_MIN), self._clock, partial(self._beat, request)))
        if once is not None and message_id is not None:
            beats.append(beating(RENEW_S, self._clock, partial(once.renew, message_id)))
        tasks = [asyncio.create_task(beat, name=f"beats {self._name}") for beat in beats]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _beat(self, request: AnyRequest) -> bool:
        try:
            await self._replier.beat(request)
        except Fault as exc:
            _log.debug("sign of life not sent", server=self._name, method=request.method, reason=str(exc))
            return isinstance(exc, Unavailable)
        return True


def _first_step(work: Coroutine[Any, Any, Any], request_id: str) -> Begun[Any]:
    _REQUEST_ID.set(request_id)  # in the context of this request alone
    return Begun(work)


def _variable_of(word: str) -> ContextVar[str]:
    """structlog's own variable for a word of the log: to set it costs a fifth of `bind_contextvars`."""
    marker, context = object(), copy_context()
    context.run(structlog.contextvars.bind_contextvars, **{word: marker})
    found: ContextVar[str] = next(variable for variable, value in context.items() if value is marker)
    return found


_REQUEST_ID = _variable_of("request_id")


async def _raising(exc: BaseException) -> Any:
    raise exc


def _is_refusal(outcome: Outcome) -> bool:
    """The caller will take it for final."""
    return isinstance(outcome.error, Fault) and not outcome.error.retryable


async def settle(delivery: Delivery, *, ack: bool = True, requeue: bool = False) -> None:
    """Ack or reject; a connection that is gone meanwhile is no error, since the bus then gives the message again."""
    try:
        if ack:
            delivery.ack_soon()
        else:
            await delivery.reject(requeue=requeue)
    except Unavailable as exc:
        _log.info("delivery could not be settled; the bus gives it again", reason=str(exc))
