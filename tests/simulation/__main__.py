"""python -m tests.simulation --tier 1 --sample 200: cases, violations by invariant, cases a second. See `make repro` for one case.

--faults crash,pause   only these kinds
--case ID              one case with its whole trace
"""

import argparse
import random
import sys
import time
from collections import Counter, defaultdict
from itertools import islice

from tests.simulation.cases import Case, Report, run_case, single_faults
from tests.simulation.scenario import SINGLE
from tests.simulation.workers import quiet, run_all

_SHOWN = 3


def main() -> int:
    """0 when nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--tier", type=int, default=1, choices=[1])
    parser.add_argument("--sample", type=int, default=0, help="so many cases, chosen by chance; 0: all")
    parser.add_argument("--faults", default="", help="only these kinds, divided by commas")
    parser.add_argument("--match", default="", help="only boundaries that hold this text")
    parser.add_argument("--case", default="", help="one case by its id, with its trace")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    quiet()
    if asked.case:
        return _one(asked.case, asked.seed)
    kinds = frozenset(asked.faults.split(",")) if asked.faults else None
    cases = [case for case in single_faults(SINGLE, kinds, seed=asked.seed) if asked.match in str(case)]
    if asked.sample and asked.sample < len(cases):
        cases = random.Random(asked.seed).sample(cases, asked.sample)
    begun = time.perf_counter()
    reports = list(run_all(cases, seed=asked.seed, jobs=asked.jobs))
    return _table(reports, time.perf_counter() - begun)


def _one(case: str, seed: str) -> int:
    report = run_case(Case.parse(case), seed=seed, tell=print)
    for invariant, what in report.violations:
        print(f"{invariant}: {what}")
    return bool(report.violations)


def _table(reports: list[Report], took_s: float) -> int:
    failed = [report for report in reports if report.violations]
    by_first: dict[str, list[Report]] = defaultdict(list)
    for report in failed:
        by_first[report.violations[0][0]].append(report)
    missed = sum(not report.is_struck for report in reports)
    print(
        f"{len(reports)} cases in {took_s:.1f} s, {len(reports) / took_s:.1f} a second; {len(failed)} violate something; {missed} plans met no boundary"
    )
    print(
        f"slowest {max((report.took_s for report in reports), default=0):.2f} s, mean {sum(report.took_s for report in reports) / max(1, len(reports)):.3f} s"
    )
    for invariant, found in sorted(by_first.items()):
        kinds = Counter(report.case.strikes[-1].fault for report in found)
        print(f"{invariant:4} first in {len(found):5}   {dict(kinds)}")
        for report in islice(found, _SHOWN):
            print(f"       {report.case}\n           {report.violations[0][1]}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
