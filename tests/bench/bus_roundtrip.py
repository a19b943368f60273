"""How long a request and its reply take between two processes, bus by bus, and what a waiting consumer costs.

    python -m tests.bench.bus_roundtrip [transport_url ...]

Without URLs: each kind of kombu bus, with private servers of redis and PostgreSQL as far as this machine has them, and RabbitMQ at
127.0.0.1:5672 as guest.
"""

import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from common.base.errors import Fault
from common.host.clock import SystemClock
from common.testing.servers import PostgresServer, RedisServer
from common.transport.port import Message, Queue
from common.transport.url import open_transport, without_password
from tests.conformance.transport.support import consume, send

ROUND_TRIPS = 200
WARM_UP = 20
IDLE_S = 4.0
IN_PARALLEL = 32
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Figures:
    p50_ms: float
    p99_ms: float
    parallel_per_s: float
    idle_cpu_percent: float


async def measure(url: str) -> Figures:
    """One bus: sequential round trips, then many at once, then silence."""
    async with echo_server(url) as pid:
        transport = await open_transport(url, clock=SystemClock(), connection_name="bench")
        try:
            inbox, _ = await consume(transport, Queue("bench-replies", auto_delete=True), prefetch=IN_PARALLEL)
            now_s: Callable[[], float] = asyncio.get_running_loop().time
            times_ms = []
            for number in range(WARM_UP + ROUND_TRIPS):
                started_s = now_s()
                await send(transport, _request(number))
                await inbox.bodies(1)
                times_ms.append((now_s() - started_s) * 1000)
            started_s = now_s()
            async with asyncio.TaskGroup() as group:
                for number in range(ROUND_TRIPS):
                    group.create_task(send(transport, _request(number)))
                group.create_task(inbox.bodies(ROUND_TRIPS))
            per_s = ROUND_TRIPS / (now_s() - started_s)
        finally:
            await transport.close()
        idle = await _cpu_percent(pid)
    times_ms = times_ms[WARM_UP:]
    return Figures(statistics.median(times_ms), statistics.quantiles(times_ms, n=100)[98], per_s, idle)


@asynccontextmanager
async def echo_server(url: str) -> AsyncIterator[int]:
    """The process id of a server at the other end."""
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.conformance.transport.worker", url, "echo", "bench-server"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        if not await worker.stdout.readline():
            raise Fault(f"no server on {without_password(url)}")
        yield worker.pid
    finally:
        worker.stdin.close()
        await worker.wait()
        await worker.stdout.read()


def _request(number: int) -> Message:
    body = b'{"oslo.version": "2.0", "oslo.message": "%s"}' % (b"x" * 400 + b"%d" % number)
    return Message(None, "bench-server", body, headers={"reply_to": "bench-replies"}, expiration_ms=60_000)


async def _cpu_percent(pid: int) -> float:
    """Of one core, by a process that waits for messages."""
    before = _cpu_s(pid)
    await SystemClock().sleep(IDLE_S)
    return (_cpu_s(pid) - before) / IDLE_S * 100


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def usual_urls(folder: str, stack: AsyncExitStack) -> list[str]:
    """The buses of this machine; their servers end with `stack`."""
    urls = [f"kombu+filesystem://{folder}/bus", f"kombu+sqla+sqlite:///{folder}/bus.sqlite"]
    if PostgresServer.missing() is None:
        postgres = await stack.enter_async_context(PostgresServer())
        urls.append(f"kombu+sqla+{postgres.url()}")
    if RedisServer.missing() is None:
        redis = await stack.enter_async_context(RedisServer())
        urls.append(redis.url())
    return [*urls, "rabbit://guest:guest@127.0.0.1:5672/"]


async def main() -> None:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bus-"))
        urls = sys.argv[1:] or await usual_urls(folder, stack)
        out = sys.stdout
        out.write(f"{'bus':<56} {'p50 ms':>8} {'p99 ms':>8} {'parallel/s':>10} {'idle CPU %':>10}\n")
        for url in urls:
            shown = without_password(url).replace(folder, "...")
            try:
                async with asyncio.timeout(120):
                    found = await measure(url)
            except (Fault, TimeoutError) as exc:
                out.write(f"{shown:<56} {type(exc).__name__}: {str(exc).replace(folder, '...')}\n")
                continue
            out.write(
                f"{shown:<56} {found.p50_ms:8.2f} {found.p99_ms:8.2f} {found.parallel_per_s:10.0f} {found.idle_cpu_percent:10.1f}\n"
            )
            out.flush()


if __name__ == "__main__":
    asyncio.run(main())
