"""aio_pika.patterns.RPC over its robust connection, as its documentation shows it, with a queue that does not delete itself."""

import asyncio
import sys

import aio_pika
from aio_pika.patterns import RPC

from tests.bench.survival.job import READY, REQUEST_QUEUE, Executions, Job, ask_all, die_with_stdin, expected, say


async def _rpc(job: Job) -> RPC:
    url = job.url.replace("rabbit://", "amqp://", 1)
    connection = await aio_pika.connect_robust(f"{url}?heartbeat={job.heartbeat_s}&reconnect_interval=1")
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=job.prefetch)
    return await RPC.create(channel)


async def serve(job: Job) -> None:
    rpc = await _rpc(job)
    executions = Executions(job.record)

    async def work(*, number: int) -> int:
        executions.begin(number)
        await asyncio.sleep(job.handler_s)
        executions.end(number)
        return expected(number)

    await rpc.register(REQUEST_QUEUE, work, durable=job.durable)
    say(READY)
    await asyncio.Event().wait()


async def ask(job: Job) -> None:
    rpc = await _rpc(job)
    mode = aio_pika.DeliveryMode.PERSISTENT if job.durable else aio_pika.DeliveryMode.NOT_PERSISTENT

    async def one(number: int) -> int:
        asked = rpc.call(REQUEST_QUEUE, {"number": number}, expiration=int(job.timeout_s), delivery_mode=mode)
        return int(await asyncio.wait_for(asked, job.timeout_s))

    await ask_all(job, one)


if __name__ == "__main__":
    die_with_stdin()
    asyncio.run({"client": ask, "server": serve}[sys.argv[1]](Job.from_json(sys.argv[2])))
