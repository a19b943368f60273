"""Clients and servers that end when their bus has ended before them: a shutdown has nothing to complain of."""

from typing import Protocol

import pytest

from common.base.context import Context
from common.host.clock import SystemClock
from common.rpc.client import RpcClient
from common.rpc.contract import Contract, call
from common.rpc.options import RpcOptions
from common.rpc.session import Serving, client, serving
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Closed

CLOCK = SystemClock()
OPTIONS = RpcOptions()


class AskAPI(Contract, Protocol, topic="asks", version="1.0"):
    @call()
    async def ask(self, ctx: Context) -> int: ...


class Asks(AskAPI):
    async def ask(self, ctx: Context) -> int:
        return 1


async def asked(bus: MemoryBus, rpc: RpcClient) -> None:
    transport = MemoryTransport(bus)
    async with serving(transport, Serving([Asks()], "h"), clock=CLOCK, options=OPTIONS, grace_s=1):
        assert await AskAPI.over(rpc).ask(Context()) == 1
        await transport.close()


async def test_a_client_and_a_server_end_in_silence_when_the_bus_is_gone() -> None:
    bus = MemoryBus(CLOCK)
    transport = MemoryTransport(bus)
    async with client(transport, clock=CLOCK, options=OPTIONS) as rpc:
        await asked(bus, rpc)
        await transport.close()


async def fail_without_a_bus() -> None:
    bus = MemoryBus(CLOCK)
    transport = MemoryTransport(bus)
    async with client(transport, clock=CLOCK, options=OPTIONS) as rpc:
        await asked(bus, rpc)
        await transport.close()
        raise ZeroDivisionError


async def test_the_error_that_ends_a_client_is_not_hidden_by_a_bus_that_is_gone() -> None:
    with pytest.raises(ZeroDivisionError):
        await fail_without_a_bus()


async def test_a_server_cannot_begin_on_a_bus_that_is_gone() -> None:
    transport = MemoryTransport(MemoryBus(CLOCK))
    await transport.close()
    with pytest.raises(Closed):
        async with serving(transport, Serving([Asks()], "h"), clock=CLOCK, options=OPTIONS, grace_s=1):
            raise AssertionError
