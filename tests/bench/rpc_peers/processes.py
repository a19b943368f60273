"""One library's client and server as processes, and what the kernel counts of them."""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.bench.rpc_peers.work import READY, Answer, Order

ROOT = Path(__file__).parents[3]
PEERS = {
    "ours": "common",
    "ours_amqp": "common",
    "oslo": "oslo_messaging",
    "aio_pika_rpc": "aio_pika",
    "faststream_rpc": "faststream",
    "aiormq_raw": "aiormq",
    "node_amqplib": "amqplib for node (npm)",
    "c_librabbitmq": "librabbitmq-dev with a C compiler",
}
"""Module below `peers`, and what it needs: a package, where it is Python's. A name that ends in `_amqp` is the same module over
`amqp://`."""

NOT_PYTHON = frozenset({"node_amqplib", "c_librabbitmq"})
"""Yardsticks, which know nothing of a flood."""

_NODE_MODULES = Path(sys.prefix) / "node_modules"
_PROGRAM = Path(sys.prefix) / "bin" / "c_librabbitmq"

_AMQP = "_amqp"

ANSWER_S = 150.0
"""Longest wait for an order to be done: calls in flight at its end may wait out their timeout."""


class PeerFailed(RuntimeError):
    """A worker process did not do its part; the text holds the end of its log."""


def missing(peer: str) -> str | None:
    """The package that this interpreter lacks."""
    package = PEERS[peer]
    match peer:
        case "node_amqplib":
            is_there = shutil.which("node") is not None and (_NODE_MODULES / "amqplib").exists()
        case "c_librabbitmq":
            is_there = _is_compiled()
        case _:
            is_there = importlib.util.find_spec(package) is not None
    return None if is_there else package


@cache
def _is_compiled() -> bool:
    """Compiles the C peer beside this interpreter."""
    compiler = shutil.which("cc")
    if compiler is None:
        return False
    source = ROOT / "tests/bench/rpc_peers/peers/c_librabbitmq.c"
    words = [compiler, "-O2", "-o", str(_PROGRAM), str(source), "-lrabbitmq"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _command(peer: str, role: str, url: str) -> list[str]:
    over_amqp = f"amqp://{url.removeprefix('rabbit://')}"
    match peer:
        case "node_amqplib":
            return ["node", str(ROOT / "tests/bench/rpc_peers/peers/node_amqplib.js"), role, over_amqp]
        case "c_librabbitmq":
            return [str(_PROGRAM), role, over_amqp]
        case _ if peer.endswith(_AMQP):
            return [sys.executable, "-m", f"tests.bench.rpc_peers.peers.{peer.removesuffix(_AMQP)}", role, over_amqp]
        case _:
            return [sys.executable, "-m", f"tests.bench.rpc_peers.peers.{peer}", role, url]


@dataclass(slots=True)
class Worker:
    """A running process that answers in lines."""

    process: asyncio.subprocess.Process
    log: Path
    began_s: float

    @property
    def pid(self) -> int:
        return self.process.pid

    async def read(self) -> str:
        """Its next line. Raises PeerFailed when there is none in time."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(ANSWER_S):
                line = (await self.process.stdout.readline()).decode().strip()
        except TimeoutError:
            line = ""
        if not line:
            raise PeerFailed(f"no answer; its log ends: {self.log.read_text(errors='replace')[-1500:]}")
        return line

    async def ask(self, words: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{words}\n".encode())
        answer: dict[str, Any] = json.loads(await self.read())
        return answer


@dataclass(slots=True)
class Pair:
    """A client and a server of one library. `first_call_s`: from the client's start to its first answer."""

    client: Worker
    server: Worker
    first_call_s: float

    async def order(self, order: Order, client: Worker | None = None) -> Answer:
        return Answer(**await (client or self.client).ask(json.dumps(asdict(order))))

    async def handled(self) -> tuple[int, float]:
        """Casts that the server has handled, and when the last one."""
        told = await self.server.ask("count")
        return told["handled"], told["last_s"]

    async def slow(self, seconds: float) -> None:
        """What a cast to the flooded queue takes from now on."""
        await self.server.ask(f"slow {seconds}")


@asynccontextmanager
async def pair(peer: str, url: str, folder: Path) -> AsyncIterator[Pair]:
    """Both processes, ready, the first call made. Raises PeerFailed."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(worker(peer, "server", url, folder))
        if (said := await server.read()) != READY:
            raise PeerFailed(f"server said {said!r}")
        client = await stack.enter_async_context(worker(peer, "client", url, folder))
        first = json.loads(await client.read())
        yield Pair(client, server, first["first_call_at_s"] - client.began_s)


@asynccontextmanager
async def worker(peer: str, role: str, url: str, folder: Path, *, name: str | None = None) -> AsyncIterator[Worker]:
    """One process; it ends with its stdin."""
    log = folder / f"{peer}-{name or role}.log"
    began_s = time.monotonic()
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *_command(peer, role, url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            cwd=ROOT,
            env={**os.environ, "NODE_PATH": str(_NODE_MODULES)},
        )
    assert process.stdin is not None
    try:
        yield Worker(process, log, began_s)
    finally:
        process.stdin.close()
        await process.wait()


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used (proc(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Memory of a process now (proc(5), VmRSS), MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def machine_cpu_s() -> float:
    """CPU seconds that all processes of the machine have used (proc(5), /proc/stat without idle and iowait)."""
    fields = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
