"""From a request to the endpoint method that serves it (oslo.messaging `rpc/dispatcher.py`)."""

import inspect
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol, cast as typing_cast

import msgspec

from common.base.context import Context
from common.base.errors import Invalid
from common.base.version import serves
from common.rpc.contract import Contract, Kind, Method, contract_of, methods_of
from common.wire.failure import NoSuchMethod, UnsupportedVersion
from common.wire.messages import Request, UsualRequest
from common.wire.values import WrongValue, from_primitive


class InvalidArguments(Invalid):
    """{method}: {reason}"""

    wire = ("builtins", "TypeError")


_NAMES_SHOWN_MAX, _NAME_SHOWN_MAX = 10, 100
_REMEMBERED_MAX = 1000

PING = "oslo_rpc_server_ping"
"""Method that every server answers when rpc_ping_enabled is set (oslo_messaging/rpc/server.py, PingEndpoint)."""


class Bound(msgspec.Struct, frozen=True):
    """A request with the method that serves it and its arguments, checked against the contract."""

    method: Method
    function: Callable[..., Coroutine[Any, Any, Any]]
    arguments: Mapping[str, Any]

    def run(self, ctx: Context) -> Coroutine[Any, Any, Any]:
        """The method at work."""
        return self.function(ctx, **self.arguments)


class Served(Protocol):
    """An endpoint that is no contract's: it says itself what it serves."""

    def serves(self, namespace: str | None, version: str) -> bool:
        """True when requests of that namespace and version are for it."""
        ...

    def bound(self, method: str, args: Mapping[str, Any]) -> Bound | None:
        """The method with its arguments; None when it has none of that name. Raises InvalidArguments."""
        ...


class Dispatcher:
    """The endpoints of one server, asked in their order. Raises TypeError for an object that leaves a method of its contract out.

    ping   whether `oslo_rpc_server_ping` is answered
    """

    def __init__(self, endpoints: Sequence[object], *, ping: bool = False) -> None:
        self._endpoints: list[Served] = [
            typing_cast(Served, endpoint) if is_served(endpoint) else ContractEndpoint(endpoint) for endpoint in endpoints
        ]
        if ping:
            self._endpoints.append(_Pong())
        contracts = (each.contract for each in self._endpoints if isinstance(each, ContractEndpoint))
        self._usual: dict[tuple[str, str | None, str | None], tuple[Method, Callable[..., Coroutine[Any, Any, Any]]]] = {}
        self.topic = next((contract.__rpc_route__.topic for contract in contracts), "")
        """The topic of the first contract: that of the dead letters, whatever further topics it is served on."""

    def bind(self, request: Request) -> Bound:
        """Raises UnsupportedVersion, NoSuchMethod, InvalidArguments, with oslo.messaging's identities."""
        version = request.version or "1.0"
        compatible = [endpoint for endpoint in self._endpoints if endpoint.serves(request.namespace, version)]
        if not compatible:
            raise UnsupportedVersion(version=version, method=request.method)
        for endpoint in compatible:
            if (bound := endpoint.bound(request.method, request.args)) is not None:
                return bound
        raise NoSuchMethod(method=request.method)

    def bind_usual(self, request: UsualRequest) -> Bound | None:
        """As `bind`, at once; None: it is no contract's method, or something is wrong, which `bind` names."""
        asked = request.method, request.version, request.namespace
        if (found := self._usual.get(asked)) is None:
            if (found := self._found(request)) is None:
                return None
            if len(self._usual) < _REMEMBERED_MAX:
                self._usual[asked] = found
        method, function = found
        arguments = method.signature.decode(request.args)
        return None if arguments is None else Bound(method, function, arguments)

    def _found(self, request: UsualRequest) -> tuple[Method, Callable[..., Coroutine[Any, Any, Any]]] | None:
        version = request.version or "1.0"
        for endpoint in self._endpoints:
            if not endpoint.serves(request.namespace, version):
                continue
            if not isinstance(endpoint, ContractEndpoint):
                return None
            if (found := endpoint.function_of(request.method)) is not None:
                return found
        return None


