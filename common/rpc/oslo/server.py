"""The server of oslo.messaging's form: a target and a list of endpoints."""

from collections.abc import Sequence

from common.base.clock import Clock
from common.base.limits import DRAIN_TIMEOUT_S
from common.host.clock import SystemClock
from common.rpc.contract import Ack
from common.rpc.counts import Counts
from common.rpc.inbox import Inbox
from common.rpc.middleware import ServerMiddleware
from common.rpc.options import RpcOptions
from common.rpc.oslo.endpoints import OsloEndpoint
from common.rpc.oslo.policy import DefaultRPCAccessPolicy, RPCAccessPolicy
from common.rpc.oslo.serializer import NoOpSerializer, Serializer
from common.rpc.oslo.target import InvalidTarget, Target
from common.rpc.server import RpcServer
from common.transport.port import Transport

_DEFAULTS = RpcOptions()
_CLOCK = SystemClock()


def get_rpc_server(
    transport: Transport, target: Target, endpoints: Sequence[object], *,
    access_policy: type[RPCAccessPolicy] = DefaultRPCAccessPolicy, serializer: Serializer | None = None, ack: Ack = Ack.LATE,
    options: RpcOptions = _DEFAULTS, clock: Clock = _CLOCK, grace_s: float = DRAIN_TIMEOUT_S, inbox: Inbox | None = None,
    middleware: Sequence[ServerMiddleware] = (), counts: Counts | None = None,
) -> RpcServer:  # fmt: skip
    """A server; `async with` starts it, and drains it at the end.

    transport   of a client: `rpc.transport`
    endpoints   asked in this order: plain objects, and servers of contracts, which keep their own rules
    ack         EARLY: a request is settled before its method begins, as oslo.messaging does, and is lost with the server
    options     those of the client that stands beside it
    Raises InvalidTarget without topic or server, TypeError for an endpoint that cannot be served.
    """
    if not target.topic or not target.server:
        raise InvalidTarget(reason="a server needs a topic and a server's name", target=str(target))
    policy, plug = access_policy(), serializer or NoOpSerializer()
    served = [
        each if hasattr(type(each), "__rpc_contract__") else OsloEndpoint(each, policy=policy, serializer=plug, ack=ack)
        for each in endpoints
    ]
    return RpcServer(
        transport,
        served,
        topic=target.topic,
        server=target.server,
        exchange=target.exchange,
        options=options,
        clock=clock,
        grace_s=grace_s,
        inbox=inbox,
        middleware=middleware,
        counts=counts,
    )
