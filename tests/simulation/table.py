"""What happens when: the outcomes of cases, grouped by operation, fault and place, as a table in Markdown."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from tests.simulation.cases import Report
from tests.simulation.scenario import Outcome

_WORDS = {
    "create": ("available", "error, and the next one is made"),
    "boot": ("active", "error, and the next one is made"),
    "attach": ("in-use", "available"),
    "detach": ("available", "in-use"),
    "delete_server": ("deleted, its volume available", "still there"),
    "delete_volume": ("deleted", "still there"),
}
_FAULTS = {
    "crash": "killed (kill -9)",
    "pause": "stands still for 25 s",
    "forward": "its clock jumps an hour ahead",
    "backward": "its clock jumps an hour back",
    "raise": "the act fails",
    "hang": "the act hangs",
    "cut": "its connection to the bus breaks",
    "lost": "a message is lost, no confirm",
    "unconfirmed": "a message arrives, no confirm",
    "twice": "a message arrives twice",
    "late": "a message arrives 70 s late",
    "swap": "a message is overtaken",
    "busy": "the database is busy",
    "error": "the database fails at commit",
    "target": "the target daemon restarts, keeping nothing",
    "machine": "the machines die",
    "clings": "the guest keeps the disk",
}


def outcomes(reports: Iterable[Report]) -> str:
    """Rows: what was asked for, what went wrong, in which process; how many cases, and what these came to before anybody asked again."""
    groups: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for report in reports:
        strike = report.case.strikes[0]
        place = strike.boundary.partition("|")[0].partition(".")[0]
        outcome = "lost" if report.violations else report.outcome or Outcome.UNDONE
        groups[report.case.stage, strike.fault, place][outcome] += 1
    lines = ["| asked for | what goes wrong | in | cases | done | taken back | lost |", "|---|---|---|---:|---|---|---:|"]
    for (stage, fault, place), found in sorted(groups.items(), key=lambda item: _order(item[0])):
        done, undone = _WORDS[stage]
        cells = (
            stage.replace("_", " "),
            _FAULTS.get(fault, fault),
            place,
            found.total(),
            f"{found[Outcome.DONE]} {done}",
            f"{found[Outcome.UNDONE]} {undone}" if found[Outcome.UNDONE] else "",
            found["lost"],
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _order(group: tuple[str, str, str]) -> tuple[int, int, str]:
    stage, fault, place = group
    return list(_WORDS).index(stage), list(_FAULTS).index(fault), place
