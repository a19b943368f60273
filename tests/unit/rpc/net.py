"""A bus in memory with clients and servers that end with the test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from common.base.clock import Clock
from common.host.clock import SystemClock
from common.rpc.client import RpcClient
from common.rpc.contract import contract_of
from common.rpc.options import RpcOptions
from common.rpc.server import RpcServer
from common.transport.memory import MemoryBus, MemoryTransport

CLOCK = SystemClock()


@dataclass
class Net:
    clock: Clock = CLOCK
    options: RpcOptions = field(default_factory=RpcOptions)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    bus: MemoryBus = field(init=False)

    def __post_init__(self) -> None:
        self.bus = MemoryBus(self.clock)

    def transport(self) -> MemoryTransport:
        made = MemoryTransport(self.bus, name="test")
        self.stack.push_async_callback(made.close)
        return made

    def client(self, **more: Any) -> RpcClient:
        made = RpcClient(self.transport(), **{"options": self.options, "clock": self.clock, **more})
        self.stack.push_async_callback(made.close)
        return made

    async def serve(self, endpoint: object, *, server: str = "h1", grace_s: float = 0.2, **more: Any) -> RpcServer:
        topic = contract_of(endpoint).__rpc_route__.topic
        words = {"options": self.options, "clock": self.clock, **more}
        made = RpcServer(self.transport(), [endpoint], topic=topic, server=server, exchange=None, grace_s=grace_s, **words)
        return await self.stack.enter_async_context(made)


@asynccontextmanager
async def net(**words: Any) -> AsyncIterator[Net]:
    made = Net(**words)
    async with asyncio.timeout(30), made.stack:
        yield made


async def until(is_so: Callable[[], bool]) -> None:
    """Let others run until it is so."""
    async with asyncio.timeout(10):
        while not is_so():
            await CLOCK.sleep(0)
