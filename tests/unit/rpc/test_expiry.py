"""How long a message may wait: a call no longer than its caller, a cast for ever."""

from typing import Protocol

import pytest

from common.base.context import Context
from common.base.errors import Timeout
from common.rpc.client import NobodyListens, RpcClient
from common.rpc.contract import Contract, call, cast
from common.rpc.options import RpcOptions
from common.testing.clock import JumpingClock
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Message, Unroutable

OPTIONS = RpcOptions(response_timeout_s=60)


class WaitAPI(Contract, Protocol, topic="waits", version="1.0"):
    @call()
    async def ask(self, ctx: Context) -> None: ...

    @cast()
    async def tell(self, ctx: Context) -> None: ...


class Bus(MemoryTransport):
    """Keeps what is published; nobody takes it."""

    def __init__(self) -> None:
        super().__init__(MemoryBus(JumpingClock()))
        self.published: list[Message] = []

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        self.published.append(message)
        raise Unroutable(address=message.key)


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def waits(bus: Bus) -> WaitAPI:
    return WaitAPI.over(RpcClient(bus, options=OPTIONS, clock=JumpingClock()))


async def test_a_call_expires_with_its_caller_and_a_cast_never(bus: Bus, waits: WaitAPI) -> None:
    for client, ctx in ((waits, Context()), (waits.within(2.5), Context()), (waits.within(30), Context(deadline=7.0))):
        with pytest.raises(NobodyListens):
            await client.ask(ctx)
    with pytest.raises(NobodyListens):
        await waits.tell(Context())
    assert [message.expiration_ms for message in bus.published] == [60_000, 2_500, 7_000, None]
    assert all(message.mandatory for message in bus.published)


@pytest.mark.parametrize("deadline", [0.0, -5.0])
async def test_nothing_is_sent_for_a_caller_whose_time_is_over(bus: Bus, waits: WaitAPI, deadline: float) -> None:
    for work in (waits.ask, waits.tell):
        with pytest.raises(Timeout, match="gave no answer within 0 s"):
            await work(Context(deadline=deadline))
    assert bus.published == []
