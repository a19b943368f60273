"""Callers' fate when the broker or a server fails under them, library by library, on a private RabbitMQ node.

    python -m tests.bench.survival [--peer ours]... [--fault stalled]... [--runs 1] [--json FILE] [--logs FOLDER]

The machine should have nothing else to do.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.testing.servers import RabbitServer, ServerFailed
from tests.bench.survival.counts import Counts
from tests.bench.survival.faults import FAULTS
from tests.bench.survival.job import Job
from tests.bench.survival.run import PEERS, PeerFailed, survive

_COLUMNS = f"{'fault':<22} {'peer':<13} {'correct':>7} {'errors':>6} {'hung':>5} {'twice':>6} {'done 2x':>7} {'lost':>5} {'away s':>6} {'back s':>7} {'gap s':>6} {'all s':>6}  errors by kind"
_LEGEND = """\
correct  right answers                      errors   callers told of an error before their timeout
hung     callers that waited until the end  twice    numbers begun more than once      done 2x  worked on to the end more than once
lost     executed, and no result for the caller      away s   how long the fault lasted (rabbitmqctl's own time with it)
back s   from the return of what was away to the first right answer
gap s    longest time between two right answers      all s    the whole run
"""


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.survival", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peer", action="append", choices=PEERS, help="default: all")
    parser.add_argument(
        "--fault",
        action="append",
        choices=list(FAULTS),
        help="default: all\n" + "\n".join(f"{f.name}: {f.meaning}" for f in FAULTS.values()),
    )
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--calls", type=int, default=Job.__dataclass_fields__["calls"].default)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds of one call")
    parser.add_argument("--json", type=Path, help="write the counts there")
    parser.add_argument("--logs", type=Path, help="keep logs and records of each run below that folder")
    return parser.parse_args(argv)


def _row(fault: str, peer: str, counts: Counts) -> str:
    back = "-" if counts.first_success_s is None else f"{counts.first_success_s:.2f}"
    kinds = ", ".join(f"{number} {kind}" for kind, number in counts.errors.items())
    wrong = f"{counts.wrong} wrong, " if counts.wrong else ""
    return (
        f"{fault:<22} {peer:<13} {counts.correct:>7} {counts.failed:>6} {counts.hung:>5} {counts.executed_twice:>6} {counts.finished_twice:>7} "
        f"{counts.reply_lost:>5} {counts.away_s:>6.1f} {back:>7} {counts.longest_gap_s:>6.2f} {counts.took_s:>6.1f}  {wrong}{kinds}".rstrip()
    )


async def _main(asked: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    out = sys.stdout
    out.write(f"{asked.calls} calls, {asked.in_flight} in flight, 0.2 s of work each, timeout {asked.timeout:g} s\n\n{_COLUMNS}\n")
    job = Job("", "", calls=asked.calls, in_flight=asked.in_flight, timeout_s=asked.timeout)
    async with RabbitServer() as broker:
        for fault in (FAULTS[name] for name in asked.fault or FAULTS):
            for peer in asked.peer or PEERS:
                for number in range(asked.runs):
                    folder = asked.logs and asked.logs / f"{fault.name}-{peer}-{number}"
                    try:
                        counts = await survive(peer, fault, broker, job=job, folder=folder)
                    except (PeerFailed, ServerFailed) as exc:
                        out.write(f"{fault.name:<22} {peer:<13} {exc}\n")
                        await asyncio.to_thread(broker.start)
                        continue
                    out.write(f"{_row(fault.name, peer, counts)}\n")
                    out.flush()
                    rows.append({"fault": fault.name, "peer": peer, **asdict(counts)})
    out.write(f"\n{_LEGEND}")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(_arguments(sys.argv[1:]))))
