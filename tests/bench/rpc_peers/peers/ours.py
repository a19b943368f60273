"""common.rpc over rabbit:// or amqp://, with the logs and the metrics of a service."""

import asyncio
import sys
from collections.abc import Collection
from typing import Any, Protocol

from common.app.logs import configure_logs
from common.base.context import Context
from common.host.clock import SystemClock
from common.host.lean_metrics import CollectorRegistry
from common.rpc.contract import Contract, call, cast
from common.rpc.metrics import ClientMetrics, ServerMetrics
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


class ApartAPI(BenchAPI, Protocol, topic=work.APART, version="1.0"): ...


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
    def __init__(self, handled: work.Handled) -> None:
        self._handled = handled

    async def note(self, ctx: Context, *, instance: dict[str, Any]) -> None:
        await asyncio.sleep(self._handled.slow_s)


async def serve(url: str, topics: Collection[str]) -> None:
    transport = await open_transport(url, clock=CLOCK, connection_name="bench-server")
    handled = work.Handled()
    endpoints = {work.TOPIC: Bench(handled), work.APART: Bench(handled), work.FLOODED: Flooded(handled)}
    servers = [Serving([endpoints[topic]], "host1", topic=topic) for topic in topics]
    metrics = [ServerMetrics(CollectorRegistry(), clock=CLOCK)]
    async with serving(transport, *servers, clock=CLOCK, options=OPTIONS, grace_s=1, middleware=metrics):
        handled.tell()
        await asyncio.Event().wait()


async def ask(url: str) -> None:
    transport = await open_transport(url, clock=CLOCK, connection_name="bench-client")
    metrics = [ClientMetrics(CollectorRegistry(), clock=CLOCK)]
    async with client(transport, clock=CLOCK, options=OPTIONS, middleware=metrics) as rpc:
        bench, apart, flooded = BenchAPI.over(rpc), ApartAPI.over(rpc), FloodedAPI.over(rpc)
        echo = {work.TOPIC: bench.echo, work.APART: apart.echo}

        async def publish(topic: str, instance: dict[str, Any]) -> None:
            await (bench if topic == work.TOPIC else flooded).note(_ctx(), instance=instance)

        await work.obey(lambda topic, instance: echo[topic](_ctx(), instance=instance), publish)


def _ctx() -> Context:
    return Context(user_id="u1", project_id="p1")


if __name__ == "__main__":
    configure_logs(service="bench", host=sys.argv[1])
    asyncio.run(ask(sys.argv[2]) if sys.argv[1] == "client" else serve(sys.argv[2], work.SERVED[sys.argv[1]]))
