"""Contracts: what a service offers on the bus, written once as a typed `Protocol` class.

    class ComputeAPI(Contract, Protocol, topic="compute", version="6.5"):
        @call()
        async def reserve_block_device_name(self, ctx: Context, *, instance: Instance, ...) -> BlockDeviceMapping: ...

        @cast()
        async def attach_volume(self, ctx: Context, *, instance: Instance, bdm: BlockDeviceMapping) -> None: ...

A server is an ordinary class that implements the contract; a client is `ComputeAPI.over(rpc)`, typed as the contract itself, and
`.on("cmp1")` addresses one server. A method without a body is abstract in a class that implements the contract, so mypy and
Python both refuse a server that lacks one. Arguments are keyword-only, as on oslo.messaging's wire.
"""

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast as typing_cast, get_type_hints

from common.base.context import Context
from common.base.errors import Broken
from common.base.version import serves
from common.wire.typed import Signature

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
RpcMethod = Callable[Concatenate[S, Context, P], Coroutine[Any, Any, R]]


class Kind(StrEnum):
    """What the caller waits for: a result, or the bus's confirm."""

    CALL = "call"
    CAST = "cast"


class Ack(StrEnum):
    """When a server tells the bus that it is done with a request."""

    LATE = "late"
    """When the method has returned: a request whose server died goes to another one. The method may begin twice."""
    EARLY = "early"
    """Before the method begins, as oslo.messaging does: it begins at most once, and is lost with its server."""