def is_served(endpoint: object) -> bool:
    """True for an endpoint that implements `Served`."""
    return not hasattr(type(endpoint), "__rpc_contract__") and callable(getattr(endpoint, "serves", None))


class ContractEndpoint:
    """Implements `Served` for an object that implements a contract."""

    def __init__(self, endpoint: object) -> None:
        self._endpoint = endpoint
        self.contract = contract_of(endpoint)
        route = self.contract.__rpc_route__
        self._version = route.version
        self._namespaces = {route.namespace, *route.legacy_namespaces}
        self._methods = methods_of(self.contract)
        _check_complete(endpoint, self.contract)

    def serves(self, namespace: str | None, version: str) -> bool:
        return namespace in self._namespaces and _serves(self._version, version)

    def bound(self, method: str, args: Mapping[str, Any]) -> Bound | None:
        found = self.function_of(method)
        return None if found is None else _bound(*found, args)

    def function_of(self, method: str) -> tuple[Method, Callable[..., Coroutine[Any, Any, Any]]] | None:
        """What serves the method of that name."""
        found = self._methods.get(method)
        return None if found is None else (found, getattr(self._endpoint, method))


class _Pong:
    """Implements `Served`: the ping, which takes whatever arguments it is given, as oslo.messaging's does."""

    _METHOD = Method(name=PING, kind=Kind.CALL, version="1.0", parameters={}, optional=frozenset(), result=str)

    def serves(self, namespace: str | None, version: str) -> bool:
        return namespace is None and _serves(self._METHOD.version, version)

    def bound(self, method: str, args: Mapping[str, Any]) -> Bound | None:  # noqa: ARG002 - any will do
        return Bound(self._METHOD, self._pong, {}) if method == PING else None

    async def _pong(self, _: Context) -> str:
        return "pong"


def _check_complete(endpoint: object, contract: type[Contract]) -> None:
    missing = [name for name in methods_of(contract) if getattr(type(endpoint), name) is getattr(contract, name)]
    if missing:
        raise TypeError(f"{type(endpoint).__name__} leaves out {', '.join(missing)} of {contract.__name__}")
    for name in methods_of(contract):
        assert inspect.iscoroutinefunction(getattr(endpoint, name)), f"{name} of {type(endpoint).__name__} is not async"


def _serves(implemented: str, requested: str) -> bool:
    try:
        return serves(implemented, requested)
    except ValueError:
        return False


def _bound(method: Method, function: Callable[..., Coroutine[Any, Any, Any]], args: Mapping[str, Any]) -> Bound:
    if args.keys() != method.parameters.keys():
        _check_names(method, args)
    return Bound(method, function, {name: _converted(method, name, value) for name, value in args.items()})


def _check_names(method: Method, args: Mapping[str, Any]) -> None:
    unknown = args.keys() - method.parameters.keys()
    missing = method.parameters.keys() - method.optional - args.keys()
    if unknown or missing:
        known = ", ".join(method.parameters) or "none"
        parts = [f"it has no argument {name}" for name in _shown(unknown)] + [f"{name} is missing" for name in sorted(missing)]
        raise InvalidArguments(method=method.name, reason=f"{'; '.join(parts)} (its arguments: {known})")


def _shown(names: Collection[str]) -> list[str]:
    """The first of them, cut: a peer chooses how many and how long."""
    return [name[:_NAME_SHOWN_MAX] for name in sorted(names)[:_NAMES_SHOWN_MAX]]


def _converted(method: Method, name: str, value: Any) -> Any:
    try:
        return from_primitive(value, method.parameters[name])
    except WrongValue as exc:
        raise InvalidArguments(method=method.name, reason=f"argument {name}: {exc}") from exc
