"""From a request to the endpoint method that serves it (oslo.messaging `rpc/dispatcher.py`)."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.base.context import Context
from common.base.errors import Invalid
from common.base.version import serves
from common.rpc.contract import Contract, Method, contract_of, methods_of
from common.wire.failure import NoSuchMethod, UnsupportedVersion
from common.wire.messages import Request
from common.wire.values import WrongValue, from_primitive


class InvalidArguments(Invalid):
    """{method}: {reason}"""


@dataclass(frozen=True, slots=True)
class Bound:
    """A request with the method that serves it and its arguments, checked against the contract."""

    method: Method
    run: Callable[[Context], Awaitable[Any]]


class Dispatcher:
    """The endpoints of one server. Raises TypeError for an object that leaves a method of its contract out."""

    def __init__(self, endpoints: Sequence[object]) -> None:
        self._endpoints = [(endpoint, contract_of(endpoint)) for endpoint in endpoints]
        for endpoint, contract in self._endpoints:
            _check_complete(endpoint, contract)

    def bind(self, request: Request) -> Bound:
        """Raises UnsupportedVersion, NoSuchMethod, InvalidArguments, with oslo.messaging's identities."""
        version = request.version or "1.0"
        compatible = [
            (endpoint, contract)
            for endpoint, contract in self._endpoints
            if contract.__rpc_route__.namespace == request.namespace and _serves(contract.__rpc_route__.version, version)
        ]
        if not compatible:
            raise UnsupportedVersion(version=version, method=request.method)
        for endpoint, contract in compatible:
            method = methods_of(contract).get(request.method)
            if method is not None:
                return _bound(endpoint, method, request.args)
        raise NoSuchMethod(method=request.method)


def _check_complete(endpoint: object, contract: type[Contract]) -> None:
    missing = [name for name in methods_of(contract) if getattr(type(endpoint), name) is getattr(contract, name)]
    if missing:
        raise TypeError(f"{type(endpoint).__name__} leaves out {', '.join(missing)} of {contract.__name__}")


def _serves(implemented: str, requested: str) -> bool:
    try:
        return serves(implemented, requested)
    except ValueError:
        return False


def _bound(endpoint: object, method: Method, args: Mapping[str, Any]) -> Bound:
    unknown = args.keys() - method.parameters.keys()
    missing = method.parameters.keys() - method.optional - args.keys()
    if unknown or missing:
        known = ", ".join(method.parameters) or "none"
        parts = [f"it has no argument {name}" for name in sorted(unknown)] + [f"{name} is missing" for name in sorted(missing)]
        raise InvalidArguments(method=method.name, reason=f"{'; '.join(parts)} (its arguments: {known})")
    arguments = {name: _converted(method, name, value) for name, value in args.items()}
    function = getattr(endpoint, method.name)
    assert inspect.iscoroutinefunction(function), f"{method.name} of {type(endpoint).__name__} is not async"

    def run(ctx: Context) -> Awaitable[Any]:
        return function(ctx, **arguments)  # type: ignore[no-any-return]  # checked above

    return Bound(method, run)


def _converted(method: Method, name: str, value: Any) -> Any:
    try:
        return from_primitive(value, method.parameters[name])
    except WrongValue as exc:
        raise InvalidArguments(method=method.name, reason=f"argument {name}: {exc}") from exc
