"""What the tests of many cases have in common: shares of a list, and the command that shows a failed one."""

from collections.abc import Sequence
from functools import cache

from tests.simulation.cases import Case, regular, run_case

SHARES = 40
"""Into so many tests the cases of a file are divided."""

OPEN = {"target": "nothing but a restart of cinder-volume exports again what a restarted target daemon forgot"}
"""Kinds of faults that violate something now, and why; their cases may fail."""
OPEN_CASES = {
    f"{stage}: cinder-volume.block1|{place}": "a starting cinder-volume exports again what its own flow has just taken away"
    for stage in ("detach", "delete_server")
    for place in ("commit journal", "failpoint detach.", "commit flows", "commit volumes")
}
"""Beginnings of cases of killed processes that may fail, and why."""


@cache
def cases_of(*stages: str) -> Sequence[Case]:
    return regular(stages)


def violations_of(share: int, *stages: str) -> list[str]:
    """Of one share of these stages' cases, those that violate something: the command that shows it, and what was violated."""
    found = []
    for case in cases_of(*stages)[share::SHARES]:
        report = run_case(case)
        if report.violations and not _is_open(case):
            found.append(f"make repro CASE='{case}'\n    {report.violations[0]}")
        elif not report.is_struck:
            found.append(f"{case} met no boundary: the run is not the same as the one that listed it")
    return found


def _is_open(case: Case) -> bool:
    fault = case.strikes[0].fault
    return fault in OPEN or (fault == "crash" and any(str(case).startswith(beginning) for beginning in OPEN_CASES))
