"""`make bench-memory`: what a client and a server hold while they make calls for ten minutes, 128 at once.

    python -m tests.bench.rpc_peers.memory [--minutes 10] [--peer ours_amqp]

A line a minute: calls so far, and VmRSS of both processes.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common.testing.servers import RabbitServer
from tests.bench.rpc_peers.__main__ import described
from tests.bench.rpc_peers.processes import PEERS, PeerFailed, missing, pair, rss_mib
from tests.bench.rpc_peers.work import CALLS, Order

IN_FLIGHT = 128
SLICE_S = 5.0
"""The client keeps the time of every call of one order, 8 bytes each: an order is short."""


async def watch(peer: str, minutes: int) -> None:
    """Raises PeerFailed when a call goes wrong."""
    with tempfile.TemporaryDirectory(prefix="rpc-memory-") as folder:
        async with RabbitServer() as broker, pair(peer, broker.fresh_url(), Path(folder)) as running:
            calls, began_s, minute = 0, time.monotonic(), 0
            while minute < minutes:
                answer = await running.order(Order(CALLS, IN_FLIGHT, SLICE_S))
                if answer.wrong or answer.errors:
                    raise PeerFailed(f"{answer.wrong} wrong answers and {answer.errors} errors: {answer.said}")
                calls += answer.answered
                if time.monotonic() - began_s >= (minute + 1) * 60:
                    minute += 1
                    held = [rss_mib(worker.pid) for worker in (running.client, running.server)]
                    print(f"minute {minute}: {calls:,} calls; client {held[0]:.1f} MiB, server {held[1]:.1f} MiB", flush=True)


def main(argv: Sequence[str]) -> int:
    """The status of the process: 1 when a call goes wrong or the peer is missing."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rpc_peers.memory", description=__doc__, formatter_class=form)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--peer", choices=list(PEERS), default="ours_amqp")
    asked = parser.parse_args(argv)
    if (lack := missing(asked.peer)) is not None:
        print(f"error: {asked.peer} needs {lack}, which is not installed; make .venv-bench/installed", file=sys.stderr)
        return 1
    print(f"{asked.peer} on {described()}", flush=True)
    try:
        asyncio.run(watch(asked.peer, asked.minutes))
    except PeerFailed as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
