"""common.rpc over rabbit://."""

import asyncio
import sys
from typing import Protocol

from common.app.logs import configure_logs
from common.base.context import Context
from common.host.clock import SystemClock
from common.rpc.contract import Contract, call
from common.rpc.options import RpcOptions
from common.rpc.session import Serving, client, serving
from common.transport.rabbit_settings import RabbitSettings
from common.transport.url import open_transport
from tests.bench.survival.job import READY, REQUEST_QUEUE, Executions, Job, ask_all, die_with_stdin, expected, say

CLOCK = SystemClock()


class WorkAPI(Contract, Protocol, topic=REQUEST_QUEUE, version="1.0"):
    @call(once=True)
    async def work(self, ctx: Context, *, number: int) -> int: ...


class Worker(WorkAPI):
    def __init__(self, job: Job) -> None:
        self._executions = Executions(job.record)
        self._handler_s = job.handler_s

    async def work(self, ctx: Context, *, number: int) -> int:
        self._executions.begin(number)
        await asyncio.sleep(self._handler_s)
        self._executions.end(number)
        return expected(number)


async def serve(job: Job) -> None:
    transport = await open_transport(
        job.url, clock=CLOCK, connection_name="survival-server", rabbit=RabbitSettings(heartbeat_s=job.heartbeat_s)
    )
    options = RpcOptions(prefetch=job.prefetch, durable=job.durable)
    async with serving(transport, Serving([Worker(job)], "host1"), clock=CLOCK, options=options, grace_s=1):
        say(READY)
        await asyncio.Event().wait()


async def ask(job: Job) -> None:
    transport = await open_transport(
        job.url, clock=CLOCK, connection_name="survival-client", rabbit=RabbitSettings(heartbeat_s=job.heartbeat_s)
    )
    options = RpcOptions(response_timeout_s=job.timeout_s, durable=job.durable)
    async with client(transport, clock=CLOCK, options=options) as rpc:
        worker = WorkAPI.over(rpc)
        await ask_all(job, lambda number: worker.work(Context(user_id="u1", project_id="p1"), number=number))


if __name__ == "__main__":
    die_with_stdin()
    configure_logs(service="survival", host=sys.argv[1])
    asyncio.run({"client": ask, "server": serve}[sys.argv[1]](Job.from_json(sys.argv[2])))
