"""common.rpc over rabbit://, its servers sharing an inbox in a database: exactly once, whichever of them is killed."""

import asyncio
import sys

from common.app.logs import configure_logs
from common.db import migrate
from common.db.engine import open_database
from common.db.inbox import SqlInbox
from common.rpc.options import RpcOptions
from common.rpc.server import RpcServer
from common.transport.rabbit_settings import RabbitSettings
from common.transport.url import open_transport
from tests.bench.survival.job import READY, REQUEST_QUEUE, Job, die_with_stdin, say
from tests.bench.survival.peers.ours import CLOCK, Worker, ask


async def serve(job: Job) -> None:
    url = f"sqlite:///{job.record}.inbox.sqlite"
    await migrate.upgrade(url, (), clock=CLOCK)
    transport = await open_transport(
        job.url, clock=CLOCK, connection_name="survival-server", rabbit=RabbitSettings(heartbeat_s=job.heartbeat_s)
    )
    options = RpcOptions(prefetch=job.prefetch, durable=job.durable)
    async with RpcServer(
        transport,
        [Worker(job)],
        topic=REQUEST_QUEUE,
        server="host1",
        exchange=None,
        options=options,
        clock=CLOCK,
        grace_s=1,
        inbox=SqlInbox(open_database(url, clock=CLOCK), CLOCK),
    ):
        say(READY)
        await asyncio.Event().wait()


if __name__ == "__main__":
    die_with_stdin()
    configure_logs(service="survival", host=sys.argv[1])
    asyncio.run({"client": ask, "server": serve}[sys.argv[1]](Job.from_json(sys.argv[2])))
