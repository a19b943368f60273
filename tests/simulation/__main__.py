"""python -m tests.simulation --tier 1 --sample 200: cases, violations by invariant, cases a second. See `make repro` for one case.

--tier 1               one fault: every boundary that the article's operations cross, every fault that can be there
--tier 2               two faults, the second while the first is being mended
--tier 3               histories: many operations at a time, faults by chance
--faults crash,pause   only these kinds (tier 1)
--case ID              one case, or "history SEED", with its whole trace
--table                what happens when: outcomes by operation, boundary and fault, as Markdown
--write-table          the same of all cases that the tests run, into OUTCOMES.md
"""

import argparse
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tests.simulation.cases import Case, Report, run_case, single_faults
from tests.simulation.history import HistoryReport, run_history
from tests.simulation.scenario import ADDED, SINGLE
from tests.simulation.table import PAGE, counted, page
from tests.simulation.workers import quiet, run_all, run_histories, run_pairs

FAILING = Path(__file__).with_name("failing_seeds.txt")
"""Seeds of histories that failed once; they are run first."""

_SHOWN = 3
_TOLD_EACH = 1000
_HISTORY = "history "
T = TypeVar("T", Report, HistoryReport)


def main() -> int:
    """0 when nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--tier", type=int, default=1, choices=[1, 2, 3])
    parser.add_argument("--sample", type=int, default=0, help="so many cases, chosen by chance; 0: all of tier 1, 100 of another")
    parser.add_argument("--faults", default="", help="only these kinds, divided by commas")
    parser.add_argument("--match", default="", help="only boundaries that hold this text")
    parser.add_argument("--case", default="", help="one case by its id, with its trace")
    parser.add_argument("--table", action="store_true", help="a table of outcomes")
    parser.add_argument("--write-table", action="store_true", help="the table of the tests' cases, into OUTCOMES.md")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    quiet()
    if asked.case:
        return _one(asked.case, asked.seed)
    begun = time.perf_counter()
    if asked.tier == 3:
        seeds = [*known_seeds(), *(f"{asked.seed}.{number}" for number in range(asked.sample or 100))]
        return _histories(_told(run_histories(seeds, jobs=asked.jobs), len(seeds)), time.perf_counter() - begun)
    if asked.tier == 2:
        numbers = range(asked.sample or 100)
        reports = _told(run_pairs(numbers, seed=asked.seed, jobs=asked.jobs), len(numbers))
    else:
        cases = _cases(asked)
        reports = _told(run_all(cases, seed=asked.seed, jobs=asked.jobs), len(cases))
    if asked.table:
        print(page(counted(reports)))
        return 0
    if asked.write_table:
        PAGE.write_text(page(counted(reports)))
    return _summary(reports, time.perf_counter() - begun)


def _told(reports: Iterable[T], total: int) -> list[T]:
    """All of them; of a long run a line now and then says how far it is, and at once what violates something."""
    begun, found, failed = time.perf_counter(), [], 0
    for report in reports:
        found.append(report)
        if report.violations:
            failed += 1
            invariant, what = report.violations[0]
            print(f"{invariant:4} {_id(report)}   {what}", flush=True)
        if len(found) % _TOLD_EACH == 0:
            took_s = time.perf_counter() - begun
            print(f"{len(found)} of {total} after {took_s:.0f} s, {failed} violate something", flush=True)
    return found


def _id(report: Report | HistoryReport) -> str:
    """As --case takes it."""
    return f"{_HISTORY}{report.seed}" if isinstance(report, HistoryReport) else str(report.case)


def known_seeds() -> list[str]:
    """The first word of each line of failing_seeds.txt."""
    return [line.split()[0] for line in FAILING.read_text().splitlines() if line.strip() and not line.startswith("#")]


def _cases(asked: argparse.Namespace) -> Sequence[Case]:
    if asked.write_table:
        return list(single_faults(SINGLE, seed=asked.seed))
    kinds = frozenset(asked.faults.split(",")) if asked.faults else None
    cases = [case for case in single_faults((*SINGLE, *ADDED), kinds, seed=asked.seed) if asked.match in str(case)]
    return random.Random(asked.seed).sample(cases, asked.sample) if 0 < asked.sample < len(cases) else cases


def _one(case: str, seed: str) -> int:
    report: Report | HistoryReport
    if case.startswith(_HISTORY):
        report = run_history(case.removeprefix(_HISTORY), tell=print)
    else:
        report = run_case(Case.parse(case), seed=seed, tell=print)
    for invariant, what in report.violations:
        print(f"{invariant}: {what}")
    if not report.violations:
        print("violates nothing")
    return bool(report.violations)


def _summary(reports: list[Report], took_s: float) -> int:
    failed = [report for report in reports if report.violations]
    by_first: dict[str, list[Report]] = defaultdict(list)
    for report in failed:
        by_first[report.violations[0][0]].append(report)
    missed = sum(not report.is_struck for report in reports)
    print(
        f"{len(reports)} cases in {took_s:.1f} s, {len(reports) / took_s:.1f} a second; {len(failed)} violate something; "
        f"{missed} plans did not meet all of their boundaries"
    )
    slowest, mean = max((report.took_s for report in reports), default=0), sum(report.took_s for report in reports)
    print(f"slowest {slowest:.2f} s, mean {mean / max(1, len(reports)):.3f} s")
    for invariant, found in sorted(by_first.items()):
        kinds = Counter(report.case.strikes[-1].fault for report in found)
        print(f"{invariant:4} first in {len(found):5}   {dict(kinds)}")
        for report in islice(found, _SHOWN):
            print(f"       {report.case}\n           {report.violations[0][1]}")
    return bool(failed)


def _histories(reports: list[HistoryReport], took_s: float) -> int:
    answers: Counter[str] = sum((report.answers for report in reports), Counter())
    faults: Counter[str] = sum((report.faults for report in reports), Counter())
    failed = [report for report in reports if report.violations]
    print(f"{len(reports)} histories in {took_s:.1f} s, {len(reports) / took_s:.1f} a second; {len(failed)} violate something")
    print(f"operations: {dict(answers)}; faults: {dict(faults)}")
    for report in failed:
        invariant, what = report.violations[0]
        print(f"{invariant:4} make repro CASE='{_HISTORY}{report.seed}'   {dict(report.faults)}\n           {what}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
