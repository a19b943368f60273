"""What is wrapped around every request: logging, metrics, tracing, retries.

A middleware is called with what goes out or came in and with `proceed`, which does the rest. It may look, measure, change the
context, refuse by an error, or proceed more than once where that is safe.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from common.base.context import Context
from common.rpc.contract import Method, Route

T = TypeVar("T")


class Outgoing(msgspec.Struct, frozen=True):
    """A request before it is sent; `msgspec.structs.replace` changes it."""

    route: Route
    method: Method
    ctx: Context
    arguments: Mapping[str, Any]


class Incoming(msgspec.Struct, frozen=True):
    """A request before its endpoint runs; `msgspec.structs.replace` changes it.

    server     `<topic>.<server>`
    arguments  as the endpoint gets them
    attempts   how often it was begun before
    run        the endpoint
    """

    server: str
    method: Method
    ctx: Context
    arguments: Mapping[str, Any]
    is_call: bool
    attempts: int
    run: Callable[[Context], Coroutine[Any, Any, Any]]


class ClientMiddleware(Protocol):
    """Around a call or cast of a client; its result is the caller's."""

    async def __call__(self, request: Outgoing, proceed: Callable[[Outgoing], Awaitable[Any]]) -> Any: ...


class ServerMiddleware(Protocol):
    """Around an endpoint; its result, or its error, is the caller's."""

    async def __call__(self, request: Incoming, proceed: Callable[[Incoming], Awaitable[Any]]) -> Any: ...


def chained(
    middleware: Sequence[Callable[[T, Callable[[T], Awaitable[Any]]], Coroutine[Any, Any, Any]]],
    last: Callable[[T], Coroutine[Any, Any, Any]],
) -> Callable[[T], Coroutine[Any, Any, Any]]:
    """`last` with all middleware around it, the first one outermost."""
    for each in reversed(middleware):
        last = _around(each, last)
    return last


def _around(
    middleware: Callable[[T, Callable[[T], Awaitable[Any]]], Coroutine[Any, Any, Any]], proceed: Callable[[T], Awaitable[Any]]
) -> Callable[[T], Coroutine[Any, Any, Any]]:
    return lambda request: middleware(request, proceed)
