"""One run: a virtual host of its own, server and client processes, a fault in the middle, the counts."""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.testing.servers import RabbitServer
from tests.bench.survival.counts import Counts, Outage, count, read_executions
from tests.bench.survival.faults import Fault
from tests.bench.survival.job import OK, READY, TIMEOUT_SLACK_S, Job, Outcome
from tests.bench.survival.relay import Relay, relay

ROOT = Path(__file__).parents[3]
PEERS = ("ours", "ours_amqp", "ours_inbox", "ours_inbox_amqp", "oslo", "aio_pika_rpc")
_AMQP = "_amqp"
"""Behind the name of a peer: the same over `amqp://`."""
START_S = 30.0
STRIKE_AFTER = 0.25
"""Share of the calls that are answered before the fault."""


class PeerFailed(RuntimeError):
    """A worker process did not do its part; the text holds the end of what it wrote."""


@dataclass
class Run:
    """Implements `faults.Scene`."""

    peer: str
    job: Job
    broker: RabbitServer
    vhost: str
    folder: Path
    relay: Relay | None = None
    servers: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start_server(self) -> None:
        server = await self._spawn("server")
        self.servers.append(server)
        assert server.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                said = (await server.stdout.readline()).decode().strip()
        except TimeoutError:
            said = "nothing"
        if said != READY:
            raise PeerFailed(f"server of {self.peer} said {said!r}: {self._last_words()}")

    async def kill_server(self) -> None:
        server = self.servers.pop(0)
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()

    async def ask(self, fault: Fault) -> tuple[list[Outcome], Outage]:
        """All outcomes, and when the fault was. A client that does not end is killed; its calls are missing then."""
        client = await self._spawn("client")
        assert client.stdout is not None
        outcomes: list[Outcome] = []
        striking: asyncio.Task[Outage] | None = None
        answered = 0
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s):
                    async for line in client.stdout:
                        outcomes.append(Outcome(**json.loads(line)))
                        answered += outcomes[-1].kind == OK
                        if striking is None and answered >= self.job.calls * STRIKE_AFTER:
                            striking = asyncio.create_task(_timed(fault, self))
            if striking is None:
                raise PeerFailed(f"client of {self.peer} ended after {len(outcomes)} calls: {self._last_words()}")
            return outcomes, await striking
        finally:
            await _end(client)

    async def end(self) -> None:
        for server in self.servers:
            await _end(server)

    @property
    def _patience_s(self) -> float:
        """Twice as long as the work takes, and one whole timeout for those that hang."""
        work_s = self.job.calls * self.job.handler_s / self.job.prefetch
        return START_S + 2 * work_s + 2 * (self.job.timeout_s + TIMEOUT_SLACK_S)

    async def _spawn(self, role: str) -> asyncio.subprocess.Process:
        with (self.folder / f"{role}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"tests.bench.survival.peers.{self.peer.removesuffix(_AMQP)}", role, self.job.to_json()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
            )

    def _last_words(self) -> str:
        logs = (path.read_text(errors="replace").strip() for path in sorted(self.folder.glob("*.log")))
        return " ... ".join(log.rpartition("\n")[2] for log in logs if log)


async def _timed(fault: Fault, run: Run) -> Outage:
    began_s = time.monotonic()
    await fault.strike(run)
    return Outage(began_s, time.monotonic())


async def _end(process: asyncio.subprocess.Process) -> None:
    """A worker ends when its stdin does, whatever its library is at."""
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


async def survive(peer: str, fault: Fault, broker: RabbitServer, *, job: Job | None = None, folder: Path | None = None) -> Counts:
    """The counts of one run of `peer` through `fault`.

    job      calls, timeouts and so on; its url, record, durable and heartbeat are the run's
    folder   for logs and the record; None: one that is removed at the end
    Raises PeerFailed when a process does not start, ServerFailed when the broker does not come back.
    """
    async with AsyncExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="survival-")))
        folder.mkdir(parents=True, exist_ok=True)
        url = await asyncio.to_thread(broker.fresh_url)
        vhost = url.rpartition("/")[2]
        way = await stack.enter_async_context(relay(broker.port)) if fault.relayed else None
        if way is not None:
            url = url.replace(f":{broker.port}/", f":{way.port}/")
        if peer.endswith(_AMQP):
            url = f"amqp://{url.removeprefix('rabbit://')}"
        record = folder / "executions"
        record.write_text("")  # a folder may have seen another run
        orders = replace(
            job or Job(url, str(record)), url=url, record=str(record), durable=fault.durable, heartbeat_s=fault.heartbeat_s
        )
        run = Run(peer, orders, broker, vhost, folder, way)
        stack.push_async_callback(run.end)
        for _ in range(fault.servers):
            await run.start_server()
        outcomes, outage = await run.ask(fault)
        (folder / "outcomes.json").write_text(json.dumps([[o.number, o.began_s, o.ended_s, o.kind, o.said] for o in outcomes]))
        return count(orders.calls, outcomes, read_executions(record.read_text()), outage=outage)
