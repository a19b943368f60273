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
from common.wire.messages import Request
from common.wire.values import WrongValue, from_primitive


class InvalidArguments(Invalid):
    """{method}: {reason}"""

    wire = ("builtins", "TypeError")


_NAMES_SHOWN_MAX, _NAME_SHOWN_MAX = 10, 100

PING = "oslo_rpc_server_ping"
"""Method that every server answers when rpc_ping_enabled is set (oslo_messaging/rpc/server.py, PingEndpoint)."""


class Bound(msgspec.Struct, frozen=True):
    """A request with the method that serves it and its arguments, checked against the contract."""

    method: Method
    run: Callable[[Context], Coroutine[Any, Any, Any]]


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
        found = self._methods.get(method)
        return None if found is None else _bound(self._endpoint, found, args)


class _Pong:
    """Implements `Served`: the ping, which takes whatever arguments it is given, as oslo.messaging's does."""

    _METHOD = Method(name=PING, kind=Kind.CALL, version="1.0", parameters={}, optional=frozenset(), result=str)

    def serves(self, namespace: str | None, version: str) -> bool:
        return namespace is None and _serves(self._METHOD.version, version)

    def bound(self, method: str, args: Mapping[str, Any]) -> Bound | None:  # noqa: ARG002 - any will do
        return Bound(self._METHOD, self._pong) if method == PING else None

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


def _bound(endpoint: object, method: Method, args: Mapping[str, Any]) -> Bound:
    if args.keys() != method.parameters.keys():
        _check_names(method, args)
    arguments = {name: _converted(method, name, value) for name, value in args.items()}
    function = getattr(endpoint, method.name)

    def run(ctx: Context) -> Coroutine[Any, Any, Any]:
        return function(ctx, **arguments)  # type: ignore[no-any-return]  # checked when the server was made

    return Bound(method, run)


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
