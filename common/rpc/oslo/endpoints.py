"""Plain objects as endpoints: any `async def` that the access policy lets out is a method.

What an endpoint raises goes to its caller under its own name, as in oslo.messaging; a contract would tell of `raises` alone.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from common.base.context import Context
from common.base.errors import Fault
from common.base.version import serves
from common.host.lean import structlog
from common.rpc.contract import Ack, Kind, Method
from common.rpc.dispatch import Bound, InvalidArguments
from common.rpc.oslo.policy import EXPECTED, RPCAccessPolicy
from common.rpc.oslo.serializer import Serializer, incoming
from common.rpc.oslo.target import Target

_DEFAULT_VERSION = "1.0"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    function: Callable[..., Awaitable[Any]]
    signature: inspect.Signature
    expected: tuple[type[Exception], ...]
    method: Method


class OsloEndpoint:
    """Implements `common.rpc.dispatch.Served` for a plain object, whose optional `target` says what it takes.

    Raises TypeError for a `target` that is none, and for a method that is not `async def`.
    """

    def __init__(self, endpoint: object, *, policy: RPCAccessPolicy, serializer: Serializer, ack: Ack) -> None:
        target = getattr(endpoint, "target", None) or Target()
        if not isinstance(target, Target):
            raise TypeError(f"{type(endpoint).__name__}.target is a {type(target).__name__}; wanted: common.rpc.oslo.Target")
        self._version = target.version or _DEFAULT_VERSION
        self._namespaces = target.namespaces
        self._serializer = serializer
        self._methods = {name: _endpoint(name, function, ack) for name, function in _reachable(endpoint, policy)}

    def serves(self, namespace: str | None, version: str) -> bool:
        try:
            return namespace in self._namespaces and serves(self._version, version)
        except ValueError:
            return False

    def bound(self, method: str, args: Mapping[str, Any]) -> Bound | None:
        found = self._methods.get(method)
        if found is None:
            return None
        try:
            found.signature.bind(None, **args)
        except TypeError as exc:
            raise InvalidArguments(method=method, reason=str(exc)) from None

        async def run(ctx: Context, **args: Any) -> Any:
            ctxt = incoming(self._serializer, ctx)
            arguments = {name: self._serializer.deserialize_entity(ctxt, value) for name, value in args.items()}
            result = await _heard(found, ctxt, arguments)
            return self._serializer.serialize_entity(ctxt, result)

        return Bound(found.method, run, args)


async def _heard(found: _Endpoint, ctxt: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return await found.function(ctxt, **arguments)
    except Exception as exc:
        if not isinstance(exc, (Fault, *found.expected)):
            _log.exception("endpoint failed", method=found.method.name)
        raise


def _endpoint(name: str, function: Callable[..., Awaitable[Any]], ack: Ack) -> _Endpoint:
    return _Endpoint(
        function=function,
        signature=inspect.signature(function),
        expected=getattr(function, EXPECTED, ()),
        method=Method(
            name=name, kind=Kind.CALL, version=_DEFAULT_VERSION, parameters={}, optional=frozenset(), result=Any, ack=ack,
            raises=(Exception,),
        ),
    )  # fmt: skip


def _reachable(endpoint: object, policy: RPCAccessPolicy) -> Iterator[tuple[str, Callable[..., Awaitable[Any]]]]:
    """Coroutine functions that the policy lets out. No property is run: a peer's message, or a start, shall not do that."""
    blocking = []
    for name in dir(endpoint):
        static = inspect.getattr_static(endpoint, name)
        if isinstance(static, property) or name == "target" or not policy.is_allowed(endpoint, name):
            continue
        found = getattr(endpoint, name)
        if inspect.iscoroutinefunction(found):
            yield name, found
        elif _is_method(endpoint, name) and not name.startswith("_"):
            blocking.append(name)
    if blocking:
        raise TypeError(
            f"{type(endpoint).__name__}: {', '.join(blocking)} can be called from the bus and would block every other request; "
            "make it `async def`, begin its name with an underscore, or mark what the bus may call by @expose and serve with "
            "ExplicitRPCAccessPolicy"
        )


def _is_method(endpoint: object, name: str) -> bool:
    return isinstance(inspect.getattr_static(type(endpoint), name, None), FunctionType | staticmethod | classmethod)
