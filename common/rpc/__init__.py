"""The RPC framework's public face.

What declares a contract is here at once; what connects to a bus is imported when it is first asked for, so that whoever only reads
contracts pays nothing for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from common.base.context import Context
from common.base.errors import Conflict, Fault, Invalid, NotFound, Timeout, Unavailable
from common.rpc.contract import Ack, Contract, RPCVersionCapError, call, cast

if TYPE_CHECKING:
    from common.rpc.client import NobodyListens, RpcClient
    from common.rpc.inbox import OutcomeUnknown
    from common.rpc.options import RpcOptions
    from common.rpc.session import Serving, connect
    from common.transport.port import BusUnavailable
    from common.wire.failure import RemoteError

__all__ = [
    "Ack",
    "BusUnavailable",
    "Conflict",
    "Context",
    "Contract",
    "Fault",
    "Invalid",
    "NobodyListens",
    "NotFound",
    "OutcomeUnknown",
    "RPCVersionCapError",
    "RemoteError",
    "RpcClient",
    "RpcOptions",
    "Serving",
    "Timeout",
    "Unavailable",
    "call",
    "cast",
    "connect",
]

_LATER = {
    "BusUnavailable": "common.transport.port",
    "NobodyListens": "common.rpc.client",
    "OutcomeUnknown": "common.rpc.inbox",
    "RemoteError": "common.wire.failure",
    "RpcClient": "common.rpc.client",
    "RpcOptions": "common.rpc.options",
    "Serving": "common.rpc.session",
    "connect": "common.rpc.session",
}


if not TYPE_CHECKING:  # a type checker would take it to mean that every name is there

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_LATER[name]), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
