"""One request from its endpoint's side: bind, run with deadline and signs of life, and what came of it."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Broken, Fault, Timeout
from common.base.ids import new_hex
from common.base.limits import CAST_RETRY_DELAY_S
from common.base.retry import Retry
from common.host.lean import structlog
from common.rpc.counts import Counts, Event
from common.rpc.dispatch import Bound
from common.rpc.middleware import Incoming, ServerMiddleware, chained
from common.rpc.replies import failed
from common.rpc.stepping import Begun
from common.wire.messages import AnyRequest, encode_result
from common.wire.values import WrongValue

_WHEN_AWAY = Retry(first_delay_s=CAST_RETRY_DELAY_S, factor=2.0, delay_s_max=30.0)
_AFTER_A_BUG = Retry(first_delay_s=0.1, factor=3.0, delay_s_max=5.0)
_log = structlog.get_logger(__name__)


class InternalError(Broken):
    """{method} failed in a way nobody foresaw ({kind}); the log of {server} has the traceback"""

    code = 500


class UnserialisableResult(Broken):
    """{method} of {server} returned what cannot be sent: {reason}"""


class Outcome(msgspec.Struct, frozen=True):
    """What came of a request: `reply` for a call; `error` when it failed, `attempts` after that many tries in this process."""

    reply: bytes | None = None
    error: Exception | None = None
    attempts: int = 1


class Work:
    """Runs bound requests of one server."""

    def __init__(
        self, *, server: str, clock: Clock, counts: Counts, middleware: Sequence[ServerMiddleware], delivery_limit: int
    ) -> None:
        self._server = server
        self._clock = clock
        self._counts = counts
        self._around = chained(middleware, _run) if middleware else None
        self._limit = delivery_limit
        self.pausing: set[asyncio.Task[Any]] = set()
        """Casts between two tries: whoever drains need not wait for them."""

    def do(
        self, request: AnyRequest, bound: Bound, ctx: Context, *, attempts: int, running: Coroutine[Any, Any, Any] | None = None
    ) -> Coroutine[Any, Any, Outcome]:
        """A call once; a cast until it is done, is refused for good, or has failed `delivery_limit` times.

        A cast that waits keeps its place at the bus, so that its queue cannot fill this process.

        running   the first try, when it was begun already
        """
        serve = self._call if request.is_call else self._cast
        return serve(request, bound, ctx, attempts, running)

    def run(self, request: AnyRequest, bound: Bound, ctx: Context, attempts: int) -> Coroutine[Any, Any, Any]:
        """The endpoint with the middleware around it."""
        if self._around is None:
            return bound.run(ctx)
        return self._around(Incoming(self._server, bound.method, ctx, bound.arguments, request.is_call, attempts, bound.run))

    def answer(self, request: AnyRequest, bound: Bound, result: Any) -> bytes:
        """The body of the reply. Raises UnserialisableResult."""
        try:
            written = bound.method.signature.result.encode(result)
        except WrongValue as exc:
            raise UnserialisableResult(method=bound.method.name, server=self._server, reason=str(exc)) from exc
        return encode_result(request.msg_id or "", written, new_hex())

    async def _cast(
        self, request: AnyRequest, bound: Bound, ctx: Context, attempts: int, running: Coroutine[Any, Any, Any] | None
    ) -> Outcome:
        tries = waits = 0
        while True:
            error = await self._attempt(request, bound, running or self.run(request, bound, ctx, attempts + tries))
            running = None
            if isinstance(error, Fault) and error.retryable:
                waits += 1
                _log.warning("cast not served for now", server=self._server, method=request.method, reason=str(error))
                await self._pause(_WHEN_AWAY.delay_s(min(waits, 10)))
                continue
            tries += 1
            if not isinstance(error, InternalError) or attempts + tries >= self._limit:
                return Outcome(error=error, attempts=attempts + tries)
            await self._pause(_AFTER_A_BUG.delay_s(tries))

    async def _pause(self, delay_s: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.pausing.add(task)
        try:
            await self._clock.sleep(delay_s)
        finally:
            self.pausing.discard(task)

    async def _call(
        self, request: AnyRequest, bound: Bound, ctx: Context, attempts: int, running: Coroutine[Any, Any, Any] | None
    ) -> Outcome:
        try:
            result = await self._within(ctx, running or self.run(request, bound, ctx, attempts))
            return Outcome(self.answer(request, bound, result))
        except Exception as exc:  # noqa: BLE001  # whatever an endpoint raises, its caller hears of it
            error = self._told(exc, request, bound)
            return Outcome(failed(request.msg_id or "", error), error)

    async def _attempt(self, request: AnyRequest, bound: Bound, work: Coroutine[Any, Any, Any]) -> Exception | None:
        try:
            await work
        except Exception as exc:  # noqa: BLE001  # nobody waits for a cast: what it raised decides what becomes of it
            return self._told(exc, request, bound)
        return None

    async def _within(self, ctx: Context, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of `work`, which is cancelled when nobody waits for it any more; one that ends at once needs no time limit."""
        left_s = math.inf if ctx.deadline is None else ctx.deadline - self._clock.monotonic()
        if left_s > 0:
            begun = Begun(work)
            if begun.is_done:
                return begun.result
            work = begun.rest()
        if left_s == math.inf:
            return await work
        limit = asyncio.timeout(left_s)
        try:
            async with limit:
                return await work
        except TimeoutError as exc:
            if not limit.expired():
                raise
            self._counts.add(Event.EXPIRED)
            raise Timeout(what=self._server, timeout_s=max(left_s, 0)) from exc

    def _told(self, exc: Exception, request: AnyRequest, bound: Bound) -> Exception:
        """What the caller is told; what a bug it is, only the log."""
        if isinstance(exc, (Fault, *bound.method.raises)):
            # The caller of a call hears of it; of a cast only this log tells, and the dead-letter queue.
            level = logging.INFO if request.is_call else logging.ERROR
            _log.log(level, "request failed", server=self._server, method=request.method, reason=str(exc))
            return exc
        _log.error("endpoint failed", server=self._server, method=request.method, exc_info=exc)
        return InternalError(method=request.method, kind=type(exc).__name__, server=self._server)


def _run(incoming: Incoming) -> Coroutine[Any, Any, Any]:
    return incoming.run(incoming.ctx)


async def beating(interval_s: float, clock: Clock, beat: Callable[[], Awaitable[bool]]) -> None:
    """Beat for ever, or until a beat says False."""
    while True:
        await clock.sleep(interval_s)
        if not await beat():
            return
