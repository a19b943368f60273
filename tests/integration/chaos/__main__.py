"""`make chaos`: python -m tests.integration.chaos [--cases N] [--only TEXT] [--database postgresql|mariadb|sqlite] [--load N]"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from common.app.logs import configure_logs
from common.testing.servers import MariaDbServer, PostgresServer, RabbitServer
from tests.integration.chaos.cases import kills, outages, some
from tests.integration.chaos.load import run_load
from tests.integration.chaos.stage import stage


async def main(arguments: argparse.Namespace) -> int:
    cases = [case for case in kills() + outages() if arguments.only in str(case)]
    if arguments.database == "sqlite":
        cases = [case for case in cases if case.fault != "database"]
    if arguments.cases:
        cases = some(cases, arguments.cases)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"{arguments.load or len(cases)} {'attachments and detachments' if arguments.load else 'cases'} in {folder}", flush=True)
    started = time.monotonic()
    configure_logs(service="chaos", host="local", quiet=True, stream=lambda: (folder / "chaos.log").open("a", encoding="utf-8"))
    async with RabbitServer(folder / "rabbit") as broker:
        match arguments.database:
            case "sqlite":
                code = await _run(folder, broker, f"sqlite:///{folder}/lite.sqlite", None, cases)
            case "mariadb":
                async with MariaDbServer(folder / "maria", keeps_its_word=True) as maria:
                    code = await _run(folder, broker, maria.create_database("lite"), maria, cases)
            case _:
                async with PostgresServer(folder / "pg", keeps_its_word=True) as postgres:
                    code = await _run(folder, broker, postgres.create_database("lite"), postgres, cases)
    print(f"{time.monotonic() - started:.0f} s")
    return code


async def _run(folder, broker, connection, database, cases) -> int:
    if parsed.load:
        seed = parsed.seed or random.randrange(10**6)
        print(f"seed {seed}", flush=True)
        wrong = await run_load(folder, broker, connection, number=parsed.load, seed=seed, tell=lambda line: print(line, flush=True))
        print("\n".join(wrong) or "none lost, and the doctor finds nothing")
        return 1 if wrong else 0
    async with stage(folder, broker, connection=connection, database=database) as bench:
        outcomes = await bench.run(cases, lambda line: print(line, flush=True))
    bad = [outcome for outcome in outcomes if outcome.wrong]
    reached = sum(outcome.reached for outcome in outcomes)
    print(
        f"{len(outcomes)} cases, {reached} reached, {len(bad)} wrong; longest until quiet {max(o.quiet_s for o in outcomes):.1f} s"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=0)
    parser.add_argument("--load", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--database", default="postgresql", choices=["postgresql", "mariadb", "sqlite"])
    parsed = parser.parse_args()
    sys.exit(asyncio.run(main(parsed)))
