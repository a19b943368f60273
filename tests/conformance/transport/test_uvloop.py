"""Programs that run uvloop instead of asyncio's own loop use the same transports."""

import asyncio
from typing import Protocol

import pytest
import uvloop

from common.base.context import Context
from common.rpc.contract import Contract, call
from common.rpc.session import connect
from common.testing.servers import RabbitServer

pytestmark = pytest.mark.real("rabbitmq")


class DoublingAPI(Contract, Protocol, topic="doubling", version="1.0"):
    @call()
    async def double(self, ctx: Context, *, number: int) -> int: ...


class Doubler(DoublingAPI):
    async def double(self, ctx: Context, *, number: int) -> int:
        return number * 2


@pytest.mark.parametrize("engine", ["amqp", "rabbit"])
def test_calls_go_on_after_a_lost_connection(engine: str, rabbit_url: str, rabbit_server: RabbitServer) -> None:
    url, vhost = f"{engine}://{rabbit_url.removeprefix('rabbit://')}", rabbit_url.rpartition("/")[2]

    async def main() -> None:
        async with connect(url, serving=[Doubler()], host="host1"), connect(url) as rpc:
            api = DoublingAPI.over(rpc)
            assert await asyncio.gather(*(api.double(Context(), number=number) for number in range(50))) == list(range(0, 100, 2))
            await asyncio.to_thread(rabbit_server.ctl, "close_all_connections", "--vhost", vhost, "test")
            assert await api.double(Context(), number=21) == 42

    uvloop.run(main())
