"""`make bench-plots`: how the cost of a call grows with the calls in flight, with their size and with the client processes.

    python -m tests.bench.rpc_peers.growth [--rounds 3] [--peer ours_amqp]... [--into FOLDER]

Three drawings, each of calls/s and of CPU seconds per 1,000 calls (clients and server), and a table of the same figures. Every round
measures all libraries at all points, in random order of the libraries.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from common.testing.servers import RabbitServer
from tests.bench.rpc_peers.__main__ import described
from tests.bench.rpc_peers.processes import PeerFailed, Worker, cpu_s, missing, pair, worker
from tests.bench.rpc_peers.work import CALLS, Answer, Order

PEERS = ("ours_amqp", "ours", "aiormq_raw", "oslo")
PLOTS = Path(__file__).parents[1] / "plots"
PHASE_S = 2.0
IN_ALL = 128
"""Calls in flight of all client processes together."""
THREADS_MAX = 1_024
"""oslo.messaging needs a thread for each call in flight."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One drawing: `points` along x, and the order and the number of client processes at each."""

    name: str
    title: str
    x: str
    points: tuple[int, ...]

    def order(self, point: int) -> Order:
        match self.name:
            case "in-flight":
                return Order(CALLS, point, PHASE_S)
            case "payload":
                return Order(CALLS, 16, PHASE_S, padding=max(0, point - 200))
            case _:
                return Order(CALLS, max(1, IN_ALL // point), PHASE_S)

    def clients(self, point: int) -> int:
        return point if self.name == "clients" else 1


SWEEPS = (
    Sweep("in-flight", "calls in flight, one client process, 200 B", "calls in flight", (1, 16, 128, 1_024, 10_000)),
    Sweep("payload", "size of a call and of its answer, 16 in flight", "bytes", (200, 4_096, 65_536, 1_048_576)),
    Sweep("clients", f"client processes, {IN_ALL} calls in flight in all, 200 B", "client processes", (1, 10, 100)),
)


@dataclass(frozen=True, slots=True)
class Point:
    """calls/s, and CPU seconds of clients and server for 1,000 calls."""

    per_s: float
    cpu_s_per_1000: float


Found = dict[tuple[str, str, int], list[Point]]
"""By sweep, library and point: one for each round."""


async def measure(peer: str, url: str, folder: Path) -> dict[tuple[str, int], Point]:
    """One round of one library. Raises PeerFailed."""
    found: dict[tuple[str, int], Point] = {}
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(pair(peer, url, folder))
        clients = [running.client]
        await running.order(Order(CALLS, 16, 0.5))
        for sweep in SWEEPS:
            for point in sweep.points:
                if peer == "oslo" and sweep.order(point).in_flight > THREADS_MAX:
                    continue
                while len(clients) < sweep.clients(point):
                    clients.append(await _another(stack, peer, url, folder, len(clients)))
                at_work = clients[: sweep.clients(point)]
                before, began_s = _spent([running.server, *at_work]), time.monotonic()
                async with asyncio.TaskGroup() as group:
                    asked = [group.create_task(running.order(sweep.order(point), client)) for client in at_work]
                answers = [task.result() for task in asked]
                took_s = time.monotonic() - began_s
                found[sweep.name, point] = _point(answers, took_s, _spent([running.server, *at_work]) - before)
    return found


async def _another(stack: AsyncExitStack, peer: str, url: str, folder: Path, number: int) -> Worker:
    client = await stack.enter_async_context(worker(peer, "client", url, folder, name=f"client-{number}"))
    await client.read()
    return client


def _spent(workers: Sequence[Worker]) -> float:
    return sum(cpu_s(each.pid) for each in workers)


def _point(answers: Sequence[Answer], took_s: float, cpu: float) -> Point:
    """All that were answered count, those in flight at the end of the phase too: of 10,000 some take longer than it."""
    if wrong := sum(answer.wrong + answer.errors for answer in answers):
        raise PeerFailed(f"{wrong} calls went wrong: {answers[0].said}")
    answered = sum(answer.answered for answer in answers)
    return Point(answered / took_s, cpu / answered * 1000)


def table(found: Found, peers: Sequence[str]) -> str:
    """Medians, as Markdown: calls/s and, behind a stroke, CPU seconds per 1,000 calls."""
    lines = []
    for sweep in SWEEPS:
        lines += [f"| {sweep.title} | {' | '.join(f'{point:,}' for point in sweep.points)} |", f"|---|{'---|' * len(sweep.points)}"]
        for peer in peers:
            cells = [_cell(found.get((sweep.name, peer, point), [])) for point in sweep.points]
            lines.append(f"| {peer} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(points: Sequence[Point]) -> str:
    return f"{_median(points, 'per_s'):,.0f} / {_median(points, 'cpu_s_per_1000'):.3f}" if points else "-"


def _median(points: Sequence[Point], name: str) -> float:
    return float(statistics.median(getattr(point, name) for point in points))


def draw(found: Found, peers: Sequence[str], into: Path, *, machine: str) -> None:
    """An SVG for each sweep."""
    import matplotlib as mpl  # noqa: PLC0415 - only the benchmark's own environment has it

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "plots", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    into.mkdir(exist_ok=True)
    for sweep in SWEEPS:
        figure, axes = plt.subplots(1, 2, figsize=(9, 4.2))
        for axis, (name, label) in zip(
            axes, (("per_s", "calls/s"), ("cpu_s_per_1000", "CPU s per 1,000 calls, clients and server")), strict=True
        ):
            for peer in peers:
                known = [point for point in sweep.points if found.get((sweep.name, peer, point))]
                values = [_median(found[sweep.name, peer, point], name) for point in known]
                axis.plot(known, values, marker="o", label=peer)
            axis.set(xscale="log", yscale="log", xlabel=sweep.x, ylabel=label)
            axis.set_xticks(sweep.points, [f"{point:,}" for point in sweep.points], rotation=20)
            axis.minorticks_off()
            axis.grid(visible=True, alpha=0.3)
        axes[0].legend()
        figure.suptitle("\n".join((f"By {sweep.title}", *machine.split("; "))), fontsize=8)
        figure.tight_layout()
        figure.savefig(into / f"{sweep.name}.svg", metadata={"Date": None})
        plt.close(figure)


async def _main(asked: argparse.Namespace) -> int:
    peers = [peer for peer in asked.peer or PEERS if missing(peer) is None]
    machine = described()
    found: Found = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        async with RabbitServer() as broker:
            for number in range(asked.rounds):
                for peer in random.sample(peers, len(peers)):
                    url = await asyncio.to_thread(broker.fresh_url)
                    for (sweep, point), measured in (await measure(peer, url, Path(name))).items():
                        found[sweep, peer, point].append(measured)
                    sys.stderr.write(f"round {number + 1}, {peer}\n")
    sys.stdout.write(f"{machine}\n\n{table(found, peers)}\n")
    draw(found, peers, asked.into, machine=machine)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.rpc_peers.growth", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="append", choices=PEERS)
    parser.add_argument("--into", type=Path, default=PLOTS)
    sys.exit(asyncio.run(_main(parser.parse_args())))
