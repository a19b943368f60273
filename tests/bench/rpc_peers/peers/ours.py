"""common.rpc over rabbit://, with the logs of a service."""

import asyncio
import sys
from typing import Any, Protocol

from common.app.logs import configure_logs
from common.base.context import Context
from common.host.clock import SystemClock
from common.rpc.contract import Contract, call, cast
from common.rpc.options import RpcOptions
from common.rpc.session import Serving, client, serving
from common.transport.url import open_transport
from tests.bench.rpc_peers import work

CLOCK = SystemClock()
OPTIONS = RpcOptions(prefetch=work.PREFETCH)


class BenchAPI(Contract, Protocol, topic=work.TOPIC, version="1.0"):
    @call()
    async def echo(self, ctx: Context, *, instance: dict[str, Any]) -> dict[str, Any]: ...

    @cast()
    async def note(self, ctx: Context, *, instance: dict[str, Any]) -> None: ...


class FloodedAPI(Contract, Protocol, topic=work.FLOODED, version="1.0"):
    @cast()
    async def note(self, ctx: Context, *, instance: dict[str, Any]) -> None: ...


class Bench(BenchAPI):
    def __init__(self, handled: work.Handled) -> None:
        self._handled = handled

    async def echo(self, ctx: Context, *, instance: dict[str, Any]) -> dict[str, Any]:
        return instance

    async def note(self, ctx: Context, *, instance: dict[str, Any]) -> None:
        self._handled.note()


class Flooded(FloodedAPI):
    async def note(self, ctx: Context, *, instance: dict[str, Any]) -> None:
        await asyncio.sleep(work.SLOW_S)


async def serve(url: str) -> None:
    transport = await open_transport(url, clock=CLOCK, connection_name="bench-server")
    handled = work.Handled()
    servers = Serving([Bench(handled)], "host1"), Serving([Flooded()], "host1")
    async with serving(transport, *servers, clock=CLOCK, options=OPTIONS, grace_s=1):
        handled.tell()
        await asyncio.Event().wait()


async def ask(url: str) -> None:
    transport = await open_transport(url, clock=CLOCK, connection_name="bench-client")
    async with client(transport, clock=CLOCK, options=OPTIONS) as rpc:
        bench, flooded = BenchAPI.over(rpc), FloodedAPI.over(rpc)

        async def publish(topic: str, instance: dict[str, Any]) -> None:
            await (bench if topic == work.TOPIC else flooded).note(_ctx(), instance=instance)

        await work.obey(lambda instance: bench.echo(_ctx(), instance=instance), publish)


def _ctx() -> Context:
    return Context(user_id="u1", project_id="p1")


if __name__ == "__main__":
    configure_logs(service="bench", host=sys.argv[1])
    asyncio.run({"client": ask, "server": serve}[sys.argv[1]](sys.argv[2]))
