"""What the tests of many cases have in common: shares of a list, and the command that shows a failed one."""

from collections.abc import Sequence
from functools import cache

from tests.simulation.cases import Case, run_case, single_faults

SHARES = 40
"""Into so many tests the cases of a file are divided."""


@cache
def cases_of(*stages: str) -> Sequence[Case]:
    """Every single fault at every boundary."""
    return list(single_faults(stages))


def violations_of(share: int, *stages: str) -> list[str]:
    """Of one share of these stages' cases, those that violate something: the command that shows it, and what was violated."""
    found = []
    for case in cases_of(*stages)[share::SHARES]:
        report = run_case(case)
        if report.violations:
            found.append(f"make repro CASE='{case}'\n    {report.violations[0]}")
        elif not report.is_struck:
            found.append(f"{case} met no boundary: the run is not the same as the one that listed it")
    return found
