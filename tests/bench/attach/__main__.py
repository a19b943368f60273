"""`make bench-attach`: what one attach and detach cost, with and without the journal, on each database, in one loop and as processes.

python -m tests.bench.attach [--rounds N] [--only loop|processes|growth]
"""

import argparse
import asyncio
import logging
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import structlog

from common.testing.servers import MariaDbServer, PostgresServer, RabbitServer
from tests.bench.attach.in_loop import Cost, cost
from tests.bench.attach.limited import NoLimits
from tests.bench.attach.processes import AT_ONCE, DatabaseServer, Figures, measure

SHARE = 0.1
"""Of a core, which a nova-compute may use where its growth is measured."""


async def main(arguments: argparse.Namespace) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        async with PostgresServer(folder / "pg") as postgres, MariaDbServer(folder / "maria") as maria:
            if arguments.only in {"", "loop"}:
                await in_loop(postgres, maria, arguments.rounds)
            if arguments.only in {"", "processes"}:
                await as_processes(folder, postgres, maria)
            if arguments.only in {"", "growth"}:
                await growing(folder, postgres)


async def in_loop(postgres: PostgresServer, maria: MariaDbServer, rounds: int) -> None:
    """Rounds interleaved: with and without the journal beside each other."""
    print(
        "| one loop, bus in memory | wall ms | CPU ms | reads | writes | transactions | without journal: wall | CPU | transactions |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    number = 0
    for kind in ("sqlite", "postgresql", "mariadb"):
        found: dict[bool, list[Cost]] = {True: [], False: []}
        for _ in range(rounds):
            for with_journal in (True, False):
                number += 1
                url = None
                if kind != "sqlite":
                    url = (postgres if kind == "postgresql" else maria).create_database(f"b{number}")
                found[with_journal].append(await cost(url, with_journal=with_journal))
        with_it, without = (_median(found[which]) for which in (True, False))
        print(
            f"| {kind} | {with_it.wall_ms:.0f} | {with_it.cpu_ms:.0f} | {with_it.reads:.0f} | {with_it.writes:.0f} | "
            f"{with_it.transactions:.0f} | {without.wall_ms:.0f} | {without.cpu_ms:.0f} | {without.transactions:.0f} |",
            flush=True,
        )


def _median(found: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(each, name) for each in found) for name in Cost.__dataclass_fields__))


async def as_processes(folder: Path, postgres: PostgresServer, maria: MariaDbServer) -> None:
    """The real stack of nova 34 and cinder 29 needs 700 ms of CPU and 774 ms for the same (measured beside ours on such a machine)."""
    print("\n| processes, RabbitMQ, simulated storage | wall ms | CPU ms | services | broker | database | pairs/s, 16 at once |")
    print("|---|---|---|---|---|---|---|")
    servers: list[tuple[str, DatabaseServer, str]] = [
        ("PostgreSQL", postgres, postgres.create_database("p1")),
        ("MariaDB", maria, maria.create_database("p1")),
    ]
    async with RabbitServer(folder / "rabbit") as broker:
        for computes in (1, 2):
            for name, server, url in servers:
                place = folder / f"{name}-{computes}"
                place.mkdir()
                connection = url if computes == 1 else server.create_database(f"p{computes}")
                figures = await measure(place, broker, connection, database=server, computes=computes)
                _tell(f"{name}, {computes} compute", figures)


async def growing(folder: Path, postgres: PostgresServer) -> None:
    """What further compute processes add, where the machine is not what they all wait for."""
    print(
        f"\n| nova-computes of {SHARE:.0%} of a core each, PostgreSQL | pairs/s, {AT_ONCE} at once | times one | cores that all use |"
    )
    print("|---|---|---|---|")
    first = 0.0
    async with RabbitServer(folder / "rabbit-growth") as broker:
        for computes in (1, 2, 3, 4):
            place = folder / f"growth-{computes}"
            place.mkdir()
            try:
                found = await measure(
                    place, broker, postgres.create_database(f"g{computes}"), database=postgres, computes=computes, share=SHARE
                )
            except NoLimits as exc:
                print(f"left out: {exc}")
                return
            first = first or found.pairs_per_s
            cores = found.pairs_per_s * found.cpu_ms / 1000
            print(f"| {computes} | {found.pairs_per_s:.1f} | {found.pairs_per_s / first:.1f} | {cores:.1f} |", flush=True)


def _tell(name: str, found: Figures) -> None:
    by = found.cpu_by
    print(
        f"| {name} | {found.wall_ms:.0f} | {found.cpu_ms:.0f} | {by['services']:.0f} | {by['broker']:.0f} | {by['database']:.0f} | "
        f"{found.pairs_per_s:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["loop", "processes", "growth"], default="")
    asyncio.run(main(parser.parse_args()))
