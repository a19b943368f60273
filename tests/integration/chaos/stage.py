"""The stage of the chaos runs: a private broker, a database, and a cloud whose processes are begun again whenever they die."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from common.base.retry import Retry
from common.rpc.options import RpcOptions
from common.rpc.session import connect
from common.testing.servers import RabbitServer, Server
from tests.integration.chaos.run import Bench
from tests.support.processes import Cloud, cloud

FOR_EVER = Retry(attempts=10**6, first_delay_s=0.1, factor=1.0, delay_s_max=0.1)


@asynccontextmanager
async def stage(folder: Path, broker: RabbitServer, *, connection: str, database: Server | None) -> AsyncIterator[Bench]:
    """A bench that is set up. `database`: the server that is restarted by the fault of that name; None: there is none."""
    failpoints = folder / "failpoints"
    failpoints.mkdir()
    url = broker.vhost_url("chaos")
    async with (
        cloud(folder, transport_url=url, connection=connection, computes=["cmp1"], restarts=FOR_EVER, failpoints=failpoints) as run,
        connect(url, host="chaos-client", options=RpcOptions(), connection_name="chaos-client") as rpc,
    ):
        strikes: dict[str, Callable[[], Awaitable[None]]] = {
            "broker": lambda: _restart(broker),
            "database": lambda: _restart(database),
            "tgtd": lambda: _kill_tgtd(folder / "gold.tgtd"),
        }
        bench = Bench(run, rpc, failpoints, strikes, lambda: doctor(run))
        await bench.set_up()
        try:
            yield bench
        finally:
            await bench.tear_down()


async def doctor(running: Cloud) -> list[str]:
    """What `lite doctor --strict` finds wrong."""
    ran = await running.lite("doctor", "--strict")
    return [] if ran.code == 0 else [line for line in (ran.out + ran.err).splitlines() if line.strip()]


async def _restart(server: Server | None) -> None:
    if server is not None:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)


async def _kill_tgtd(socket: Path) -> None:
    """By the pid of the process that listens on its management socket."""
    for pid in await asyncio.to_thread(pids_of_tgtd, str(socket)):
        os.kill(pid, signal.SIGKILL)


def pids_of_tgtd(socket: str) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if words[0].endswith(b"tgtd") and socket.encode() in environment:
            found.append(int(process.name))
    return found
