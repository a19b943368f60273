"""The framework for people who know oslo.messaging by heart: its names and words over the same core as contracts.

    async with connect("rabbit://broker") as rpc:
        async with get_rpc_server(rpc.transport, Target(topic="compute", server="cmp1"), [ComputeManager()]):
            client = RPCClient(rpc, Target(topic="compute", version="6.5"))
            await client.prepare(server="cmp1").call({"user_id": "u1"}, "build", instance=...)

An endpoint is `async def method(self, ctxt, **args)`; `ctxt` is a `common.rpc.Context`, unless a serializer makes another one.
`MIGRATING.md` beside this package says what else differs. Errors are the framework's own under oslo.messaging's names.
"""

from common.base.errors import Timeout as MessagingTimeout
from common.rpc.client import NobodyListens as MessageUndeliverable
from common.rpc.contract import RPCVersionCapError
from common.rpc.oslo.client import RPCClient
from common.rpc.oslo.policy import (
    DefaultRPCAccessPolicy,
    ExplicitRPCAccessPolicy,
    LegacyRPCAccessPolicy,
    RPCAccessPolicy,
    expected_exceptions,
    expose,
)
from common.rpc.oslo.serializer import NoOpSerializer, Serializer
from common.rpc.oslo.server import get_rpc_server
from common.rpc.oslo.target import InvalidTarget, Target
from common.transport.port import BusUnavailable as MessageDeliveryFailure
from common.wire.failure import NoSuchMethod, RemoteError, UnsupportedVersion

__all__ = [
    "DefaultRPCAccessPolicy",
    "ExplicitRPCAccessPolicy",
    "InvalidTarget",
    "LegacyRPCAccessPolicy",
    "MessageDeliveryFailure",
    "MessageUndeliverable",
    "MessagingTimeout",
    "NoOpSerializer",
    "NoSuchMethod",
    "RPCAccessPolicy",
    "RPCClient",
    "RPCVersionCapError",
    "RemoteError",
    "Serializer",
    "Target",
    "UnsupportedVersion",
    "expected_exceptions",
    "expose",
    "get_rpc_server",
]