@dataclass(frozen=True, slots=True)
class Marked:
    """What @call and @cast note on a method."""

    kind: Kind
    since: str | None = None
    timeout_s: float | None = None
    monitor_s: float | None = None
    once: bool = False
    ack: Ack = Ack.LATE
    raises: tuple[type[Exception], ...] = ()


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a contract.

    parameters   name -> type of every keyword argument; `optional` are those with a default
    timeout_s    how long a caller waits when neither it nor the context says; None: rpc_response_timeout
    monitor_s    a caller gives up when the server gives no sign of life for so long (call_monitor_timeout); None: it waits
    once         executed exactly once, see `call`
    ack          when the request is settled
    raises       exceptions, other than faults, that belong to the contract: the caller is told of them in their own words
    signature    the arguments and the result on the wire
    """

    name: str
    kind: Kind
    version: str
    parameters: Mapping[str, Any]
    optional: frozenset[str]
    result: Any
    timeout_s: float | None = None
    monitor_s: float | None = None
    once: bool = False
    ack: Ack = Ack.LATE
    raises: tuple[type[Exception], ...] = ()
    signature: Signature = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "signature", Signature(self.parameters, self.optional, self.result))


@dataclass(frozen=True, slots=True)
class Route:
    """Where a contract's messages go.

    exchange   the control exchange; None: the one of the process's options
    server     one server of the topic; None: any
    fanout     all servers of the topic; wins over `server`
    version_cap         the newest version that may be sent; None: any
    legacy_namespaces   further namespaces under which a server still takes the contract's messages
    publish_s           how long publishing waits for a bus that is away; None: as long as the request may take
    """

    topic: str
    version: str
    exchange: str | None = None
    namespace: str | None = None
    server: str | None = None
    fanout: bool = False
    timeout_s: float | None = None
    monitor_s: float | None = None
    version_cap: str | None = None
    legacy_namespaces: tuple[str, ...] = ()
    publish_s: float | None = None

    def __str__(self) -> str:
        return f"{self.topic}.*" if self.fanout else f"{self.topic}.{self.server}" if self.server else self.topic


class Sender(Protocol):
    """What a client needs of a connection."""

    def call(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
        """The method's result. Raises what the method raised, NobodyListens, Timeout, or BusUnavailable."""
        ...

    def cast(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> Coroutine[Any, Any, None]:
        """Returns when the bus has the message. Raises NobodyListens, Timeout or BusUnavailable."""
        ...


def call(
    *, since: str | None = None, timeout_s: float | None = None, monitor_s: float | None = None, once: bool = False,
    ack: Ack = Ack.LATE, raises: tuple[type[Exception], ...] = (),
) -> Callable[[RpcMethod[S, P, R]], RpcMethod[S, P, R]]:  # fmt: skip
    """A method whose caller waits for its result.

    since   the contract's version that brought it
    once    exactly once: the caller repeats the request until it hears something, and the servers' inbox lets one of them
            execute it; the rest get its answer. If that server dies on the way the caller gets `OutcomeUnknown`. Servers in
            several processes need an inbox that they share.
    The other words are those of `Method`.
    """
    return _marking(Marked(Kind.CALL, since, timeout_s, monitor_s, once, ack, raises))


def cast(
    *, since: str | None = None, once: bool = False, ack: Ack = Ack.LATE
) -> Callable[[RpcMethod[S, P, R]], RpcMethod[S, P, R]]:
    """A method whose caller goes on once the bus has the message. Words as for `call`."""
    return _marking(Marked(Kind.CAST, since, once=once, ack=ack))


def _marking(mark: Marked) -> Callable[[RpcMethod[S, P, R]], RpcMethod[S, P, R]]:
    def marked(function: RpcMethod[S, P, R]) -> RpcMethod[S, P, R]:
        function.__rpc__ = mark  # type: ignore[attr-defined]  # a note for Contract; functions take attributes
        return function

    return marked


class Contract(Protocol):
    """Base of every contract. Class keywords: topic, version, and where needed namespace, legacy_namespaces and exchange."""

    __rpc_route__: ClassVar[Route] = Route(topic="", version="1.0")
    __rpc_sender__: ClassVar[Sender | None] = None

    def __init_subclass__(
        cls, *, topic: str | None = None, version: str | None = None, namespace: str | None = None,
        exchange: str | None = None, legacy_namespaces: tuple[str, ...] = (), **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init_subclass__(**kwargs)
        if topic is not None:
            cls.__rpc_route__ = Route(
                topic=topic,
                version=version or "1.0",
                namespace=namespace,
                exchange=exchange,
                legacy_namespaces=legacy_namespaces,
            )
            cls.__rpc_contract__ = cls  # type: ignore[attr-defined]  # the class that the methods are read from

    @classmethod
    def over(cls, sender: Sender, *, exchange: str | None = None, version_cap: str | None = None) -> Self:
        """A client: an object with the contract's methods that sends them over `sender`.

        version_cap   the newest version that all servers understand: a newer method raises RPCVersionCapError and sends nothing
        """
        route = replace(cls.__rpc_route__, version_cap=version_cap)
        return typing_cast(Self, _client_class(cls)(sender, replace(route, exchange=exchange or route.exchange)))

    def on(self, server: str, *, topic: str | None = None) -> Self:
        """The same client addressing one server. `topic`: of another topic (cinder-volume.<host>@<backend>)."""
        return _readdressed(self, server=server, **({"topic": topic} if topic else {}))

    def everywhere(self) -> Self:
        """The same client addressing every server of the topic: casts only."""
        return _readdressed(self, fanout=True)

    def within(self, timeout_s: float) -> Self:
        """The same client with another timeout for its calls."""
        return _readdressed(self, timeout_s=timeout_s)

    def monitored(self, monitor_s: float) -> Self:
        """The same client that gives up a call when its server gives no sign of life for `monitor_s` seconds."""
        return _readdressed(self, monitor_s=monitor_s)

    def can_send_version(self, version: str) -> bool:
        """True when the version cap of this client lets messages of `version` out."""
        cap = _route_of(self).version_cap
        return cap is None or serves(cap, version)


C = TypeVar("C", bound=Contract)


class RPCVersionCapError(Broken):
    """Requested message version, {version} is incompatible: {method} needs it, and {address} is capped at {version_cap}."""

    wire = ("oslo_messaging.rpc.client", "RPCVersionCapError")


class ClientBase:
    """What every generated client has."""

    def __init__(self, sender: Sender, route: Route) -> None:
        self.rpc_sender = sender
        self.rpc_route = route


def _readdressed(client: C, **changes: Any) -> C:
    route = replace(_route_of(client), **changes)
    base = typing_cast(ClientBase, client)
    return typing_cast(C, type(base)(base.rpc_sender, route))


def _route_of(client: object) -> Route:
    if not isinstance(client, ClientBase):
        raise TypeError(f"{type(client).__name__} is a server; only a client made by over() can be addressed")
    return client.rpc_route


@cache
def _client_class(contract: type[Contract]) -> type[Any]:
    sending = {method.name: _sending(method) for method in methods_of(contract).values()}
    return type(f"{contract.__name__}Client", (ClientBase, contract), sending)


def _sending(method: Method) -> Callable[..., Coroutine[Any, Any, Any]]:
    is_call = method.kind is Kind.CALL

    def send(self: ClientBase, ctx: Context, **arguments: Any) -> Coroutine[Any, Any, Any]:
        if arguments.keys() != method.parameters.keys():
            _check_arguments(method, arguments)
        if self.rpc_route.version_cap is not None:
            _check_cap(self.rpc_route, method)
        sender = self.rpc_sender
        return (sender.call if is_call else sender.cast)(self.rpc_route, method, ctx, arguments)

    send.__name__ = method.name
    return send


def _check_cap(route: Route, method: Method) -> None:
    cap = route.version_cap
    if cap is not None and not serves(cap, method.version):
        raise RPCVersionCapError(version=method.version, version_cap=cap, method=method.name, address=str(route))


def _check_arguments(method: Method, arguments: Mapping[str, Any]) -> None:
    unknown = arguments.keys() - method.parameters.keys()
    missing = method.parameters.keys() - method.optional - arguments.keys()
    if unknown or missing:
        parts = [f"no argument {name!r}" for name in sorted(unknown)] + [f"{name!r} is missing" for name in sorted(missing)]
        raise TypeError(f"{method.name}: {', '.join(parts)}")


def contract_of(server: object) -> type[Contract]:
    """The contract that a server's class implements. Raises TypeError when it implements none."""
    found = getattr(type(server), "__rpc_contract__", None)
    if found is None:
        raise TypeError(f"{type(server).__name__} implements no contract")
    return typing_cast(type[Contract], found)


@cache
def methods_of(contract: type[Contract]) -> Mapping[str, Method]:
    """Every method of a contract, by name."""
    found = {}
    for name, function in inspect.getmembers(contract, inspect.isfunction):
        mark = getattr(function, "__rpc__", None)
        if mark is not None:
            found[name] = _method(contract, function, mark)
    return found


def _method(contract: type[Contract], function: Callable[..., Any], mark: Marked) -> Method:
    hints = get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())[2:]
    if any(parameter.kind is not parameter.KEYWORD_ONLY for parameter in parameters):
        raise TypeError(f"{contract.__name__}.{function.__name__}: arguments behind the context must be keyword-only")
    version = mark.since or contract.__rpc_route__.version
    if not serves(contract.__rpc_route__.version, version):
        raise TypeError(
            f"{contract.__name__}.{function.__name__}: since={version} is not served by {contract.__rpc_route__.version}"
        )
    return Method(
        name=function.__name__,
        kind=mark.kind,
        version=version,
        parameters={parameter.name: hints[parameter.name] for parameter in parameters},
        optional=frozenset(parameter.name for parameter in parameters if parameter.default is not parameter.empty),
        result=hints.get("return"),
        timeout_s=mark.timeout_s,
        monitor_s=mark.monitor_s,
        once=mark.once,
        ack=mark.ack,
        raises=mark.raises,
    )
