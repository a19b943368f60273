"""The RPC framework's public face."""

from common.base.context import Context
from common.rpc.contract import Contract, call, cast

__all__ = ["Context", "Contract", "call", "cast"]
