"""Our RPC beside oslo.messaging, aio_pika.patterns, FastStream and aiormq by hand, over one private RabbitMQ.

    python -m tests.bench.rpc_peers [--peer ours]... [--rounds 5] [--quick] [--flood] [--json FILE] [--url rabbit://...]

Client and server are processes apart. Each round measures every library, in random order; ratios are within one round. The machine
should have nothing else to do; figures of two runs do not compare, ratios do.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from common.testing.servers import RabbitServer
from tests.bench.rpc_peers.flood import Flooding, FloodPlan, FloodRound, flooding
from tests.bench.rpc_peers.processes import NOT_PYTHON, PEERS, PeerFailed, missing
from tests.bench.rpc_peers.rounds import FULL, QUICK, Figures, measure
from tests.bench.rpc_peers.tables import floods, tables

_VERSIONS = ("oslo.messaging", "aio-pika", "faststream", "aiormq")


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rpc_peers", description=__doc__, formatter_class=form)
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="default: all that are installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one short round, below a minute")
    parser.add_argument(
        "--flood",
        action="store_true",
        help="calls to one queue while 100,000 casts flood another (each round takes a minute for each peer)",
    )
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--url", help="a broker to use instead of a private node")
    return parser.parse_args(argv)


async def _main(asked: argparse.Namespace) -> int:
    peers = []
    for peer in asked.peer or PEERS:
        lack = "a flood" if asked.flood and peer in NOT_PYTHON else missing(peer)
        if lack is None:
            peers.append(peer)
        else:
            sys.stdout.write(f"{peer} is left out: {lack} is not installed (make bench installs it into .venv-bench)\n")
    result: dict[str, Any] = {"machine": described()}
    sys.stdout.write(f"{result['machine']}\n\n")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rpc-peers-")))
        fresh_url: Callable[[], str] = lambda: asked.url  # noqa: E731 - one line beside its other form
        broker_pid = None
        if not asked.url:
            broker = await stack.enter_async_context(RabbitServer())
            fresh_url, broker_pid = broker.fresh_url, int((broker.folder / "pid").read_text())
        if asked.flood:
            flooded: list[Mapping[str, FloodRound]] = []
            async for measured in _floods(peers, fresh_url, broker_pid, 1 if asked.quick else asked.rounds, folder):
                flooded.append(measured)
                sys.stdout.write(f"after {len(flooded)} rounds: {floods(flooded)}\n\n")
                sys.stdout.flush()
            result["floods"] = [{peer: asdict(found) for peer, found in measured.items()} for measured in flooded]
        else:
            plan, number = (QUICK, 1) if asked.quick else (FULL, asked.rounds)
            rounds = [await _round(peers, fresh_url, plan, broker_pid, folder) for _ in range(number)]
            sys.stdout.write(f"{tables(rounds, plan.widths)}\n")
            result["rounds"] = [{peer: asdict(found) for peer, found in measured.items()} for measured in rounds]
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1))
    return 0


async def _round(
    peers: Sequence[str], fresh_url: Callable[[], str], plan: Any, broker_pid: int | None, folder: Path
) -> Mapping[str, Figures]:
    measured: dict[str, Figures] = {}
    for peer in random.sample(peers, len(peers)):
        began_s = time.monotonic()
        try:
            url = await asyncio.to_thread(fresh_url)
            measured[peer] = await measure(peer, url, plan, broker_pid=broker_pid, folder=folder)
        except (PeerFailed, TimeoutError) as exc:
            sys.stderr.write(f"{peer}: {type(exc).__name__} {exc}\n")
            continue
        sys.stderr.write(f"{peer}: {measured[peer].per_s.get(128, 0):.0f} calls/s ({time.monotonic() - began_s:.0f} s)\n")
    return measured


async def _floods(
    peers: Sequence[str], fresh_url: Callable[[], str], broker_pid: int | None, rounds: int, folder: Path
) -> AsyncIterator[Mapping[str, FloodRound]]:
    """All processes live through all rounds; each round takes the libraries in random order."""
    async with AsyncExitStack() as stack:
        running: dict[str, Flooding] = {}
        for peer in peers:
            url = await asyncio.to_thread(fresh_url)
            running[peer] = await stack.enter_async_context(flooding(peer, url, folder, broker_pid=broker_pid))
        for number in range(rounds):
            measured: dict[str, FloodRound] = {}
            for peer in random.sample(peers, len(peers)):
                began_s = time.monotonic()
                measured[peer] = await running[peer].round(FloodPlan())
                sys.stderr.write(f"round {number + 1}, {peer}: {time.monotonic() - began_s:.0f} s\n")
            yield {peer: measured[peer] for peer in peers}


def described() -> str:
    """The machine, its load now, and the versions of what is compared."""
    where = f"{os.cpu_count()} cores of {_processor()}, load {os.getloadavg()[0]:.1f}"
    return f"{where}, Python {platform.python_version()}, RabbitMQ {RabbitServer.version()}; {_versions()}"


def _processor() -> str:
    """As proc(5) has it in /proc/cpuinfo, where that names one."""
    words = [
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return words[0] if words else platform.machine()


def _versions() -> str:
    found = []
    for name in _VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(_arguments(sys.argv[1:]))))
