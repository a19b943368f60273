"""The client of oslo.messaging's form: methods by name, `prepare` for everything else."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypedDict, Unpack

from common.base.version import serves
from common.rpc.contract import Kind, Method, Route, RPCVersionCapError, Sender
from common.rpc.oslo.serializer import NoOpSerializer, Serializer, outgoing
from common.rpc.oslo.target import InvalidTarget, Target, check_version

_DEFAULT_VERSION = "1.0"
_PUBLISH_FIRST_S = 1.0
_NO_OP = NoOpSerializer()
_OF_TARGET = frozenset({"exchange", "topic", "namespace", "version", "server", "fanout"})


class Prepared(TypedDict, total=False):
    """What `prepare` can override; words as for Target and RPCClient."""

    exchange: str | None
    topic: str | None
    namespace: str | None
    version: str | None
    server: str | None
    fanout: bool | None
    timeout: float | None
    version_cap: str | None
    retry: int | None
    call_monitor_timeout: float | None


@dataclass(frozen=True, slots=True)
class RPCClient:
    """Sends to `target` over `rpc`, a client that `common.rpc.connect` gave.

    timeout                seconds that a call waits, connecting included; None: rpc_response_timeout
    version_cap            the newest version that all servers understand; None: any may be sent
    retry                  tries to reach a bus that is away, in oslo.messaging's steps of 1, 3, 5 ... s; never longer than the
                           request may take. 0: none; None or -1: as many as fit
    call_monitor_timeout   a call whose server gives no sign of life for so many seconds is given up
    """

    rpc: Sender
    target: Target
    timeout: float | None = None
    version_cap: str | None = None
    retry: int | None = None
    call_monitor_timeout: float | None = None
    serializer: Serializer = _NO_OP

    def __post_init__(self) -> None:
        if self.version_cap is not None:
            check_version(self.version_cap, self.target)
        for name in ("timeout", "call_monitor_timeout"):
            if (seconds := getattr(self, name)) is not None and not seconds > 0:
                raise ValueError(f"{name} is {seconds}; wanted: seconds above 0, or None")

    def prepare(self, **given: Unpack[Prepared]) -> Self:
        """The same client with what is given in place of its own. Raises InvalidTarget for a version that is none."""
        words: Mapping[str, Any] = given
        if unknown := words.keys() - Prepared.__annotations__.keys():
            raise TypeError(f"prepare has no argument {', '.join(sorted(unknown))}; it has {', '.join(Prepared.__annotations__)}")
        target = replace(self.target, **{name: value for name, value in words.items() if name in _OF_TARGET})
        return replace(self, target=target, **{name: value for name, value in words.items() if name not in _OF_TARGET})

    def can_send_version(self, version: str | None = None) -> bool:
        """True when the version cap lets out what asks for `version`; None: for the target's."""
        asked = version or self.target.version
        return self.version_cap is None or (asked is not None and serves(self.version_cap, asked))

    async def call(self, ctxt: Any, method: str, **arguments: Any) -> Any:
        """The method's result.

        ctxt   a dict, a Context, or an object with `to_dict()`
        Raises what the method raised (RemoteError for what this process cannot rebuild), MessageUndeliverable at once when nobody
        listens, MessagingTimeout, MessageDeliveryFailure, RPCVersionCapError, InvalidTarget.
        """
        if self.target.fanout:
            raise InvalidTarget(reason="a call wants one answer and cannot be a fanout", target=str(self.target))
        sent = self._method(method, Kind.CALL)
        result = await self.rpc.call(self._route(), sent, outgoing(self.serializer, ctxt), self._packed(ctxt, arguments))
        return self.serializer.deserialize_entity(ctxt, result)

    async def cast(self, ctxt: Any, method: str, **arguments: Any) -> None:
        """Returns when the bus has the message. Raises as `call`, as far as no answer is needed."""
        sent = self._method(method, Kind.CAST)
        await self.rpc.cast(self._route(), sent, outgoing(self.serializer, ctxt), self._packed(ctxt, arguments))

    def _method(self, name: str, kind: Kind) -> Method:
        version = self.target.version
        if not self.can_send_version():
            shown = {"version": version or "none", "version_cap": self.version_cap}
            raise RPCVersionCapError(**shown, method=name, address=str(self._route()))
        return Method(
            name=name, kind=kind, version=version or _DEFAULT_VERSION, parameters={}, optional=frozenset(), result=Any,
        )  # fmt: skip

    def _route(self) -> Route:
        target = self.target
        if not target.topic:
            raise InvalidTarget(reason="a topic is needed to send", target=str(target))
        return Route(
            topic=target.topic,
            version=target.version or _DEFAULT_VERSION,
            exchange=target.exchange,
            namespace=target.namespace,
            server=target.server,
            fanout=bool(target.fanout),
            timeout_s=self.timeout,
            monitor_s=self.call_monitor_timeout,
            publish_s=None if self.retry is None or self.retry < 0 else _PUBLISH_FIRST_S + self.retry**2,
        )

    def _packed(self, ctxt: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.serializer.serialize_entity(ctxt, value) for name, value in arguments.items()}
