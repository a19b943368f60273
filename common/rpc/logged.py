"""Every request in the log: where it went, how long it took, what came of it."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from common.base.clock import Clock
from common.base.context import Context
from common.host.lean import structlog
from common.rpc.middleware import Incoming, Outgoing
from common.rpc.outcome import outcome_of

_log = structlog.get_logger(__name__)


class LoggedClient:
    """Implements `common.rpc.middleware.ClientMiddleware`. `level` is one of `logging`'s numbers."""

    def __init__(self, clock: Clock, *, level: int = logging.DEBUG) -> None:
        self._clock = clock
        self._level = level

    async def __call__(self, request: Outgoing, proceed: Callable[[Outgoing], Awaitable[Any]]) -> Any:
        words = {"address": str(request.route), "kind": request.method.kind.value}
        return await _logged("request sent", request, words, proceed, clock=self._clock, level=self._level)


class LoggedServer:
    """Implements `common.rpc.middleware.ServerMiddleware`."""

    def __init__(self, clock: Clock, *, level: int = logging.DEBUG) -> None:
        self._clock = clock
        self._level = level

    async def __call__(self, request: Incoming, proceed: Callable[[Incoming], Awaitable[Any]]) -> Any:
        words = {"server": request.server, "kind": "call" if request.is_call else "cast"}
        return await _logged("request served", request, words, proceed, clock=self._clock, level=self._level)


async def _logged(
    event: str, request: Any, words: dict[str, str], proceed: Callable[[Any], Awaitable[Any]], *, clock: Clock, level: int
) -> Any:
    ctx: Context = request.ctx
    began_s = clock.monotonic()
    error: BaseException | None = None
    try:
        return await proceed(request)
    except BaseException as exc:
        error = exc
        raise
    finally:
        ms = round((clock.monotonic() - began_s) * 1000, 1)
        _log.log(level, event, **words, method=request.method.name, request_id=ctx.request_id, ms=ms, outcome=outcome_of(error))
